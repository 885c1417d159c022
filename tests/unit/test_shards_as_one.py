"""A run in shards is read as one run: the same numbers, on one clock, and what is missing is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from comfyload.app.check import check, gate_set
from comfyload.app.export import export
from comfyload.app.fleet.join import join
from comfyload.app.locate import find, runs_in
from comfyload.app.run.given import options_of
from comfyload.app.run.repeat import command
from comfyload.app.summary import read_run
from comfyload.errors import RunFilesError, UsageError
from comfyload.judge.summary import Measured, jsonable
from comfyload.record.fleet import ShardPlace
from comfyload.record.model import Manifest, Observation, Quantiles, Record, Sample, SelfCheck
from comfyload.record.options import RunOptions
from comfyload.record.plan import Closed, Load, Open, Plan, Replay, Stage
from comfyload.record.run import RunReader
from tests.support.shards import BEGINS, fleet_of, make, places
from tests.unit import judge_runs

POISSON = Open(stages=[Stage(per_s=8.0)])


def manifest() -> Manifest:
    return judge_runs.manifest(self_check=None, plan_sha256="a" * 64, ended_utc=None, end=None)


def measured(path: Path) -> Measured:
    return read_run(path).runs[0]


def codes(path: Path, level: str | None = None) -> set[str]:
    return {one.code for one in measured(path).summary.findings if level in (None, one.level)}


def run_in(path: Path, of: int, load: Load = POISSON, *, foreign: int = 0, **rules: Any) -> Path:
    rules = {"jobs": 60, "seed": 7, **rules}
    server = make(path, Plan(load=load, **rules), of, manifest, foreign=foreign)
    assert set(server.posts.values()) == {1}
    return path


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in(tmp_path_factory.mktemp("fleet"), 3)


@pytest.fixture
def copied(three: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "fleet"))


def changed(path: Path, **changes: Any) -> None:
    """Change keys of a shard's manifest; `UNSET` is written as absent by leaving out a key whose value is `...`."""
    file = path / "manifest.json"
    content = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}), encoding="utf-8")


def differing(found: Any, expected: Any, where: str = "") -> list[str]:
    """The places where two summaries differ by more than the clocks can be laid over each other."""
    if isinstance(found, dict) and isinstance(expected, dict):
        if found.keys() != expected.keys():
            return [where]
        return [one for key in found for one in differing(found[key], expected[key], f"{where}.{key}")]
    if isinstance(found, float) and isinstance(expected, float):
        return [] if found == pytest.approx(expected, rel=1e-6, abs=1e-5) else [f"{where}: {found} for {expected}"]
    return [] if found == expected else [f"{where}: {found} for {expected}"]


LOADS: dict[str, tuple[Load, dict[str, Any]]] = {
    "poisson": (POISSON, {}),
    "books": (Open(stages=[Stage(per_s=2.0)]), {"pages": 4, "jobs": 12}),
    "constant": (Open(stages=[Stage(per_s=7.0)], arrivals="constant"), {"warmup": 1}),
    "overloaded": (Open(stages=[Stage(per_s=40.0)]), {}),
    "replayed": (Replay(offsets_s=[0.13 * n * n / (1 + n) for n in range(40)]), {"jobs": None}),
    "users": (Closed(concurrency=4), {"jobs": 48}),
}


@pytest.mark.parametrize("of", [1, 2, 4])
@pytest.mark.parametrize("name", LOADS)
def test_the_numbers_are_those_of_the_run_in_one_piece(name: str, of: int, tmp_path: Path) -> None:
    load, rules = LOADS[name]
    whole, parts = (run_in(tmp_path / folder, n, load, **rules) for folder, n in (("whole", 0), ("parts", of)))
    one, all_ = measured(whole), measured(parts)
    assert all_.jobs.n == one.jobs.n > 0
    for instant in ("due", "done", "sent"):
        assert sorted(all_.jobs.instant(instant)) == pytest.approx(sorted(one.jobs.instant(instant)), abs=1e-5)
    assert differing(all_.summary.summary, one.summary.summary) == []
    apart = differing(jsonable(all_.summary.statistics), jsonable(one.summary.statistics))
    # Every reply takes exactly 2 ms here: how far these depend on each other is decided by their last bits.
    assert [one for one in apart if not one.startswith(".avg_acknowledge_s.")] == []
    assert [one.code for one in all_.summary.findings] == [one.code for one in one.summary.findings]


def test_all_instants_are_on_one_clock(three: Path) -> None:
    reader = RunReader(three)
    assert reader.manifest.counted_from == pytest.approx(BEGINS, abs=1e-5)
    records = [line for line in reader.lines() if isinstance(line, Record)]
    done = [record.execution.done or 0.0 for record in records]
    assert done == sorted(done)
    for record in records:
        run = record.execution
        instants = [record.due, run.sent, run.acknowledged, *(span.start for span in run.nodes), run.done]
        assert instants == sorted(instant for instant in instants if instant is not None)
    assert {record.index % 3 for record in records} == {0, 1, 2}


