"""Verdicts for a CI system: as JUnit's XML, a suite for each run and a case for each gate."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from msgspec import Struct

from comfyload.judge.comparison.compare import Comparison
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.numbers import number_of
from comfyload.judge.summary import Measured
from comfyload.record.model import Manifest
from comfyload.report.plan_text import load_words
from comfyload.report.values import value_of
from comfyload.report.verdicts import by_run, value_words

_ESTIMATES = {
    "success_rate": "success_rate",
    "median_latency": "p50_latency_s",
    "p95_latency": "p95_latency_s",
    "mean_latency": "avg_latency_s",
    "images_per_minute": "images_per_minute",
    "jobs_per_minute": "jobs_per_minute",
}
"""Names of properties, and the keys of the summary."""

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Suite(Struct, frozen=True, kw_only=True):
    """What a suite is of. `times`: its attributes `timestamp`, UTC, and `time` in seconds if that is known."""

    times: dict[str, str]
    properties: Sequence[tuple[str, str]]


def suite_of(measured: Measured) -> Suite:
    """How long the run lasted, what it was made with and on, and its estimates."""
    made = _made_by(measured.manifest)
    return Suite(times=_times([measured]), properties=[*made, ("run_directory", measured.path), *_estimates(measured)])


def suite_of_comparison(found: Comparison, a: Sequence[Measured], b: Sequence[Measured]) -> Suite:
    """The time that the runs of both sides took together; properties are those of B's first run, B being judged."""
    own = [("design", found.design), ("runs_a", ", ".join(found.runs_a)), ("runs_b", ", ".join(found.runs_b))]
    differs = [(f"differs.{one.key}", f"{one.a} | {one.b}") for one in found.differences]
    return Suite(times=_times([*a, *b]), properties=[*own, *_made_by(b[0].manifest), *differs])


def _times(runs: Sequence[Measured]) -> dict[str, str]:
    """When the first run began, and how long all of them took by the wall clock, if each has ended."""
    began = [datetime.fromisoformat(run.manifest.started_utc) for run in runs]
    ended = [datetime.fromisoformat(run.manifest.ended_utc) for run in runs if run.manifest.ended_utc is not None]
    first = f"{min(began).astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
    if len(ended) < len(began):
        return {"timestamp": first}
    seconds = sum((end - begin).total_seconds() for begin, end in zip(began, ended, strict=True))
    return {"time": _time(seconds), "timestamp": first}


def junit(verdicts: Sequence[GateVerdict], suites: Mapping[str, Suite] | None = None, *, strict: bool = False) -> str:
    """The document. FAIL is a failure, INCONCLUSIVE is skipped; with `strict` INCONCLUSIVE and PASS* are failures.

    `suites`: by the runs' names in `verdicts`. The time of a case is the duration that it judges, 0 where it judges
    none; that of a suite is how long its runs lasted. The whole has no time: runs of B may be in two suites.
    """
    failing = {"FAIL", "INCONCLUSIVE", "PASS*"} if strict else {"FAIL"}
    root = ET.Element("testsuites", {"name": "comfyload", **_tally(verdicts, failing)})
    for run, given in by_run(verdicts).items():
        skipped = str(sum(_skips(verdict, failing) for verdict in given))
        known = None if suites is None else suites.get(run)
        attributes = {"name": _text(run), **_tally(given, failing), "skipped": skipped}
        suite = ET.SubElement(root, "testsuite", attributes if known is None else attributes | known.times)
        if known is not None:
            properties = ET.SubElement(suite, "properties")
            for name, value in known.properties:
                ET.SubElement(properties, "property", name=_text(name), value=_text(value))
        for verdict in given:
            _case(suite, verdict, failing)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _case(suite: ET.Element, verdict: GateVerdict, failing: set[str]) -> None:
    """`message` is what a reporter shows next to the name; the element's text has the numbers too."""
    names = {"classname": _text(verdict.run), "name": _text(verdict.gate)}
    case = ET.SubElement(suite, "testcase", names, time=_time(_judged_s(verdict)))
    detail = _text(f"{verdict.verdict}: {value_words(verdict)}, n {verdict.n}. {verdict.why}")
    message = _text(f"{verdict.verdict}: {verdict.why}")
    if verdict.verdict in failing:
        ET.SubElement(case, "failure", type=verdict.verdict, message=message).text = detail
    elif _skips(verdict, failing):
        ET.SubElement(case, "skipped", message=message).text = detail
    else:
        ET.SubElement(case, "system-out").text = detail


def _skips(verdict: GateVerdict, failing: set[str]) -> bool:
    return verdict.verdict == "INCONCLUSIVE" and verdict.verdict not in failing


def _tally(verdicts: Sequence[GateVerdict], failing: set[str]) -> dict[str, str]:
    failures = sum(verdict.verdict in failing for verdict in verdicts)
    return {"tests": str(len(verdicts)), "failures": str(failures), "errors": "0"}


def _judged_s(verdict: GateVerdict) -> float:
    """The duration that a gate is about, in seconds; 0: it is about something else, or none is known."""
    number, value = number_of(verdict.metric), verdict.value
    of_time = number is not None and number.measure == "s"
    return value if of_time and value is not None and math.isfinite(value) else 0.0


def _time(seconds: float) -> str:
    """Seconds as Surefire writes them: no exponent, three places."""
    return f"{max(seconds, 0.0):.3f}"


def _made_by(manifest: Manifest) -> Iterator[tuple[str, str]]:
    fleet = manifest.fleet
    devices = [device for server in fleet for device in server.devices]
    gpus = [re.sub(r"^\w+:\d+ | : \w+$", "", str(device.get("name", ""))) for device in devices]
    yield "comfyload", manifest.tool
    yield "server", ", ".join(server.url for server in fleet)
    yield "comfyui", ", ".join(dict.fromkeys(server.comfyui_version or "unknown" for server in fleet))
    yield "gpu", ", ".join(gpus) or "unknown"
    yield "workflow", ", ".join(f"{facts.name} ({facts.sha256[:12]})" for facts in manifest.workflows)
    yield "load", load_words(manifest.plan.load, manifest.plan.duration_s)


def _estimates(measured: Measured) -> Iterator[tuple[str, str]]:
    """The value, its interval, n; or why it is withheld."""
    for name, key in _ESTIMATES.items():
        statistic = measured.summary.statistics[key]
        value = value_of(statistic)
        made = " (previews)" if statistic.unit.startswith("previews") and statistic.value is not None else ""
        around = [f"95 %: {value.interval}" if value.interval else "", f"n = {statistic.n}" if statistic.n else ""]
        known = ", ".join(part for part in around if part)
        yield name, f"{value.words}{made} {f'({known})' if known else value.note or statistic.reason}"


def _text(text: str) -> str:
    """Without the characters that XML cannot hold; the library escapes the rest."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
