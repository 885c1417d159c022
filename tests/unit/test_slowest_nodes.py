"""The slowest nodes are named by their class, once a workflow, and never take more than all of the execution."""

from __future__ import annotations

from msgspec import structs

from comfyload.judge.summary import Summary, measure
from comfyload.record.model import NodeFacts, Record, Span
from comfyload.report.blocks import class_shares, node_bars
from comfyload.report.checklist import Found, checklist_pages
from tests.unit.judge_runs import FACTS, job, manifest

SAVES = [structs.replace(FACTS, nodes={**FACTS.nodes, "10": NodeFacts(class_type="SaveImage", output=True)})]


def _ran(index: int, *spans: tuple[str, float, float], workflow: str = "book") -> Record:
    """A job of 1 s, of which 0.992 s are executed, with these nodes from and to."""
    due = float(index)
    nodes = [Span(node, due + start, due + end) for node, start, end in spans]
    return structs.replace(job(index, due, 1.0, nodes=nodes), workflow=workflow)


def _saving() -> list[Record]:
    """A sampler that takes 0.45 s, and two nodes that save, 0.25 s each."""
    return [_ran(index, ("3", 0.0, 0.45), ("9", 0.45, 0.7), ("10", 0.7, 0.95)) for index in range(4)]


def _summary(lines: list[Record], *workflows: str) -> Summary:
    facts = [structs.replace(SAVES[0], name=name) for name in workflows or ("book",)]
    return measure("runs/x", manifest(len(lines), workflows=facts), lines).summary


def _bars(summary: Summary) -> list[tuple[str, str]]:
    found = node_bars(summary)
    return [] if found is None else [(bar.label, bar.words) for bar in found.bars]


def test_the_nodes_of_a_class_are_counted_together() -> None:
    assert _bars(_summary(_saving())) == [("SaveImage (2 nodes)", "50 %"), ("KSampler", "45 %")]


def test_each_of_several_workflows_is_named_with_its_nodes() -> None:
    lines = [_ran(at, ("3", 0.0, 0.9), workflow=name) for at, name in enumerate(["small", "large", "small", "large"])]
    assert sorted(_bars(_summary(lines, "small", "large"))) == [
        ("large: KSampler", "91 %"),
        ("small: KSampler", "91 %"),
    ]


def test_what_lies_within_the_error_of_the_clock_is_all_of_the_execution() -> None:
    (row,) = _summary([_ran(index, ("3", 0.0, 1.0)) for index in range(4)]).nodes
    assert row.share == 1.0


def test_nodes_side_by_side_are_not_more_than_all() -> None:
    summary = _summary([_ran(index, ("9", 0.0, 0.9), ("10", 0.0, 0.9)) for index in range(4)])
    (saved,) = class_shares(summary)
    assert saved.share > 1.5 and _bars(summary) == [("SaveImage (2 nodes)", "up to 100 %")]


def test_the_checklist_says_what_it_counts() -> None:
    runs = [measure("runs/x", manifest(4, workflows=SAVES), _saving())]
    (_, short) = checklist_pages(Found(name="gpu", runs=runs, verdicts=[], warmup=0))
    slowest = next(fact.value.words for fact in short.facts if fact.label == "Slowest")
    assert slowest.startswith("2 SaveImage nodes take 50.4 % of each execution. A faster disk")
