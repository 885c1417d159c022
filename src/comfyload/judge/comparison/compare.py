"""Whether two sides differ by more than chance and by more than is of interest, load by load."""

from collections.abc import Collection, Sequence
from typing import Literal

from msgspec import Struct

from comfyload.errors import UsageError
from comfyload.judge.columns.ledger import join
from comfyload.judge.comparison.comparable import Difference, check_keys, differences, label, refuse, workflow_hashes
from comfyload.judge.comparison.effects import CompareVerdict
from comfyload.judge.comparison.failures import failure_rows
from comfyload.judge.comparison.overall import overall_of
from comfyload.judge.comparison.ratios import Group, Ratio, metric_drafts, node_drafts
from comfyload.judge.comparison.rows import metric_rows, rows_of
from comfyload.judge.statistics.significance import BETWEEN_RUNS_SD
from comfyload.judge.summary import Measured

__all__ = ["CompareVerdict", "Comparison", "Ratio", "compare"]


class Comparison(Struct, frozen=True, kw_only=True):
    """B against A. `design`: what stands for chance: interleaved pairs, several runs a side, or an assumption.

    `rows` are in reading order. `overall`: the geometric mean of the headline medians' ratios over loads and
    workflows, or of the means' if only these are proven to have changed; None if a median is unknown on either side.
    `why`: what to know about its verdict, in sentences, or "". `caveats` are sentences.
    """

    design: Literal["paired", "runs", "single"]
    runs_a: list[str]
    runs_b: list[str]
    differences: list[Difference]
    rows: list[Ratio]
    overall: Ratio | None
    why: str
    caveats: list[str]


def compare(
    a: Sequence[Measured],
    b: Sequence[Measured],
    *,
    paired: bool = False,
    margin: float = 0.05,
    accept: Collection[str] = (),
    repeatability: float | None = None,
) -> Comparison:
    """Compare the runs of two sides; those of the same workflows and load with each other.

    `paired`: a[i] and b[i] were run alternately. `accept`: keys of differences that shall not refuse.
    `repeatability`: standard deviation of the logarithm of run medians between runs of the same thing on this server,
    where it has been measured; the margin is at least twice that.

    Raises:
        UsageError: the sides are not comparable, have no load in common, or do not pair up.
    """
    check_keys(accept)
    groups, alone = _groups(a, b, paired, accept)
    found = _differences(groups)
    refuse(found, accept)
    between_sd = BETWEEN_RUNS_SD if repeatability is None else repeatability
    margin = max(margin, 2 * (repeatability or 0.0))
    metrics = [draft for group in groups for draft in metric_drafts(group, between_sd, margin)]
    nodes = [draft for group in groups for draft in node_drafts(group, between_sd)]
    rows = [*metric_rows(metrics, margin), *failure_rows(groups, margin), *rows_of(nodes, margin)]
    overall, why = overall_of(metrics, rows, margin)
    places = {group.load: place for place, group in enumerate(groups)}
    return Comparison(
        design="single" if any(group.single for group in groups) else "paired" if paired else "runs",
        runs_a=[run.manifest.run_id for run in a],
        runs_b=[run.manifest.run_id for run in b],
        differences=found,
        rows=sorted(rows, key=lambda row: places[row.load]),
        overall=overall,
        why=why,
        caveats=_caveats(groups, alone, found, repeatability, accept),
    )


def _groups(
    a: Sequence[Measured], b: Sequence[Measured], paired: bool, accept: Collection[str]
) -> tuple[list[Group], list[str]]:
    """Runs of the same workflows and load, and in words what only one side has.

    If each side has only one kind, these are set against each other: `differences` says if that may be.
    """
    if not a or not b:
        raise UsageError("there is nothing to compare: one side has no run", "name a run of each side")
    if paired and len(a) != len(b):
        raise UsageError(f"{len(a)} runs do not pair up with {len(b)}", "give both sides in the order of their pairs")
    ours, theirs = _by_kind(a, accept), _by_kind(b, accept)
    if len(ours) == len(theirs) == 1:
        return [Group(a=list(a), b=list(b), paired=paired)], []
    alone = [*_alone("A", ours, theirs), *_alone("B", theirs, ours)]
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise UsageError(f"the sides have no load in common: {', '.join(alone)}", "compare runs of the same plan")
    if paired and any(len(ours[key]) != len(theirs[key]) for key in shared):
        raise UsageError("the runs of a load do not pair up", "give both sides in the order of their pairs")
    labels = [label(ours[key][0].manifest) for key in shared]
    # A load in words, and its whole key where workflows of one name have different hashes; of a single load nothing.
    loads = [words if labels.count(words) == 1 else key for words, key in zip(labels, shared, strict=True)]
    named = zip(shared, loads if len(loads) > 1 else [""], strict=True)
    return [Group(a=ours[key], b=theirs[key], paired=paired, load=load) for key, load in named], alone


