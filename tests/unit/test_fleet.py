"""Shards are begun, watched and ended: with stand-ins for their processes, on a clock that is set by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from comfyload import clock
from comfyload.app.fleet.begin import begin, start_instant
from comfyload.app.fleet.follow import follow
from comfyload.app.fleet.host import ElsewhereProcess, LocalProcess, found_again, this_host
from comfyload.app.fleet.watch import ShardWatch
from comfyload.app.run.beginning import Beginning
from comfyload.app.run.caps import Caps
from comfyload.app.run.given import options_of
from comfyload.app.run.options import read_plan
from comfyload.app.run.sharing import check_sharing, hold, parse_instant
from comfyload.app.run.viewer import Viewer
from comfyload.errors import RunFilesError, UsageError
from comfyload.load import Stop
from comfyload.record.codec import encode
from comfyload.record.fleet import read_fleet
from comfyload.record.model import Line, Manifest, Observation, Record
from comfyload.record.options import RunOptions, WorkflowChoice
from comfyload.record.plan import Closed, Open, Plan, Stage
from comfyload.record.run import RunWriter
from tests.support.commands import call
from tests.unit.judge_runs import job, manifest

NOW = 1_900_000_000.0
SEEDED = Plan(load=Closed(concurrency=4), jobs=12, seed=3)


class StandIn:
    """A process that goes on until it is ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.interrupted = 0

    def alive(self) -> bool:
        return self.is_alive

    def interrupt(self) -> None:
        self.interrupted += 1


class Machine:
    """Where shards are started; `words` and `hosts` of each start."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.processes: list[StandIn] = []
        self.words: list[Sequence[str]] = []
        self.hosts: list[str] = []
        self.variables: list[Mapping[str, str]] = []
        self._fails_at = fails_at

    def start(self, words: Sequence[str], host: str, more: Mapping[str, str], messages: Path) -> StandIn:
        if len(self.processes) == self._fails_at:
            raise RunFilesError("no more processes")
        self.words.append(words)
        self.hosts.append(host)
        self.variables.append(more)
        messages.write_text("", encoding="utf-8")
        self.processes.append(StandIn(f"{len(self.processes)}"))
        return self.processes[-1]


def begun(folder: Path, machine: Machine, shards: int = 3, **more: Any) -> ShardWatch:
    options = RunOptions(
        server="http://user:secret@127.0.0.1:1",
        headers=["Authorization=Bearer abc"],
        workflows=[WorkflowChoice(file="w.json")],
        plan=SEEDED,
        run_dir=str(folder / "fleet"),
    )
    return begin(options, "book", shards, 60.0, start=machine.start, **more)


def shard(watch: ShardWatch, number: int, end: Any = "complete") -> None:
    """Write what the process of a shard would."""
    place = watch.fleet.shards[number]
    one = manifest(plan_sha256="a" * 64, shard=f"{number}/{len(watch.fleet.shards)}", end=end, counted_from=0.0)
    one.began_utc = datetime.fromtimestamp(NOW + 0.001 * number, UTC).isoformat()
    with RunWriter(watch.path / place.directory, one) as writer:
        for index in range(number, 12, len(watch.fleet.shards)):
            writer.write_line(job(index, 1.0 * index, 1.0))


class Watcher(Viewer):
    """Notes what it is shown."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.jobs: list[int] = []
        self.phases: list[str] = []

    def began(self, manifest: Manifest, path: Path, expected: int | None) -> None:
        self.phases.append("began")

    def counting(self) -> None:
        self.phases.append("counting")

    def line(self, line: Line) -> None:
        if isinstance(line, Record):
            self.jobs.append(line.index)

    def noticed(self, observation: Observation) -> None:
        self.noted.append(observation.text)

    def ended(self) -> None:
        self.phases.append("ended")


def test_every_shard_is_begun_with_one_plan_and_one_instant(tmp_path: Path) -> None:
    machine = Machine()
    watch = begun(tmp_path, machine)
    fleet = read_fleet(watch.path)
    assert [place.directory for place in fleet.shards] == ["shard-0", "shard-1", "shard-2"]
    assert [place.process for place in fleet.shards] == ["0", "1", "2"]
    assert {place.host for place in fleet.shards} == {this_host()} == set(machine.hosts)
    for number, words in enumerate(machine.words):
        flags = dict(zip(words[1:-1:2], words[2:-1:2], strict=True))
        assert (words[0], words[-1]) == ("run", "--quiet")
        assert flags["--shard"] == f"{number}/3"
        assert flags["--start-at"] == fleet.start_at
        assert flags["--run-dir"] == str(watch.path / f"shard-{number}")
    plan = read_plan(watch.path / "plan.toml")
    assert plan.plan == SEEDED
    assert plan.shard is plan.start_at is plan.run_dir is None


