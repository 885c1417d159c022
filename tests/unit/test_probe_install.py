"""The probe is put into a ComfyUI as a whole, and nothing is overwritten or removed that did not come from here."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from typer.testing import CliRunner

from comfyload.app import pack_files
from comfyload.app.pack_files import MARK, NAME, FileChanges
from comfyload.app.probe import Running, ask, install, remove, status
from comfyload.cli.probe import probe as app
from comfyload.errors import ComfyloadError, NotComfyUI, ServerUnreachable, UsageError
from comfyload.record.options import RunOptions
from tests.support.servers import answering

STATS = {"system": {"comfyui_version": "0.33.0"}, "devices": []}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pack that this comfyload brings."""
    folder = tmp_path / "source"
    write(folder, "__init__.py", "NODE_CLASS_MAPPINGS = {}\n")
    write(folder, "web/tab.js", "//\n")
    write(folder, "pyproject.toml", '[project]\nname = "comfyload-probe"\nversion = "0.2.0"\n')
    write(folder, "__pycache__/x.pyc", "")
    write(folder, ".hidden", "")
    monkeypatch.setattr("comfyload.app.pack_files.source_of_pack", lambda: folder)
    return folder


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    (tmp_path / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    return tmp_path / "ComfyUI"


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def at(comfyui: Path) -> Path:
    return comfyui / "custom_nodes" / NAME


def names(comfyui: Path) -> list[str]:
    """What lies in the folder of custom nodes."""
    return sorted(path.name for path in (comfyui / "custom_nodes").iterdir())


def call(*words: str | Path) -> tuple[int, str]:
    """The command in this process: exit code and output; an error of ours is raised."""
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_a_pack_is_installed_whole_with_the_hash_of_every_file(comfyui: Path, source: Path) -> None:
    done = install(comfyui)
    assert (done.version, done.files, done.replaced) == ("0.2.0", 3, None)
    assert set(tree(at(comfyui))) == {"__init__.py", "web/tab.js", "pyproject.toml", MARK}
    mark = json.loads((at(comfyui) / MARK).read_bytes())
    assert (mark["version"], sorted(mark["files"])) == ("0.2.0", ["__init__.py", "pyproject.toml", "web/tab.js"])
    assert names(comfyui) == [NAME]
    found = status(comfyui)
    assert found.good and not found.update
    assert found.pack.changes == FileChanges()


def test_the_pack_of_this_comfyload_can_be_installed(comfyui: Path) -> None:
    done = install(comfyui)
    assert (at(comfyui) / "__init__.py").is_file()
    assert done.files > 10
    assert not [name for name in tree(at(comfyui)) if name.endswith(".pyc")]
    assert status(comfyui).good


def test_an_earlier_version_is_replaced(comfyui: Path, source: Path) -> None:
    install(comfyui)
    write(source, "pyproject.toml", '[project]\nversion = "0.3.0"\n')
    write(source, "more.py", "")
    (source / "web" / "tab.js").unlink()
    assert status(comfyui).update
    done = install(comfyui)
    assert (done.replaced, done.version) == ("0.2.0", "0.3.0")
    assert set(tree(at(comfyui))) == {"__init__.py", "more.py", "pyproject.toml", MARK}
    assert not status(comfyui).update


def test_what_was_changed_is_refused_by_name_and_overwritten_only_by_force(comfyui: Path, source: Path) -> None:
    install(comfyui)
    write(at(comfyui), "web/tab.js", "// mine\n")
    assert status(comfyui).pack.changes == FileChanges(changed=["web/tab.js"])
    assert not status(comfyui).good
    for attempt in (install, remove):
        with pytest.raises(UsageError, match=r"changed since it was installed: web/tab\.js"):
            attempt(comfyui)
    assert tree(at(comfyui))["web/tab.js"] == b"// mine\n"
    assert install(comfyui, force=True).overwritten == ["web/tab.js"]
    assert status(comfyui).good


def test_a_file_of_somebody_elses_that_a_new_version_brings_counts_as_changed(comfyui: Path, source: Path) -> None:
    install(comfyui)
    write(at(comfyui), "more.py", "mine\n")
    write(source, "more.py", "")
    with pytest.raises(UsageError, match=r"more\.py"):
        install(comfyui)
    assert install(comfyui, force=True).overwritten == ["more.py"]


def test_a_file_that_is_missing_is_put_back(comfyui: Path, source: Path) -> None:
    install(comfyui)
    (at(comfyui) / "web" / "tab.js").unlink()
    assert status(comfyui).pack.changes == FileChanges(missing=["web/tab.js"])
    install(comfyui)
    assert status(comfyui).good


def test_what_came_from_elsewhere_is_kept_and_left(comfyui: Path, source: Path) -> None:
    install(comfyui)
    write(at(comfyui), "comfyui_metrics.ndjson", "{}\n")
    write(at(comfyui), ".env", "x\n")
    write(at(comfyui), "__pycache__/probe.cpython-312.pyc", "")
    assert status(comfyui).good
    assert install(comfyui).kept == [".env", "comfyui_metrics.ndjson"]
    write(at(comfyui), "web/__pycache__/y.pyc", "")
    done = remove(comfyui)
    assert (done.files, done.left) == (3, [".env", "comfyui_metrics.ndjson"])
    assert set(tree(at(comfyui))) == {".env", "comfyui_metrics.ndjson"}
    assert not (at(comfyui) / "web").exists()


def test_an_installation_is_removed_whole(comfyui: Path, source: Path) -> None:
    write(comfyui, "user/comfyui_metrics.ndjson", "{}\n")
    write(comfyui, "custom_nodes/other/__init__.py", "")
    before = tree(comfyui)
    install(comfyui)
    write(at(comfyui), "__pycache__/x.pyc", "")
    done = remove(comfyui)
    assert (done.version, done.files, done.left) == ("0.2.0", 3, [])
    assert tree(comfyui) == before
    assert not at(comfyui).exists()
    with pytest.raises(UsageError, match="has no comfyload_probe"):
        remove(comfyui)


@pytest.mark.parametrize("mark", [None, "{}", "rubbish", '{"format":1,"version":"1","files":{"../../main.py":"00"}}'])
def test_a_folder_that_is_not_ours_is_never_touched(comfyui: Path, source: Path, mark: str | None) -> None:
    write(at(comfyui), "__init__.py", "theirs\n")
    write(comfyui, "main.py", "")
    if mark is not None:
        write(at(comfyui), MARK, mark)
    before = tree(comfyui)
    for attempt in (install, remove):
        with pytest.raises(UsageError, match="was not installed by comfyload"):
            attempt(comfyui, force=True)
    assert status(comfyui).pack.state == "foreign"
    assert tree(comfyui) == before


def test_a_link_is_named_and_only_force_takes_it_away(comfyui: Path, source: Path, tmp_path: Path) -> None:
    write(tmp_path / "checkout", "__init__.py", "")
    at(comfyui).symlink_to(tmp_path / "checkout")
    assert status(comfyui).pack.link_to == str(tmp_path / "checkout")
    for attempt in (install, remove):
        with pytest.raises(UsageError, match=f"is a link to {tmp_path}"):
            attempt(comfyui)
    assert install(comfyui, force=True).unlinked == str(tmp_path / "checkout")
    assert status(comfyui).good
    remove(comfyui)
    at(comfyui).symlink_to(tmp_path / "checkout")
    assert remove(comfyui, force=True).unlinked == str(tmp_path / "checkout")
    assert not at(comfyui).is_symlink()
    assert (tmp_path / "checkout" / "__init__.py").is_file()


def test_a_link_inside_does_not_lead_a_removal_out_of_the_folder(comfyui: Path, source: Path, tmp_path: Path) -> None:
    install(comfyui)
    write(tmp_path / "elsewhere", "tab.js", "// not ours\n")
    (at(comfyui) / "web" / "tab.js").unlink()
    (at(comfyui) / "web").rmdir()
    (at(comfyui) / "web").symlink_to(tmp_path / "elsewhere")
    assert remove(comfyui, force=True).left == ["web"]
    assert (tmp_path / "elsewhere" / "tab.js").is_file()


def test_a_dry_run_says_the_same_and_writes_nothing(comfyui: Path, source: Path) -> None:
    done = install(comfyui, dry_run=True)
    assert done.dry_run and done.files == 3
    assert names(comfyui) == []
    assert msgspec.structs.replace(done, dry_run=False) == install(comfyui)


def test_a_copy_that_fails_leaves_what_was_there(comfyui: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(comfyui)
    before = tree(comfyui)
    write(source, "pyproject.toml", '[project]\nversion = "0.3.0"\n')
    copied: list[Path] = []

    def full(source: Path, target: Path) -> None:
        copied.append(target)
        if len(copied) == 2:
            raise OSError(28, "No space left on device")
        original(source, target)

    original = pack_files._copy
    monkeypatch.setattr(pack_files, "_copy", full)
    with pytest.raises(UsageError, match="No space left on device"):
        install(comfyui)
    assert tree(comfyui) == before
    assert names(comfyui) == [NAME]


def test_a_rename_that_fails_leaves_what_was_there(
    comfyui: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(comfyui)
    before = tree(comfyui)
    write(source, "pyproject.toml", '[project]\nversion = "0.3.0"\n')
    original = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if ".new." in self.name:
            raise OSError(13, "Permission denied")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(UsageError, match="Permission denied"):
        install(comfyui)
    assert tree(comfyui) == before


def test_nothing_aside_has_a_name_that_comfyui_would_load(
    comfyui: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(comfyui)
    seen: set[str] = set()
    original = Path.rename

    def rename(self: Path, target: Path) -> Path:
        seen.update(names(comfyui))
        done = original(self, target)
        seen.update(names(comfyui))
        return done

    monkeypatch.setattr(Path, "rename", rename)
    install(comfyui)
    assert len(seen) == 3
    assert all(name == NAME or name.endswith(".disabled") for name in seen)


def test_what_a_killed_installation_left_is_told_and_cleared(comfyui: Path, source: Path) -> None:
    dead = f".{NAME}.999999999.new.disabled"
    write(comfyui / "custom_nodes" / dead, "__init__.py", "")
    alive = f".{NAME}.{os.getppid()}.new.disabled"
    write(comfyui / "custom_nodes" / alive, "__init__.py", "")
    assert status(comfyui).left_over == [dead]
    install(comfyui)
    assert names(comfyui) == sorted([alive, NAME])


def test_a_folder_that_is_no_comfyui_is_refused_with_a_hint(tmp_path: Path, comfyui: Path, source: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        install(tmp_path / "missing")
    with pytest.raises(UsageError, match="neither a ComfyUI nor a base directory") as caught:
        status(tmp_path)
    assert "custom_nodes" in caught.value.hint
    with pytest.raises(UsageError, match="the folder of custom nodes itself") as caught:
        install(comfyui / "custom_nodes")
    assert caught.value.hint == f"give {comfyui}"


def test_a_folder_that_cannot_be_written_is_refused(
    comfyui: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="cannot be written"):
        install(comfyui, dry_run=True)


def test_the_commands_say_what_they_did(comfyui: Path, source: Path) -> None:
    code, out = call("status", comfyui)
    assert (code, "is not in" in out) == (1, True)
    code, out = call("install", comfyui, "--dry-run")
    assert code == 0
    assert "would be installed" in out and "Nothing was written." in out
    code, out = call("install", comfyui)
    assert f"The probe 0.2.0 is installed in {at(comfyui)}: 3 files." in out
    assert "Restart ComfyUI to load it." in out
    write(source, "pyproject.toml", '[project]\nversion = "0.3.0"\n')
    write(at(comfyui), "web/tab.js", "")
    code, out = call("status", comfyui)
    assert code == 1
    assert "This comfyload would install 0.3.0" in out and "changed: web/tab.js" in out
    code, out = call("install", comfyui, "--force")
    assert "in place of 0.2.0" in out and "Overwritten although changed: web/tab.js." in out
    code, out = call("status", comfyui, "--json")
    document = json.loads(out)
    assert (code, document["available"], document["pack"]["state"], document["update"]) == (
        0,
        "0.3.0",
        "installed",
        False,
    )
    code, out = call("remove", comfyui)
    assert "is removed from" in out and "Restart ComfyUI to unload it." in out
    with pytest.raises(UsageError):
        call("remove", comfyui)


ENVIRONMENT: dict[str, Any] = {
    "schema": 1,
    "boot": "00c0ffee",
    "facts": {},
    "hooks": {},
    "missing": ["models are not told: comfy.model_management has no load_models_gpu\x1b[2J"],
    "probe": {"version": "0.2.0", "active": True, "dropped": 3, "errors": 0},
}


def reply(status: int, body: Any) -> Any:
    """A server whose probe answers so."""

    async def handler(request: web.Request) -> web.Response:
        if request.path.endswith("/system_stats"):
            return web.json_response(STATS)
        if request.path.endswith("/comfyload/v1/environment"):
            assert request.headers.get("X-Comfyload-Token") in (None, "t")
            return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))
        return web.Response(status=404)

    return answering(handler)


def test_a_running_server_is_asked(comfyui: Path, source: Path) -> None:
    install(comfyui)
    with reply(200, ENVIRONMENT) as url:
        document = asyncio.run(ask(RunOptions(server=f"{url}/base/", headers=["X-Comfyload-Token=t"])))
        assert (document.active, document.version, document.dropped, document.why) == (True, "0.2.0", 3, "")
        assert document.missing == ["models are not told: comfy.model_management has no load_models_gpu [2J"]
        code, out = call("status", comfyui, "--server", url)
        assert code == 0
        assert "the probe 0.2.0 is active." in out and "rows dropped: 3" in out
        assert json.loads(call("status", comfyui, "--server", url, "--json")[1])["server"]["active"] is True


def test_a_server_that_runs_an_older_probe_has_to_be_restarted(comfyui: Path, source: Path) -> None:
    install(comfyui)
    off = {**ENVIRONMENT, "probe": {"version": "0.1.0", "active": False, "errors": 5}}
    with reply(200, off) as url:
        code, out = call("status", comfyui, "--server", url)
    assert code == 1
    assert "has switched itself off" in out and "Restart ComfyUI to load 0.2.0." in out


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (404, "404: Not Found", "the probe is not loaded"),
        (401, {"error": "x"}, "--header X-Comfyload-Token=env:COMFYLOAD_PROBE_TOKEN"),
        (500, "", "answers with HTTP 500"),
        (200, "<html>", "answers with something else"),
        (200, {"probe": {"version": 5}}, "answers with something else"),
    ],
)
def test_a_server_without_a_probe_says_why(comfyui: Path, source: Path, status: int, body: Any, why: str) -> None:
    install(comfyui)
    with reply(status, body) as url:
        document = asyncio.run(ask(RunOptions(server=url)))
        assert isinstance(document, Running) and why in document.why and document.active is None
        assert call("status", comfyui, "--server", url)[0] == 1


def test_a_server_that_is_not_there_ends_with_4_after_what_is_known(
    comfyui: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(comfyui)
    done = CliRunner().invoke(app, ["status", str(comfyui), "--server", "127.0.0.1:9"])
    assert isinstance(done.exception, ServerUnreachable)
    assert "The probe 0.2.0 is in" in done.stdout

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="text/html")

    with answering(page) as url, pytest.raises(NotComfyUI):
        call("status", comfyui, "--server", url)


def test_every_error_says_what_to_do(tmp_path: Path, comfyui: Path) -> None:
    write(at(comfyui), "__init__.py", "")
    for attempt, folder in ((install, tmp_path), (remove, tmp_path), (install, comfyui), (remove, comfyui)):
        with pytest.raises(ComfyloadError) as caught:
            attempt(folder)
        assert caught.value.hint and caught.value.exit_code == 2
