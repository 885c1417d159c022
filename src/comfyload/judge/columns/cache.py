"""Which files a job really made, and which the server took from its cache or returned before.

No numpy here: progress counts images while jobs run.

ComfyUI answers an unchanged graph from its cache in milliseconds, with the names of the files it wrote the first
time. Such a job is completed, but it made nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from itertools import compress
from typing import Literal

from msgspec import Struct

from comfyload.record.kinds import IMAGE_SUFFIXES, SHOWING, SHOWN, Kind, kind_of
from comfyload.record.model import Output, Record, WorkflowFacts

CacheClass = Literal["fresh", "partial", "cached"]
"""`cached`: all outputs from the cache; `partial`: some output or sampler was; `fresh`: neither."""

_STILL = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in (".gif", ".webp", ".apng"))


class JobFiles(Struct, frozen=True, kw_only=True):
    """What one job returned. Files are `type/subfolder/name`, each once however many nodes returned it.

    `new`: made by this job; `made` counts these by kind and folder, and texts that lie in no file. `repeated`: not
    reported as cached, yet an earlier job of the run returned the same name; `overwritten` of these had their output
    node run, so a file was written, over the earlier one.
    """

    cache: CacheClass
    files: Sequence[str]
    new: Sequence[str]
    made: dict[tuple[Kind, str], int]
    repeated: Sequence[str] = ()
    overwritten: int = 0

    @property
    def images(self) -> int:
        """New images that were saved."""
        return self.made.get(("image", "output"), 0)

    @property
    def previews(self) -> int:
        """New images in any other folder."""
        return sum(count for (kind, folder), count in self.made.items() if kind == "image" and folder != "output")


class CacheJudge:
    """Judges jobs one after another, in the order of their completion, warm-up included.

    Names are kept as hashes: a million take some 100 MB, and two of them share their 64 bits with a chance of 3e-8.
    """

    def __init__(self, workflows: Iterable[WorkflowFacts]) -> None:
        self._facts = {facts.name: _Graph(facts) for facts in workflows}
        self._mixed = {name for name, graph in self._facts.items() if graph.constant}
        self._returned: set[int] = set()

    def plain(self, records: Sequence[Record]) -> list[bool]:
        """Which of successive jobs are like most: completed, nothing from the cache, and one still image, a new one.

        These are judged with that. The others are still to be, one by one; all, if they have a name twice among them.
        """
        mixed = self._mixed
        alike = [
            (run := record.execution).outcome == "completed"
            and len(run.outputs) == 1
            and len(files := run.outputs[0].files) == 1
            and files[0].endswith(_STILL)
            and not run.cached
            and run.outputs[0].kind != "gifs"
            and not run.outputs[0].animated
            and files[0][:6] != "input/"
            and record.workflow not in mixed
            for record in records
        ]
        names = [record.execution.outputs[0].files[0] for record in compress(records, alike)]
        unlike = [record.execution for record, is_alike in zip(records, alike, strict=True) if not is_alike]
        others = [file for run in unlike for output in run.outputs for file in output.files]
        if len(set(names + others)) < len(names) + len(others):
            return [False] * len(records)
        before = self._returned
        hashes = [hash(name) for name in names]
        known = [of_name in before for of_name in hashes]
        before.update(hashes)
        if any(known):
            again = iter(known)
            return [is_alike and not next(again) for is_alike in alike]
        return alike

    def judge(self, record: Record) -> JobFiles:
        """What the job made; remembers the names of its files."""
        run, graph = record.execution, self._facts.get(record.workflow, _UNKNOWN)
        cached = set(run.cached) if run.cached else _NONE
        files: dict[str, Output] = {}
        makers: dict[str, str | None] = {}  # file: the node that made it, None if none did
        made: Counter[tuple[Kind, str]] = Counter()
        saving = {output.node for output in run.outputs if output.files}
        for output in run.outputs:
            node = output.node
            if node in graph.constant:
                continue
            maker = node if not cached or graph.made(node, cached) else None
            for file in output.files:
                if file not in makers or (makers[file] is None and maker is not None):
                    makers[file], files[file] = maker, output
            if output.kind == "text" and node not in saving and maker is not None:
                made["text", SHOWN] += output.count
        new, repeated = self._split(makers, files)
        made.update((_kind(file, files[file]), file.partition("/")[0]) for file in new)
        ran = {span.node for span in run.nodes if span.end is not None} if repeated else _NONE
        return JobFiles(
            cache=graph.cache_class(record, cached) if cached else "fresh",
            files=list(makers),
            new=new,
            made=dict(made),
            repeated=repeated,
            overwritten=sum(makers[file] in ran for file in repeated) if repeated else 0,
        )

    def _split(self, makers: dict[str, str | None], files: dict[str, Output]) -> tuple[list[str], list[str]]:
        """Files that the job made, new ones and those of earlier jobs; all are remembered now."""
        new: list[str] = []
        repeated: list[str] = []
        for file, maker in makers.items():
            of_name = hash(file)
            known = of_name in self._returned
            self._returned.add(of_name)
            if maker is not None and not known:
                new.append(file)
            elif maker is not None and _written(file, files[file]):
                repeated.append(file)
        return new, repeated

    def forget(self) -> None:
        """Give back the memory of the names, when no more jobs come."""
        self._returned = set()


class _Graph:
    """Which nodes of a workflow count for what."""

    def __init__(self, facts: WorkflowFacts | None) -> None:
        nodes = {} if facts is None else facts.nodes
        self.constant = frozenset(() if facts is None else facts.constant)
        self._samplers_of = {node: known.samplers for node, known in nodes.items()}
        self._samplers = {node for node, known in nodes.items() if known.sampler}
        self._outputs = {node for node, known in nodes.items() if known.output}

    def made(self, node: str, cached: Set[str]) -> bool:
        """Whether an output node's files are of this job: neither it nor a sampler before it came from the cache."""
        return node not in cached and cached.isdisjoint(self._samplers_of.get(node, ()))

    def cache_class(self, record: Record, cached: Set[str]) -> CacheClass:
        outputs = self._outputs or {output.node for output in record.execution.outputs} - self.constant
        if outputs and outputs <= cached:
            return "cached"
        return "fresh" if cached.isdisjoint(self._samplers | outputs) else "partial"


_UNKNOWN = _Graph(None)
_NONE: Set[str] = frozenset()


def _kind(file: str, output: Output) -> Kind:
    return kind_of(file, output.kind, animated=output.animated)


def _written(file: str, output: Output) -> bool:
    """Whether a file that comes again should have been written anew: a node may show an input, or what another saved
    before, and a list of its own next to its pictures.
    """
    shown = output.kind in SHOWING or file.startswith("input/")
    return not shown and _kind(file, output) not in ("text", "other")
