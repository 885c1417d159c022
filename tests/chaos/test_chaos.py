"""A sample of the bench: some kinds of trouble, some points to be killed at, some races; `make chaos` plays all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.judged import Expected, judge
from tests.chaos.kills import VERBS, Bench, points_of
from tests.chaos.kinds import KINDS, Kind, lacking
from tests.chaos.play import play
from tests.chaos.races import PAIRS, race
from tests.chaos.server import in_process

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="signals and forks are of POSIX"),
]
SAMPLE = ("drop", "truncate", "duplicate", "server-killed-retry", "sigkill", "full-disk", "read-only", "few-files")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("kills")
    with in_process(folder / "executed.log", speed=5.0) as url:
        yield Bench(folder, url, folder / "executed.log")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name in SAMPLE], ids=lambda kind: kind.name)
def test_what_is_promised_holds_in_trouble(kind: Kind, tmp_path: Path) -> None:
    if lacks := lacking(kind):
        pytest.skip(f"no {lacks} here")
    found = asyncio.run(play(kind, tmp_path, 120, seed=1))
    assert found.broken == []
    assert found.ends["completed"] >= 60


@pytest.mark.parametrize("verb", VERBS)
def test_it_holds_after_a_kill_at_any_point(verb: str, bench: Bench) -> None:
    first = [point for point in points_of(bench, verb) if point[1] == 1]
    assert len(first) > (10 if verb == "cleanup" else 30)
    played = [line for point in first[:: 1 if verb == "cleanup" else 6] for line in bench.play(verb, point)]
    assert all(said.endswith((": held", "NOT REACHED")) for said in played), played
    assert sum(said.endswith(": held") for said in played) > len(played) // 2, "most points are met in each play"


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_one_of_two_is_refused(number: int, bench: Bench) -> None:
    (said,) = race(bench, number)
    assert said.endswith(("one was refused", "one after the other"))


def test_the_judge_sees_what_is_wrong(bench: Bench) -> None:
    path = bench.folder / "whole"
    assert bench.verb("run", path) in (0, 5)
    mine, records = bench.mine(path), path / "records.ndjson"
    assert judge(path, mine, Expected(), 5).broken == []
    assert judge(path, mine, Expected(), 6).broken == ["5 of 6 arrivals have an end"]

    lines = records.read_text(encoding="utf-8").splitlines(keepends=True)
    ends = [line for line in lines if line.startswith('{"line":"record"')]
    records.write_text("".join([*lines, ends[0]]), encoding="utf-8")
    (said,) = judge(path, mine, Expected(), 5).broken
    assert said.startswith("arrivals ended twice")
    records.write_text("".join(line for line in lines if line != ends[0]), encoding="utf-8")
    assert judge(path, mine, Expected(), 5).broken[0].startswith("arrivals were sent and have no end")
    records.write_text("".join(lines), encoding="utf-8")

    text = mine.read_text(encoding="utf-8")
    one = text.split()[1]
    mine.write_text(f"{text}begun {one}\n", encoding="utf-8")
    assert judge(path, mine, Expected(), 5).broken == [f"executed twice: ['{one}']"]
    mine.write_text(text.replace(f"completed {one}\n", ""), encoding="utf-8")
    assert judge(path, mine, Expected(), 5).broken == [f"completed by the record, and not by the server: ['{one}']"]
    mine.write_text(f"{text}begun 00\n", encoding="utf-8")
    assert judge(path, mine, Expected(), 5).broken == ["the server executed prompts that no record knows: ['00']"]