def test_what_is_secret_goes_into_the_environment_alone(tmp_path: Path) -> None:
    machine = Machine()
    watch = begun(tmp_path, machine)
    assert machine.variables[0]["AUTHORIZATION"] == "Bearer abc"
    assert machine.variables[0]["COMFYLOAD_SERVER"] == "http://user:secret@127.0.0.1:1"
    written = "".join(file.read_text(encoding="utf-8") for file in watch.path.glob("*.*"))
    assert "secret" not in written and "abc" not in written
    assert not any(":secret" in word or "Bearer" in word for words in machine.words for word in words)


def test_other_hosts_have_clocks_of_their_own(tmp_path: Path) -> None:
    watch = begun(tmp_path, Machine(), hosts=["one", "two", "three"], ahead_s={"two": 0.25})
    assert [place.clock_ahead_s for place in watch.fleet.shards] == [0.0, 0.25, None]


def test_a_start_that_fails_ends_those_before_it(tmp_path: Path) -> None:
    machine = Machine(fails_at=2)
    with pytest.raises(RunFilesError, match="no more processes"):
        begun(tmp_path, machine)
    assert [process.interrupted for process in machine.processes] == [1, 1]


def test_a_directory_is_used_once(tmp_path: Path) -> None:
    begun(tmp_path, Machine())
    with pytest.raises(RunFilesError, match="already holds a run"):
        begun(tmp_path, Machine())


def test_followed_to_the_end_of_the_last(tmp_path: Path) -> None:
    machine, viewer = Machine(), Watcher()
    watch = begun(tmp_path, machine)

    def sleep(_seconds: float) -> None:
        number = next(n for n, process in enumerate(machine.processes) if process.is_alive)
        shard(watch, number)
        machine.processes[number].is_alive = False

    follow(watch, viewer, shows=True, warn=viewer.noted.append, sleep=sleep)
    assert [place.state for place in read_fleet(watch.path).shards] == ["ended"] * 3
    assert read_fleet(watch.path).plan_sha256 == "a" * 64
    assert sorted(viewer.jobs) == list(range(12))
    assert viewer.phases == ["began", "counting", "ended"]
    assert viewer.noted == []
    assert watch.skew_words() == "3 shards began within 2.0 ms"


@pytest.mark.parametrize("shows", [True, False])
@pytest.mark.parametrize("end", [None, "crashed", "missing"])
def test_a_lost_shard_is_named_with_what_it_printed_last_and_the_others_go_on(
    end: Any, shows: bool, tmp_path: Path
) -> None:
    machine, viewer = Machine(), Watcher()
    watch = begun(tmp_path, machine)
    if end != "missing":
        shard(watch, 1, end)
    watch.messages_of(1).write_text("noticed: x\nerror: the disk is full — make room\n", encoding="utf-8")
    machine.processes[1].is_alive = False
    looks = 0

    def sleep(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            assert viewer.noted == ["shard 1 of 3 is lost: the disk is full — make room"]
        if looks == 5:
            for number in (0, 2):
                shard(watch, number)
                machine.processes[number].is_alive = False

    follow(watch, viewer, shows=shows, warn=viewer.noted.append, sleep=sleep)
    assert looks >= 5
    assert [place.state for place in read_fleet(watch.path).shards] == ["ended", "lost", "ended"]
    assert len(viewer.noted) == 1
    assert watch.skew_words() == ("" if end == "missing" else "3 shards began within 2.0 ms")


def test_one_that_was_resumed_is_lost_no_more(tmp_path: Path) -> None:
    machine = Machine()
    watch = begun(tmp_path, machine, shards=1)
    machine.processes[0].is_alive = False
    assert watch.look() == ["shard 0 of 1 is lost"]
    shard(watch, 0)
    assert watch.look() == []
    assert watch.fleet.shards[0].state == "ended"


def test_interrupts_reach_every_shard(tmp_path: Path) -> None:
    machine = Machine()
    begun(tmp_path, machine).interrupt()
    assert [process.interrupted for process in machine.processes] == [1, 1, 1]


def test_a_process_is_found_again_by_its_number_and_when_it_was_born(tmp_path: Path) -> None:
    import os

    import psutil

    born = psutil.Process().create_time()
    assert found_again(f"{os.getpid()} {born:.2f}", this_host(), tmp_path, 0.0).alive()
    assert not found_again(f"{os.getpid()} {born - 100:.2f}", this_host(), tmp_path, 0.0).alive()
    assert isinstance(found_again("1 1.0", this_host(), tmp_path, 0.0), LocalProcess)
    assert isinstance(found_again("1 1.0", "elsewhere", tmp_path, 0.0), ElsewhereProcess)


def test_a_process_of_another_machine_may_still_come(tmp_path: Path) -> None:
    assert ElsewhereProcess("x", tmp_path, time.time()).alive()
    assert not ElsewhereProcess("x", tmp_path, time.time() - 3600).alive()
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    assert not ElsewhereProcess("x", tmp_path, time.time()).alive()


# --- the instant


def test_without_an_instant_shards_get_time_to_load() -> None:
    left = (start_instant(RunOptions(plan=SEEDED), 4, None) - datetime.now(UTC)).total_seconds()
    assert 3 < left < 60
    more = (start_instant(RunOptions(plan=SEEDED), 40, None) - datetime.now(UTC)).total_seconds()
    assert more > left


def test_a_warm_up_needs_a_time() -> None:
    warm = RunOptions(plan=structs.replace(SEEDED, warmup=2))
    with pytest.raises(UsageError, match="nobody knows how long --warmup takes"):
        start_instant(warm, 2, None)
    assert start_instant(warm, 2, 90.0) - datetime.now(UTC) > timedelta(seconds=80)


def test_two_instants_are_refused() -> None:
    with pytest.raises(UsageError, match="are two instants"):
        start_instant(RunOptions(start_at="2100-01-01T00:00:00+00:00"), 2, 5.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-28T14:00:00", "2026-11-28T14:00:00+00:00"),
        ("2026-11-28T14:00:00Z", "2026-11-28T14:00:00+00:00"),
        ("2026-11-28T15:00:00.5+01:00", "2026-11-28T14:00:00.500000+00:00"),
        ("1795874400", "2026-11-28T14:00:00+00:00"),
        ("1795874400.25", "2026-11-28T14:00:00.250000+00:00"),
    ],
)
def test_an_instant_is_read(text: str, expected: str) -> None:
    assert parse_instant(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "5", "14:00", "1e99", "9999999999999", "2026-13-01", "0001-01-01"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid --start-at"):
        parse_instant(text)


def at(seconds: float) -> str:
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat()


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("--shard needs --seed", {"shard": "0/2", "plan": structs.replace(SEEDED, seed=None)}),
    ("4 users cannot be dealt out to 5 shards", {"shard": "0/5", "plan": SEEDED}),
    (
        "3 places cannot be dealt out to 4 shards",
        {"shard": "0/4", "plan": Plan(load=Open(stages=[Stage(per_s=1)], max_in_flight=3), jobs=9, seed=1)},
    ),
    ("is 5 s past", {"start_at": at(-5)}),
]