def test_a_merged_manifest_is_of_the_whole_plan(three: Path) -> None:
    found = RunReader(three).manifest
    assert (found.end, found.run_id, found.name, found.part.is_whole) == ("complete", "fleet", "book", True)
    assert found.options.shard is None
    assert found.started_utc == RunReader(three / "shard-0").manifest.started_utc
    assert measured(three).summary.valid


def test_a_shard_alone_has_its_share(three: Path) -> None:
    found = measured(three / "shard-1")
    assert found.summary.summary["total_jobs"] == 20
    assert not {"records_missing", "rate_missed", "little_law"} & {one.code for one in found.summary.findings}
    assert command(structs.replace(found.manifest.options, server="s", shard="1/3")) == []


def test_every_command_finds_it(three: Path, tmp_path: Path) -> None:
    assert find(str(three), tmp_path).results[0].reader.in_shards
    assert runs_in(three) == []
    assert runs_in(three.parent)[0] == three
    (line,) = export(three, csv=tmp_path / "jobs.csv")
    assert line.endswith("60 jobs")
    assert check(read_run(three), gate_set(["success_rate >= 0.5"], None, [])).verdicts[0].verdict == "PASS"
    replayed = options_of({"replay": str(three)}, RunOptions()).plan.load
    assert isinstance(replayed, Replay)
    dues = sorted(record.due for record in RunReader(three).lines() if isinstance(record, Record))
    assert replayed.offsets_s == pytest.approx([due - dues[0] for due in dues])


def test_a_missing_shard_is_named_and_the_run_is_invalid(copied: Path) -> None:
    shutil.rmtree(copied / "shard-1")
    found = measured(copied).summary
    assert not found.valid
    (lost,) = [one for one in found.findings if one.code == "lost_shard"]
    assert "hard 1 of 3 is missing" in lost.text and str(copied / "shard-1") in lost.text


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b"\xff"])
def test_a_damaged_shard_is_named_and_the_run_is_invalid(content: bytes, copied: Path) -> None:
    (copied / "shard-2" / "manifest.json").write_bytes(content)
    assert "lost_shard" in codes(copied, "invalid")


def test_a_damaged_line_is_named_with_its_shard(copied: Path) -> None:
    file = copied / "shard-2" / "records.ndjson"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], b"{]\n", *lines[3:]]))
    with pytest.raises(RunFilesError, match=r"shard-2.records\.ndjson, line 4 is damaged"):
        read_run(copied)
    found = read_run(copied, salvage=True).runs[0].summary
    (damage,) = [one for one in found.findings if one.code == "damaged_lines"]
    assert damage.level == "invalid" and "shard-2/records.ndjson" in damage.text


def test_a_shard_that_was_killed_is_named(copied: Path) -> None:
    changed(copied / "shard-0", end=None, ended_utc=None)
    assert {"lost_shard", "not_ended"} <= codes(copied, "invalid")


@pytest.mark.parametrize("how", ["missing", "killed"])
def test_a_lost_shard_that_is_allowed_is_left_out(how: str, copied: Path) -> None:
    if how == "missing":
        shutil.rmtree(copied / "shard-1")
    else:
        changed(copied / "shard-1", end=None, ended_utc=None)
    fleet_of(copied, places(3), allow_lost_shards=True)
    found = measured(copied)
    assert found.summary.valid, found.summary.findings
    assert "lost_shard_allowed" in {one.code for one in found.summary.findings}
    assert found.summary.summary["total_jobs"] == 40
    assert found.manifest.part.fraction == pytest.approx(2 / 3)


def test_shards_of_different_plans_are_refused_in_one_line(copied: Path) -> None:
    changed(copied / "shard-1", plan_sha256="b" * 64)
    with pytest.raises(RunFilesError, match=r"shard-1 is of another plan than .*shard-0"):
        RunReader(copied)


def test_a_plan_that_is_not_the_fleets_is_refused(copied: Path) -> None:
    fleet_of(copied, places(3), plan_sha256="c" * 64)
    with pytest.raises(RunFilesError, match="another plan"):
        RunReader(copied)


@pytest.mark.parametrize("shard", ["0/3", "1/4", "0,1/3", ...])
def test_a_directory_of_another_shard_is_refused(shard: Any, copied: Path) -> None:
    changed(copied / "shard-1", shard=shard)
    with pytest.raises(RunFilesError, match="not shard 1/3"):
        RunReader(copied)


def test_shards_that_began_apart_are_no_one_load(copied: Path) -> None:
    fleet_of(copied, [*places(2), ShardPlace(directory="shard-2", host="here", clock_ahead_s=-0.4)])
    found = measured(copied).summary
    (apart,) = [one for one in found.findings if one.code == "shards_apart"]
    assert apart.level == "invalid" and "0.4 s" in apart.text


def test_a_clock_that_is_known_to_be_ahead_is_laid_over_the_others(copied: Path) -> None:
    zero = json.loads((copied / "shard-2" / "manifest.json").read_text(encoding="utf-8"))["zero_utc"]
    assert zero.endswith("01+00:00")
    changed(copied / "shard-2", zero_utc=zero.replace("01+00:00", "31+00:00"))
    fleet_of(copied, [*places(2), ShardPlace(directory="shard-2", host="there", clock_ahead_s=30.0)])
    assert measured(copied).summary.valid


