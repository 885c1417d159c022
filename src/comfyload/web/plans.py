"""The folder `plans` among the runs: workflows by their content, plans that were saved, and those that were started."""

import hashlib
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from comfyload.app.run.options import read_plan, to_toml
from comfyload.errors import ComfyloadError, UsageError, file_errors
from comfyload.judge.gates.grammar import GateSet, read_gates
from comfyload.record.atomic import replace_file
from comfyload.record.options import RunOptions

FOLDER = "plans"
GATES = ".gates.toml"
UNTIL_PROVEN = "# with --until-proven\n"
"""The first line of the gates of a plan that ends once they are decided: no plan file and no file of gates says so."""
KEPT_STARTS = 200
"""Starts whose plan and last words are kept."""
UNUSED_S = 30 * 86400.0
"""How old a file of a page is that is removed, as no plan and no run names it: a run's jobs are sent again with it."""
_HASH = re.compile(r"[0-9a-f]{16}")
_KEPT = re.compile(r"files[/\\\\]+([0-9a-f]{16})[/\\\\]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+-]{0,63}")
_RESERVED = re.compile(r"(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows gives to no file."""


class SavedPlan(Struct, frozen=True, kw_only=True):
    """A plan file. `options` None: it cannot be read, and `problem` says why. `gates_file`: with its gates, if there is
    one. `until_proven`: it ends once they are decided.
    """

    name: str
    path: Path
    saved_utc: str
    options: RunOptions | None
    gates: GateSet | None
    gates_file: Path | None
    until_proven: bool
    problem: str

    @property
    def command(self) -> list[str]:
        """The words that run it in a terminal."""
        words = ["comfyload", "run", "--plan", str(self.path)]
        words += [] if self.gates_file is None else ["--gates", str(self.gates_file)]
        return [*words, "--until-proven"] if self.until_proven else words


class Plans:
    """`runs`: the folder of the runs; `plans` in it is made with the first file."""

    def __init__(self, runs: Path) -> None:
        self.folder = runs / FOLDER
        self._one_writes = threading.Lock()  # a file is written aside first, and two threads would do so in one place

    def keep(self, name: str, content: bytes) -> Path:
        """Keep a file that a page gave, under its name in a folder named after its content.

        Raises:
            UsageError: it cannot be written.
        """
        path = self.folder / "files" / hashlib.sha256(content).hexdigest()[:16] / file_name(name)
        if not path.exists():
            self._write(path, content)
        return path

    def holds(self, path: str) -> bool:
        """Whether it is a file that a page gave."""
        try:
            return Path(path).resolve(strict=True).is_relative_to((self.folder / "files").resolve())
        except (OSError, ValueError, RuntimeError):
            return False

    def text_of(self, path: str) -> str | None:
        """The content of a file that a page gave; of no other."""
        return Path(path).read_text("utf-8", "replace") if self.holds(path) else None

    def saved(self) -> list[SavedPlan]:
        """The newest first."""
        if not self.folder.is_dir():
            return []
        found = [self._read(path) for path in self._files()]
        return sorted(found, key=lambda plan: (plan.saved_utc, plan.name), reverse=True)

    def find(self, name: str) -> SavedPlan | None:
        """The plan of that name."""
        return next((self._read(path) for path in self._files() if path.stem == name), None)

    def save(
        self,
        name: str,
        options: RunOptions,
        gates: GateSet | None,
        *,
        until_proven: bool = False,
        replace: bool = False,
    ) -> SavedPlan:
        """Write a plan as `run --save-plan` does, and its gates in a second file.

        Raises:
            UsageError: the name is none, or there is a plan of that name, or it cannot be written.
        """
        path = self.folder / f"{plan_name(name)}.toml"
        if path.exists() and not replace:
            raise PlanExists(f"there is a plan {path.stem!r} already", "choose another name, or replace it")
        self._write(path, to_toml(options).encode())
        self._write_gates(path.with_name(f"{path.stem}{GATES}"), gates, until_proven=until_proven)
        return self._read(path)

    def delete(self, name: str) -> bool:
        """Remove a plan and its gates; whether it was there. Files that it names stay: others may name them too."""
        for path in self._files():
            if path.stem == name:
                with file_errors(f"cannot delete {path}"):
                    path.unlink(missing_ok=True)
                    path.with_name(f"{name}{GATES}").unlink(missing_ok=True)
                return True
        return False

    # --- plans that were started

    def start(self, run_id: str, options: RunOptions, gates: GateSet | None) -> Path:
        """Keep the plan of a run that is about to start; where."""
        path = self.started(run_id)
        self._write(path, to_toml(options).encode())
        self._write_gates(path.with_suffix(GATES), gates)
        olds = sorted(path.parent.iterdir(), key=lambda one: one.name)[: -4 * KEPT_STARTS]
        for old in olds:
            old.unlink(missing_ok=True)
        return path

    def remove_unused(self, used: Iterable[str], *, now: float) -> int:
        """Remove files that a page gave long ago and that neither a plan nor one of the texts `used` names; how many.

        `now`: Unix seconds.
        """
        plans = [*self.folder.glob("*.toml"), *self.started("x").parent.glob("*.toml")]
        texts = [*used, *(_text(path) or "" for path in plans)]
        named = {found for text in texts for found in _KEPT.findall(text)}
        removed = 0
        for folder in (self.folder / "files").glob("*"):
            with suppress(OSError):
                old = now - max(each.stat().st_mtime for each in (folder, *folder.iterdir())) > UNUSED_S
                if old and folder.name not in named and not folder.is_symlink() and _HASH.fullmatch(folder.name):
                    shutil.rmtree(folder)
                    removed += 1
        return removed

    def started(self, run_id: str) -> Path:
        """The plan with which a run was started from a page; gates and last words have the same name."""
        return self.folder / "started" / f"{file_name(run_id)}.toml"

    def gates_of(self, run_id: str) -> GateSet | None:
        """The gates with which a run was started from a page; None: none were given."""
        return _gates(self.started(run_id).with_suffix(GATES))

    def _files(self) -> Iterator[Path]:
        if self.folder.is_dir():
            for path in self.folder.glob("*.toml"):
                if path.is_file() and not path.is_symlink() and not path.name.endswith(GATES):
                    yield path

    def _read(self, path: Path) -> SavedPlan:
        options, gates, problem = None, None, ""
        gates_file = path.with_name(f"{path.stem}{GATES}")
        text = _text(gates_file)
        try:
            options = read_plan(path)
            gates = None if text is None else read_gates(text, str(gates_file))
            saved = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        except (ComfyloadError, OSError) as error:
            problem, saved = str(error), ""
        return SavedPlan(
            name=path.stem,
            path=path,
            saved_utc=saved,
            options=options,
            gates=gates if gates is not None and gates != GateSet(gates=[]) else None,
            gates_file=None if text is None else gates_file,
            until_proven=text is not None and text.startswith(UNTIL_PROVEN),
            problem=problem,
        )

    def _write_gates(self, path: Path, gates: GateSet | None, *, until_proven: bool = False) -> None:
        if gates is None and not until_proven:
            path.unlink(missing_ok=True)
            return
        first = UNTIL_PROVEN.encode() if until_proven else b""
        self._write(path, first + gates_toml(gates or GateSet(gates=[])))

    def _write(self, path: Path, content: bytes) -> None:
        with file_errors(f"cannot write {path}", "name a folder of runs that you can write", UsageError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._one_writes:
                replace_file(path, content)


class PlanExists(UsageError):
    """There is a plan of that name."""


def gates_toml(gates: GateSet) -> bytes:
    """A file for `--gates`."""
    found: dict[str, object] = {"gates": [gate.text for gate in gates.gates]}
    if gates.expected_errors:
        found["expected_errors"] = gates.expected_errors
    if gates.independent_failures:
        found["independent_failures"] = True
    return msgspec.toml.encode(found)


def plan_name(name: str) -> str:
    """The name as it is, if files may be called so.

    Raises:
        UsageError: they may not.
    """
    bad = name.endswith((".", " ")) or ".gates" in name or _RESERVED.fullmatch(name)
    if bad or _NAME.fullmatch(name) is None:
        raise UsageError(f"a plan cannot be called {name[:80]!r}", "use letters, digits, '-', '_', '.' and blanks")
    return name


def file_name(name: str) -> str:
    """A name for a file, near to what a page called it: it also names the workflow."""
    last = re.split(r"[/\\]", name)[-1]
    found = re.sub(r"[^\w.+-]+", "_", last)[-100:].strip("._") or "file"
    return f"_{found}" if _RESERVED.fullmatch(found) else found


def _gates(path: Path) -> GateSet | None:
    text = _text(path)
    return None if text is None else read_gates(text, str(path))


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
