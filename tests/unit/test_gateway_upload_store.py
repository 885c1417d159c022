"""What is kept of uploads: within bounds, the most recently used ones, and always those that a job needs."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from comfyload import clock
from comfyload.errors import RunFilesError
from comfyload.gateway.files import Files
from comfyload.gateway.upload_store import OF_NAME, UploadStore
from tests.support.gateway import desk, farm
from tests.support.rig import sleeper

NAMES, CONTENTS = st.sampled_from("abcdef"), st.sampled_from([letter * OF_NAME for letter in (b"1", b"2", b"3", b"4")])
MOST = 8 * OF_NAME
"""Room for four files with a name each."""


class Uploads(RuleBasedStateMachine):
    """A store beside a plain list of what it was told, the one used last at the end."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = UploadStore(Path(self.folder.name), MOST)
        self.told: list[tuple[str, bytes]] = []
        self.held = Counter[str]()

    @rule(name=NAMES, content=CONTENTS)
    def keep(self, name: str, content: bytes) -> None:
        after = [each for each in self.told if each[0] != name] + [(name, content)]
        while _size(after) > MOST:
            free = [each for each in after[:-1] if not self.held[each[0]]]
            if not free:
                with pytest.raises(RunFilesError, match="jobs need take all the room"):
                    self.store.keep(name, content)
                return
            after.remove(free[0])
        self.store.keep(name, content)
        self.told = after

    @rule(name=NAMES)
    def read(self, name: str) -> None:
        assert self.store.content(name) == dict(self.told).get(name)
        self._use(name)

    @rule(name=NAMES)
    def hold(self, name: str) -> None:
        self.store.hold([name])
        self.held[name] += 1
        self._use(name)

    @rule(name=NAMES)
    def release(self, name: str) -> None:
        if self.held[name]:
            self.store.release([name])
            self.held[name] -= 1

    @rule()
    def restart(self) -> None:
        """A new process knows the same names; of when each was used it knows what the files tell."""
        (Path(self.folder.name) / f".{'0' * 64}.1.tmp").write_bytes(b"a part")
        (Path(self.folder.name) / ("0" * 64)).write_bytes(b"what no name leads to")
        self.store = UploadStore(Path(self.folder.name), MOST)
        self.held.clear()
        order = list(self.store)
        self.told.sort(key=lambda each: order.index(each[0]))

    @invariant()
    def the_same_are_there(self) -> None:
        if not hasattr(self, "store"):
            return
        assert list(self.store) == [name for name, _ in self.told]
        files = {file.name for file in Path(self.folder.name).iterdir()} - {"index.json"}
        assert files == {self.store.digest(name) for name, _ in self.told} and _size(self.told) <= MOST

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def _use(self, name: str) -> None:
        self.told.sort(key=lambda each: each[0] == name)


def _size(told: list[tuple[str, bytes]]) -> int:
    return OF_NAME * len(told) + sum(map(len, {content for _, content in told}))


TestUploads = Uploads.TestCase
TestUploads.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_the_next_process_knows_what_was_used_last(tmp_path: Path) -> None:
    store = UploadStore(tmp_path, MOST)
    for number, name in enumerate("abcd"):
        store.keep(name, name.encode())
        os.utime(tmp_path / str(store.digest(name)), (number, number))
    store.content("b")
    assert list(UploadStore(tmp_path, MOST)) == ["a", "c", "d", "b"]


def test_what_cannot_be_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = UploadStore(tmp_path, 3 * OF_NAME)
    store.keep("a", b"1")

    def refuse(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(RunFilesError, match="No space left"):
        patched.setattr("comfyload.gateway.upload_store.replace_file", refuse)
        store.keep("b", b"2" * 2 * OF_NAME)
    assert list(store) == ["a"] and store.content("a") == b"1"
    assert store.content("b") is None


@pytest.mark.parametrize("index", [b"", b"[1]", b'{"a": 1, "b": "../index.json"}', b'{"a": "%b"}' % (b"0" * 64)])
def test_a_damaged_index_leaves_nothing(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "index.json").write_bytes(index)
    store = UploadStore(tmp_path, MOST)
    assert list(store) == [] and store.content("a") is None
    store.keep("a", b"1")
    assert UploadStore(tmp_path, MOST).content("a") == b"1"


def test_an_upload_stays_as_long_as_a_job_names_it(tmp_path: Path) -> None:
    """Also over a restart of the gateway; when the job has ended, others take its place."""

    def graph(seconds: float) -> dict[str, Any]:
        found = sleeper(seconds)
        found["1"]["inputs"]["image"] = "a.png"
        return found

    async def main() -> None:
        async with farm(2) as servers:
            async with desk(tmp_path, servers, uploads_gb=3 * OF_NAME / 1e9) as front:
                for member in front.gateway.fleet.members:
                    front.gateway.fleet.drain(member.name)
                front.gateway.files.keep("a.png", b"a")
                job_id = (await front.post(graph(1.0)))["prompt_id"]
                crowd(front.gateway.files)
            async with desk(tmp_path, servers, uploads_gb=3 * OF_NAME / 1e9) as front:
                crowd(front.gateway.files)
                await front.end_of(job_id)
                for name in ("x.png", "y.png", "z.png"):
                    front.gateway.files.keep(name, b"x")
                assert front.gateway.files.content("a.png") is None

    def crowd(files: Files) -> None:
        for name in ("b.png", "c.png", "d.png"):
            files.keep(name, b"b")
            assert files.content("a.png") == b"a"

    clock.run_virtual(main())