def test_a_clock_of_another_machine_that_is_not_known_is_a_warning(copied: Path) -> None:
    fleet_of(copied, [*places(2), ShardPlace(directory="shard-2", host="there")])
    assert "clocks_apart" in codes(copied, "warning")


@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", "", "."])
def test_a_directory_outside_is_refused(name: str, copied: Path) -> None:
    file = copied / "fleet.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["shards"][0]["directory"] = name
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunFilesError, match="damaged"):
        RunReader(copied)


def test_what_shards_noticed_is_all_there_and_said_once_where_all_did(copied: Path) -> None:
    same = {"t": 1.0, "code": "vary", "text": "an input was added"}
    for number in range(3):
        more = [same, *([{"t": 2.0, "code": "stream_lost", "text": "it was lost"}] if number == 1 else [])]
        changed(copied / f"shard-{number}", observations=more)
    noticed = RunReader(copied).manifest.observations
    assert noticed == [
        Observation(t=1.0, code="vary", text="an input was added"),
        Observation(t=2.5, code="stream_lost", text="shard 1 of 3: it was lost"),
    ]


def test_the_self_check_is_the_worst(copied: Path) -> None:
    for number, late in enumerate((0.001, 0.009, 0.002)):
        reading = Quantiles(n=9, p50=late / 2, p99=late, max=late)
        check_ = SelfCheck(
            wall_s=10.0 + number,
            timer_lateness_s=reading,
            send_lateness_s=None,
            busy_fraction=0.1 * number,
            gc_pauses_s=None,
            run_queue_delay_s=None,
            max_rss_bytes=100 - number,
        )
        changed(
            copied / f"shard-{number}",
            self_check=json.loads(json.dumps(structs.asdict(check_), default=structs.asdict)),
        )
    worst = RunReader(copied).manifest.self_check
    assert worst is not None and worst.timer_lateness_s is not None
    assert (worst.timer_lateness_s.p99, worst.busy_fraction, worst.max_rss_bytes) == (0.009, 0.2, 100)


def test_readings_that_others_have_too_are_marked(copied: Path) -> None:
    for number in range(3):
        line = json.dumps({"t": 1.0, "source": "nvml", "name": "gpu.0.power_w", "value": 50.0 + number})
        (copied / f"shard-{number}" / "samples.ndjson").write_text(line + "\n", encoding="utf-8")
    assert list(RunReader(copied).samples()) == [
        Sample(t=1.0, source="nvml", name="gpu.0.power_w", value=50.0),
        Sample(t=1.5, source="nvml@1", name="gpu.0.power_w", value=51.0),
        Sample(t=2.0, source="nvml@2", name="gpu.0.power_w", value=52.0),
    ]


def test_a_row_of_the_log_that_all_have_read_is_there_once(copied: Path) -> None:
    for number in range(3):
        line = json.dumps({"t": 1.0, "source": "probe", "row": {"boot": "b", "seq": 1}})
        (copied / f"shard-{number}" / "log.ndjson").write_text(line + "\n", encoding="utf-8")
    assert [line.t for line in RunReader(copied).log()] == [1.0]


@pytest.mark.parametrize("foreign", [0, 40])
def test_work_of_others_is_found_where_no_shard_alone_can_know(foreign: int, tmp_path: Path) -> None:
    path = run_in(tmp_path, 3, foreign=foreign)
    assert ("foreign_load" in codes(path, "invalid")) == (foreign > 0)
    assert not any("foreign_load" in codes(path / f"shard-{number}") for number in range(3))


def test_shards_that_were_made_by_hand_are_joined(copied: Path) -> None:
    (copied / "fleet.json").unlink()
    (copied / "shard-1").rename(copied / "friday")
    assert join(copied).manifest.part.is_whole
    assert "clocks_apart" in codes(copied, "warning")
    assert measured(copied).summary.summary["total_jobs"] == 60
    with pytest.raises(UsageError, match=r"has a fleet\.json already"):
        join(copied)


def test_shards_of_two_plans_are_not_joined(copied: Path) -> None:
    (copied / "fleet.json").unlink()
    changed(copied / "shard-1", plan_sha256="b" * 64)
    with pytest.raises(RunFilesError, match="another plan"):
        join(copied)
    assert not (copied / "fleet.json").exists()


def test_two_directories_of_one_shard_are_not_joined(copied: Path) -> None:
    (copied / "fleet.json").unlink()
    shutil.copytree(copied / "shard-1", copied / "again")
    with pytest.raises(UsageError, match="are both shard 1/3"):
        join(copied)


def test_places_that_were_divided_are_said(tmp_path: Path) -> None:
    run_in(tmp_path / "fleet", 2, Open(stages=[Stage(per_s=5.0)], max_in_flight=6), jobs=20)
    assert "divided" in codes(tmp_path / "fleet", "info")


def test_one_of_the_shards_is_named_to_resume(three: Path) -> None:
    from comfyload.app.run.resume import check_in_one_piece

    with pytest.raises(UsageError, match="is a run in shards"):
        check_in_one_piece(three)
