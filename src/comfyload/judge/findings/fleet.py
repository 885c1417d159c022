"""Whether the servers of a run over several are alike: in what they are, and in what they take for the same work."""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations

import numpy as np
from msgspec import Struct

from comfyload.judge.arrays import Floats
from comfyload.judge.columns.jobs import executions_of
from comfyload.judge.estimates import Evidence
from comfyload.judge.findings.table import Finding, finding
from comfyload.judge.statistics.dependence import autocorrelation_time, lag_one
from comfyload.judge.statistics.stats import CONFIDENCE, quantile_interval, quantile_time
from comfyload.record.model import Server
from comfyload.words import digits

MARGIN = 0.05
"""Servers that differ by less than this share are alike."""

FEW = 20
"""Of fewer executions nobody knows how they depend on each other: all of the one server's must be above all of the
other's."""


def _time(seconds: Floats) -> float:
    """How many consecutive executions carry the information of one.

    The correlation that few values show of each other is too small; it is corrected for that where there surely is one
    (Kendall 1954), as if each value depended on the one before it alone.
    """
    n, x = len(seconds), np.log(seconds)
    found, rho = autocorrelation_time(x), lag_one(x)
    if rho > 2.33 / math.sqrt(n):
        rho = min(rho + (1 + 3 * rho) / n, 0.99)
        found = max(found, (1 + rho) / (1 - rho))
    return min(max(found, quantile_time(seconds, 0.5)), float(n))


def fleet_findings(evidence: Evidence) -> Iterator[Finding]:
    """Whether the servers of a run are alike, in what they are and in what they take for a job."""
    fleet = evidence.manifest.fleet
    if len(fleet) < 2:
        return
    for one in apart(_times(evidence)):
        of = f" of {one.workflow}" if len(evidence.fold.workflows) > 1 else ""
        yield finding(
            "servers_differ",
            f"{one.slower} takes {digits(one.ratio)} times as long as {one.faster} for a job{of} ({digits(one.low)} to "
            f"{digits(one.high)}; median execution {digits(one.medians_s[0])} s of {one.n[0]} jobs against "
            f"{digits(one.medians_s[1])} s of {one.n[1]}). Numbers of all servers together are a mixture of both.",
            {
                "workflow": one.workflow,
                "slower": one.slower,
                "faster": one.faster,
                "ratio": one.ratio,
                "low": one.low,
                "high": one.high,
            },
        )
    unlike = [text for server in fleet[1:] for text in _unlike(fleet[0], server)]
    if unlike:
        yield finding("servers_unlike", f"The servers are not the same: {'; '.join(unlike)}.", {"differences": unlike})


class Apart(Struct, frozen=True, kw_only=True):
    """Two servers of which one surely takes longer for a job of the workflow: `ratio` times as long, from `low` to
    `high`, by the medians of `n` executions each.
    """

    workflow: str
    slower: str
    faster: str
    ratio: float
    low: float
    high: float
    medians_s: tuple[float, float]
    n: tuple[int, int]


def apart(times: Mapping[str, Mapping[str, Floats]]) -> list[Apart]:
    """Which servers surely differ, of each workflow the two that do most. `times`: by workflow and server, executions
    in the order in which they ran.

    The interval of a median is that of order statistics, so that no shape of the times is assumed; that of the ratio is
    made of two of them (Zou & Donner 2008). All pairs are looked at, so that each gets a part of the 5 % (Bonferroni).
    Where a sample bounds no median, none is found.
    """
    pairs = [(name, one, other) for name, of in times.items() for one, other in combinations(of, 2)]
    if not pairs:
        return []
    confidence = 1 - (1 - CONFIDENCE) / len(pairs)
    found: dict[str, Apart] = {}
    for name, one, other in pairs:
        new = _apart(name, {one: times[name][one], other: times[name][other]}, confidence)
        if new is not None and (name not in found or new.ratio > found[name].ratio):
            found[name] = new
    return list(found.values())


def _apart(workflow: str, times: Mapping[str, Floats], confidence: float) -> Apart | None:
    medians = {name: _log_median(seconds, confidence) for name, seconds in times.items()}
    (faster, a), (slower, b) = sorted(medians.items(), key=lambda pair: -math.inf if pair[1] is None else pair[1][0])
    if a is None or b is None:
        return None
    few = min(map(len, times.values())) < FEW
    if few and float(np.max(times[faster])) >= float(np.min(times[slower])):
        return None
    middle = b[0] - a[0]
    low, high = middle - math.hypot(b[0] - b[1], a[2] - a[0]), middle + math.hypot(b[2] - b[0], a[0] - a[1])
    if low <= 0 or middle < math.log1p(MARGIN):
        return None
    return Apart(
        workflow=workflow,
        slower=slower,
        faster=faster,
        ratio=math.exp(middle),
        low=math.exp(low),
        high=math.exp(high),
        medians_s=(math.exp(b[0]), math.exp(a[0])),
        n=(len(times[slower]), len(times[faster])),
    )


def _log_median(seconds: Floats, confidence: float) -> tuple[float, float, float] | None:
    """The logarithms of the median and its bounds; None where so few values do not bound it."""
    if not len(seconds) or float(np.min(seconds)) <= 0:
        return None
    low, high = quantile_interval(seconds, 0.5, confidence, _time(seconds))
    if low is None or high is None:
        return None
    return math.log(float(np.median(seconds))), math.log(low), math.log(high)


def _times(evidence: Evidence) -> dict[str, dict[str, Floats]]:
    """Executions by workflow and server, of jobs after one of the same workflow: no model was loaded for these."""
    ran, fleet = executions_of(evidence.jobs), evidence.manifest.fleet
    warm = ran.same & ~ran.first
    return {
        name: {server.name: ran.seconds[warm & (ran.workflow == code) & (ran.server == place)]
               for place, server in enumerate(fleet)}
        for name, code in evidence.fold.workflows.items()
    }  # fmt: skip


def _unlike(first: Server, other: Server) -> Iterator[str]:
    """What the two report differently; what one does not report is no difference."""
    for what, of in _FACTS.items():
        a, b = of(first), of(other)
        if a and b and a != b:
            yield f"{what} {b} on {other.name}, {a} on {first.name}"


_FACTS: dict[str, Callable[[Server], str | None]] = {
    "ComfyUI": lambda server: server.comfyui_version,
    "flags": lambda server: None if server.argv is None else " ".join(_without_place(server.argv[1:])) or "none",
    "GPU": lambda server: ", ".join(str(device.get("name", "")) for device in server.devices),
    "PyTorch": lambda server: str(server.system.get("pytorch_version") or ""),
    "Python": lambda server: str(server.system.get("python_version") or ""),
}
"""What makes a server fast or slow, as it reports it, each in words."""

_OF_THE_PLACE = ("--port", "--listen", "--cuda-device", "--output-directory", "--input-directory", "--temp-directory",
                 "--user-directory", "--base-directory", "--database-url")  # fmt: skip
"""Flags that say where a server is and where it writes: they differ wherever there are two."""


def _without_place(argv: list[str]) -> list[str]:
    kept: list[str] = []
    dropping = False
    for part in argv:
        dropping = part.partition("=")[0] in _OF_THE_PLACE or (dropping and not part.startswith("-"))
        kept += [] if dropping else [part]
    return kept