@pytest.mark.parametrize(("why", "given"), REFUSED, ids=[why for why, _ in REFUSED])
def test_what_cannot_be_shared_is_refused_in_one_line(why: str, given: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        check_sharing(RunOptions(**given), NOW)
    assert why in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [{}, {"start_at": at(5)}, {"shard": "3/4", "plan": SEEDED}, {"plan": Plan()}])
def test_what_can_is_not(given: dict[str, Any]) -> None:
    check_sharing(RunOptions(**given), NOW)


@pytest.mark.parametrize("text", ["4/4", "x", "1", "0,1/4", "/", "1/0"])
def test_a_flag_that_names_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        options_of({"shard": text}, RunOptions())


def test_the_instant_is_one_of_the_run_s_clock() -> None:
    async def main() -> tuple[float, float]:
        watch = clock.stopwatch()
        await asyncio.sleep(3.0)
        instant = await hold(NOW + 10, watch, Stop(), lambda: NOW + clock.now())
        return instant, watch()

    instant, returned = clock.run_virtual(main())
    assert instant == pytest.approx(10.0, abs=1e-6)
    assert 9.5 < returned < 10


def test_a_wall_clock_that_is_set_meanwhile_is_followed() -> None:
    async def main() -> float:
        watch = clock.stopwatch()
        return await hold(NOW + 100, watch, Stop(), lambda: NOW + clock.now() + (50.0 if clock.now() > 20 else 0.0))

    assert clock.run_virtual(main()) == pytest.approx(50.0, abs=1e-6)


def test_a_stop_ends_the_wait() -> None:
    async def main() -> float:
        stop, watch = Stop(), clock.stopwatch()
        asyncio.get_running_loop().call_later(2.0, stop.request)
        await hold(NOW + 1000, watch, stop, lambda: NOW + clock.now())
        return watch()

    assert clock.run_virtual(main()) == pytest.approx(2.0)


def test_what_is_late_begins_in_the_past() -> None:
    async def main() -> float:
        watch = clock.stopwatch()
        await asyncio.sleep(30.0)
        return await hold(NOW + 10, watch, Stop(), lambda: NOW + clock.now())

    assert clock.run_virtual(main()) == pytest.approx(10.0)