def _alone(side: str, mine: dict[str, list[Measured]], others: dict[str, list[Measured]]) -> list[str]:
    labels = [label(runs[0].manifest) for key, runs in mine.items() if key not in others]
    return [f"only in {side}: {'; '.join(labels)}"] if labels else []


def _by_kind(runs: Sequence[Measured], accept: Collection[str]) -> dict[str, list[Measured]]:
    kinds: dict[str, list[Measured]] = {}
    for run in runs:
        hashes = "" if "workflow" in accept else workflow_hashes(run.manifest)
        kinds.setdefault(f"{label(run.manifest)} ({hashes})", []).append(run)
    return kinds


def _differences(groups: Sequence[Group]) -> list[Difference]:
    """Of all groups; one that is the same in several stands once."""
    found = [difference for group in groups for difference in differences(group.a, group.b)]
    unique = [difference for place, difference in enumerate(found) if difference not in found[:place]]
    return sorted(unique, key=lambda difference: not difference.refuses)


def _caveats(
    groups: Sequence[Group],
    alone: Sequence[str],
    found: Sequence[Difference],
    repeatability: float | None,
    accept: Collection[str],
) -> list[str]:
    sentences = []
    single = [group.load for group in groups if group.single]
    if single:
        which = "" if len(single) == len(groups) else f" of {'; '.join(single)}"
        by = f"an assumed deviation of {100 * BETWEEN_RUNS_SD:g} % between runs"
        if repeatability is not None:
            by = f"the {100 * repeatability:.2g} % found between runs of the same thing"
        how = f"Intervals are wider by {by}. Interleaved pairs would measure it."
        sentences.append(f"Single run each{which}: between-run noise unknown. {how}")
    sentences += [f"Not compared, {words}." for words in alone]
    accepted = [difference.key for difference in found if difference.refuses and difference.key in accept]
    if accepted:
        sentences.append(f"Compared although these differ, as requested: {', '.join(dict.fromkeys(accepted))}.")
    if all(difference.key != "gpu" for difference in found) and not any(
        run.manifest.server.devices for group in groups for run in group.a
    ):
        sentences.append("The server does not report its GPU: both sides are assumed to have the same.")
    sentences += [words for group in groups for words in _incomplete(group)]
    return list(dict.fromkeys(sentences))


def _incomplete(group: Group) -> list[str]:
    """Jobs whose durations are in no number, or are those of a cache; nodes that only one side ran."""
    sentences, where = [], f" ({group.load})" if group.load else ""
    sides = (("A", group.a), ("B", group.b))
    for name, runs in sides:
        bad = sum(int((~run.jobs.completed & ~run.jobs.counted.censored).sum()) for run in runs)
        cached = sum(int((run.jobs.cache[run.jobs.completed] > 0).sum()) for run in runs)
        if bad:
            sentences.append(f"Durations are of completed jobs alone: {bad} of {name}{where} did not complete.")
        if cached:
            sentences.append(f"{cached} completed jobs of {name}{where} came partly or wholly from the server's cache.")
    ran = [
        {f"{row.node} {row.class_type or ''}".strip() for run in runs for row in run.summary.nodes} for _, runs in sides
    ]
    for name, mine, others in (("A", ran[0], ran[1]), ("B", ran[1], ran[0])):
        if mine - others:
            sentences.append(f"Nodes that ran only in {name}{where}: {join(sorted(mine - others))}.")
    return sentences
