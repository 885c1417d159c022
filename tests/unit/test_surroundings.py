"""Reading the environment neither delays nor fails a run."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comfyload import clock
from comfyload.app.run import environment
from comfyload.app.run.environment import FINISH_S, EnvironmentReader
from comfyload.comfy.wire.calls import Reply, Request
from comfyload.record.model import Environment, Fact, Manifest, Server
from comfyload.record.options import RunOptions
from tests.unit.judge_runs import manifest

OPTIONS = {"notes": ["enclosure=Razer = Core X"], "comfyui_dir": "/srv/ComfyUI"}


class Answers:
    """A server that has one route, or none."""

    def __init__(self, body: bytes | None = None) -> None:
        self._body = body

    async def call(self, request: Request) -> Reply:
        found = self._body is not None and request.path == "comfyload/v1/environment"
        return Reply(status=200 if found else 404, body=self._body or b"", content_type="application/json")


WITHOUT_PROBE: Any = Answers()


class Machine:
    """Stands in for this machine: `local_environment` answers once it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let = threading.Event()
        self.folders: list[Path | None] = []
        monkeypatch.setattr(environment, "local_environment", self)

    def __call__(self, server: Server, folder: Path | None) -> Environment:
        self.folders.append(folder)
        self.let.wait(10)
        return {"host.cpu": Fact(value="fast", source="this machine")}


def ended(end: Any) -> Manifest:
    return manifest(options=msgspec.convert(OPTIONS, RunOptions), end=end)


def test_what_was_read_and_what_was_noted_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.let.set()
    run = ended("complete")
    facts = asyncio.run(EnvironmentReader(run, run.server, WITHOUT_PROBE).describe())
    assert machine.folders == [Path("/srv/ComfyUI")]
    assert facts["host.cpu"].value == "fast"
    assert facts["note.enclosure"] == Fact(value="Razer = Core X", source="note")
    assert facts["comfyui.version"] == Fact(value="0.28.1", source="server")


def test_a_driver_that_hangs_holds_the_end_up_for_a_few_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    run = ended("complete")

    async def main() -> tuple[Environment, float]:
        before = clock.now()
        return await EnvironmentReader(run, run.server, WITHOUT_PROBE).describe(), clock.now() - before

    facts, waited = clock.run_virtual(main())
    machine.let.set()
    assert waited == pytest.approx(FINISH_S, abs=0.1)
    assert facts["host.cpu"].value is None
    assert facts["host.cpu"].source
    assert facts["comfyui.version"].value == "0.28.1"


@pytest.mark.parametrize("end", ["cancelled", "crashed"])
def test_a_run_that_was_cut_short_waits_for_nothing(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    machine = Machine(monkeypatch)
    run = ended(end)

    async def main() -> float:
        around = EnvironmentReader(run, run.server, WITHOUT_PROBE)
        await around.read_soon()
        before = clock.now()
        await around.describe()
        return clock.now() - before

    assert clock.run_virtual(main()) == 0.0
    machine.let.set()
    assert len(machine.folders) == 1


def test_what_the_probe_knows_is_described_with_it_as_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch).let.set()
    run = ended("complete")
    probe: Any = Answers(b'{"facts": {"comfyui.commit": {"value": "abc", "source": "git"}, "odd": 3}}')
    facts = asyncio.run(EnvironmentReader(run, run.server, probe).describe())
    assert facts["comfyui.commit"] == Fact(value="abc", source="probe (git)")
    for answer in (b"[]", b"no json", b'{"facts": 7}'):
        broken: Any = Answers(answer)
        assert "comfyui.version" in asyncio.run(EnvironmentReader(run, run.server, broken).describe())