def began(options: RunOptions, one: Manifest, after: float = 0.0) -> tuple[list[str], Manifest, float]:
    """A load that is ready after so many seconds: what is noted of it, its manifest, and the instant of its start."""

    async def main() -> tuple[list[str], Manifest, float]:
        watch, noted = clock.stopwatch(), list[str]()
        beginning = Beginning(one, options, watch, lambda: NOW + clock.now())
        await asyncio.sleep(after)
        wait = beginning.start(Stop(), lambda _: None, lambda observation: noted.append(observation.code))
        instant = beginning.counted_from() if wait is None else await wait()
        await beginning.note_began()
        return noted, one, instant

    return clock.run_virtual(main())


def test_a_shard_notes_the_zero_of_its_clock_and_when_it_began() -> None:
    noted, one, instant = began(RunOptions(start_at=at(10)), manifest(shard="0/2"))
    assert noted == []
    assert instant == pytest.approx(10.0, abs=1e-6)
    assert one.zero_utc == at(0)
    assert one.began_utc == at(10)


def test_a_shard_that_is_late_says_so() -> None:
    noted, one, instant = began(RunOptions(start_at=at(10)), manifest(shard="0/2"), after=10.5)
    assert noted == ["late_start"]
    assert instant == pytest.approx(10.0, abs=1e-6)
    assert one.began_utc == at(10.5)


def test_one_without_an_instant_begins_at_once() -> None:
    noted, one, instant = began(RunOptions(), manifest(shard="0/2"), after=3.0)
    assert (noted, instant, one.zero_utc, one.began_utc) == ([], 3.0, at(0), at(3))


def test_one_that_is_resumed_after_its_instant_goes_on_at_once() -> None:
    noted, _, instant = began(RunOptions(start_at=at(10)), manifest(shard="0/2", resumed=[20.0]), after=20.0)
    assert (noted, instant) == ([], 20.0)


def test_a_run_that_is_no_shard_has_none_of_this_in_its_manifest() -> None:
    _, one, _ = began(RunOptions(), manifest())
    assert b"_utc" not in encode(one).replace(b"started_utc", b"").replace(b"ended_utc", b"")
    assert b"shard" not in encode(structs.replace(one, options=RunOptions())).replace(b'"shard":null', b"").replace(
        b'"allow_lost_shards":false', b""
    )


# --- limits


@pytest.mark.parametrize(("most", "pages"), [(10, 1), (13, 3), (2, 4), (100, 2)])
@pytest.mark.parametrize("of", [1, 3, 4])
def test_the_limit_of_jobs_is_that_of_all_shards_together(most: int, pages: int, of: int) -> None:
    plan = structs.replace(SEEDED, pages=pages)

    async def sent(text: str | None) -> tuple[int, str]:
        caps, jobs = Caps(RunOptions(plan=plan, max_jobs=most, shard=text)), 0
        while caps.admits(pages):
            jobs += pages
        return jobs, caps.reached

    whole, _ = clock.run_virtual(sent(None))
    parts = [clock.run_virtual(sent(f"{number}/{of}")) for number in range(of)]
    assert sum(jobs for jobs, _ in parts) == whole == most // pages * pages
    assert all(reached.startswith(f"--max-jobs {most}") for _, reached in parts)


# --- on the command line


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--shard", "0/2"], "--shard needs --seed"),
        (["--shard", "2/2", "--seed", "1"], "numbered from 0 to 1"),
        (["--shard", "0/2", "--seed", "1"], "1 users cannot be dealt out to 2 shards"),
        (["--shard", "0/2", "--seed", "1", "-c", "2", "--gate", "p95_latency_s <= 9"], "--gate is about a whole run"),
        (["--shard", "0/2", "--seed", "1", "-c", "2", "--save", "x"], "--save is about a whole run"),
        (["--shard", "0/2", "--seed", "1", "-c", "2", "--until-proven"], "--until-proven is about a whole run"),
        (["--start-at", "2020-01-01T00:00:00Z"], "past"),
    ],
)
def test_the_command_refuses_before_anything_is_sent(flags: list[str], why: str, tmp_path: Path) -> None:
    done = call("run", "--server", "http://127.0.0.1:9", "--workflow", "w.json", *flags, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert why in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_fleet_refuses_what_its_shards_would(tmp_path: Path) -> None:
    words = ["--server", "http://127.0.0.1:9", "--workflow", "w.json", "--run-dir", "f"]
    done = call("fleet", "run", "--shards", "2", *words, cwd=tmp_path)
    assert done.returncode == 2 and "cannot be dealt out to 2 shards" in done.stderr
    done = call("fleet", "run", "--shards", "2", "-c", "2", *words[:3], "-", *words[4:], cwd=tmp_path)
    assert done.returncode == 2 and "cannot read one standard input" in done.stderr
    assert not (tmp_path / "f").exists()
