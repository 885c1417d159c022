"""Runs that cannot be compared are refused by the name of what differs; what one may be comparing is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from comfyload.errors import UsageError
from comfyload.judge.comparison.comparable import (
    REFUSING,
    Difference,
    check_keys,
    differences,
    label,
    load_words,
    refuse,
)
from comfyload.judge.comparison.compare import compare
from comfyload.judge.summary import Measured, measure
from comfyload.record.model import Fact, Manifest, Server
from comfyload.record.options import RunOptions, WorkflowChoice
from comfyload.record.plan import Closed, Open, Plan, Replay, Stage
from tests.unit.judge_runs import FACTS, job, manifest, one_by_one, planned

SERVER = Server(
    url="http://127.0.0.1:8188",
    comfyui_version="0.28.1",
    argv=["main.py", "--listen"],
    cache_mode="classic",
    system={"pytorch_version": "2.7"},
    devices=[{"name": "cuda:0 NVIDIA GeForce RTX 5060 Ti : cudaMallocAsync", "type": "cuda"}],
    packs=["impact"],
)
TWO = [structs.replace(SERVER, name=name, url=f"http://{name}/") for name in ("gpu1", "gpu2")]
SECONDS = [10.0 + i % 3 for i in range(12)]


def _run(seconds: list[float] = SECONDS, **changes: Any) -> Measured:
    return measure("r", _manifest(len(seconds), **changes), one_by_one(seconds))


def _manifest(jobs: int = 12, **changes: Any) -> Manifest:
    plan = Plan(load=changes.pop("load", Closed()), jobs=jobs, warmup=1, **changes.pop("plan", {}))
    return manifest(**{"plan": plan, "server": SERVER, **changes})


def _keys(found: list[Difference], refuses: bool) -> list[str]:
    return [difference.key for difference in found if difference.refuses is refuses]


def _server(**changes: Any) -> Measured:
    return _run(server=structs.replace(SERVER, **changes))


def _invalid() -> Measured:
    cached = [job(i, 10.0 * i, 10.0, cached=["3", "9"] if i else []) for i in range(12)]
    run = measure("r", _manifest(), cached)
    assert not run.summary.valid
    return run


OTHERS: dict[str, Callable[[], Measured]] = {
    "valid": _invalid,
    "servers": lambda: _run(servers=TWO),
    "gpu": lambda: _server(devices=[{"name": "cuda:0 NVIDIA GeForce RTX 4090 : native", "type": "cuda"}]),
    "workflow": lambda: _run(workflows=[structs.replace(FACTS, sha256="1" * 64)]),
    "cache_mode": lambda: _server(cache_mode="lru 10"),
    "seeds": lambda: _run(workflows=[structs.replace(FACTS, varied=[], salted=["3"])]),
    "load": lambda: _run(load=Closed(concurrency=2)),
    "counted": lambda: _run(seconds=SECONDS * 5),
    "settings": lambda: _run(workflows=[structs.replace(FACTS, overrides={"3.steps": 20})]),
}


def test_every_key_that_refuses_is_tried_here() -> None:
    assert set(OTHERS) == set(REFUSING)


@pytest.mark.parametrize("key", OTHERS)
def test_each_key_refuses_alone_naming_both_values_and_is_overridden_alone(key: str) -> None:
    a, b = _run(), OTHERS[key]()
    found = differences([a], [b])
    assert _keys(found, refuses=True) == [key]
    with pytest.raises(UsageError) as refused:
        compare([a], [b])
    assert f"{key} (A: {found[0].a}, B: {found[0].b})" in refused.value.message
    assert refused.value.hint.endswith(f": --accept {key}") and refused.value.exit_code == 2
    assert any(key in caveat for caveat in compare([a], [b], accept=[key]).caveats)
    with pytest.raises(UsageError):
        compare([a], [b], accept=[other for other in REFUSING if other != key])


def test_all_that_refuses_is_named_at_once() -> None:
    other = _run(load=Closed(concurrency=2), server=structs.replace(SERVER, cache_mode="none"))
    with pytest.raises(
        UsageError, match=r"cache_mode \(A: classic, B: none\); load \(A: 1 in flight, B: 2 in flight\)"
    ):
        refuse(differences([_run()], [other]), [])


def test_no_warm_up_is_not_comparable_with_one() -> None:
    assert _keys(differences([_run()], [measure("r", manifest(12, server=SERVER), one_by_one(SECONDS))]), True) == [
        "counted"
    ]


def test_the_same_runs_do_not_differ_whatever_their_seed_and_length() -> None:
    assert differences([_run()], [_run()]) == []
    assert differences([_run()], [_run(SECONDS * 2, plan={"seed": 99})]) == []


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("comfyui", {"server": structs.replace(SERVER, comfyui_version="0.33.0")}),
        ("torch", {"server": structs.replace(SERVER, system={"pytorch_version": "2.9"})}),
        ("node_packs", {"server": structs.replace(SERVER, packs=["impact", "kj"])}),
        ("argv", {"server": structs.replace(SERVER, argv=["main.py", "--listen", "--fast"])}),
        ("tool", {"tool": "comfyload 9"}),
        ("timeout", {"plan": {"timeout_s": 9.0}}),
    ],
)
def test_what_one_compares_is_shown_and_does_not_refuse(key: str, changes: dict[str, Any]) -> None:
    found = differences([_run()], [_run(**changes)])
    assert [(difference.key, difference.refuses) for difference in found] == [(key, False)]


def test_versions_of_the_environment_are_shown_where_both_sides_know_them() -> None:
    a = _run(
        environment={"custom_nodes.impact": Fact(value="1"), "gpu.0.driver": Fact(value="570"), "x": Fact(value=1)}
    )
    b = _run(environment={"custom_nodes.impact": Fact(value="2"), "gpu.0.driver": Fact(), "x": Fact(value=2)})
    assert [(d.key, d.a, d.b) for d in differences([a], [b])] == [("environment.custom_nodes.impact", "1", "2")]


def test_what_one_side_does_not_tell_is_shown_and_does_not_refuse() -> None:
    (found,) = differences([_run()], [_server(devices=[])])
    assert (found.key, found.b, found.refuses) == ("gpu", "unknown", False)


def test_a_cache_flag_is_told_as_the_cache_mode_and_not_twice() -> None:
    found = differences([_run()], [_server(argv=["main.py", "--cache-lru", "10", "--listen"], cache_mode="lru 10")])
    assert [difference.key for difference in found] == ["cache_mode"]


def test_the_index_and_allocator_of_a_gpu_are_not_its_name() -> None:
    assert (
        differences([_run()], [_server(devices=[{"name": "cuda:1 NVIDIA GeForce RTX 5060 Ti", "type": "cuda"}])]) == []
    )


def test_runs_of_one_side_must_agree_among_themselves() -> None:
    (found,) = differences([_run(), _server(cache_mode="none")], [_run()])
    assert (found.key, found.a, found.b, found.refuses) == ("cache_mode", "classic / none", "classic", True)


def test_an_unknown_key_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'gpus'.*gpu, workflow"):
        check_keys(["gpus"])


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (planned(Closed(concurrency=4, think_s=2)), "4 in flight, 2 s think time"),
        (planned(Open(stages=[Stage(per_s=0.2, seconds=60)])), "poisson 12/min"),
        (planned(Open(stages=[Stage(per_s=0.2, seconds=60), Stage(per_s=0.2, to_per_s=0.5)], arrivals="gamma", cv=2)),
         "gamma (cv 2) 12/min for 60 s, then 12 to 30/min"),
        (planned(Closed(), pages=3, fetch=True), "1 in flight, books of 3 pages, outputs fetched"),
    ],
)  # fmt: skip
def test_a_load_in_words(run: Manifest, words: str) -> None:
    assert load_words(run) == words
    assert label(run) == f"book, {words}"


def test_replays_of_other_instants_are_other_loads() -> None:
    one, two = (load_words(planned(Replay(offsets_s=[0.0, end]))) for end in (1.0, 2.0))
    assert one != two


def test_another_mix_of_the_same_workflows_is_another_load() -> None:
    pair = [FACTS, structs.replace(FACTS, name="cover")]

    def options(weight: float) -> RunOptions:
        return RunOptions(
            workflows=[WorkflowChoice(file="book.json", weight=weight), WorkflowChoice(file="cover.json")]
        )

    one, two = (load_words(manifest(workflows=pair, options=options(weight))) for weight in (1.0, 3.0))
    assert (one, two) == ("1 in flight", "1 in flight, weights 3:1")
