"""What a checklist found: a table of its runs, then what they come to in a few sentences."""

from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import Struct

from comfyload.advise.saturation import gpu_words
from comfyload.judge.gates.gate import GateVerdict, overall
from comfyload.judge.gates.proof import needed
from comfyload.judge.gates.verdict import VERDICTS
from comfyload.judge.summary import Measured
from comfyload.report.blocks import class_shares
from comfyload.report.page import Look, Page, PageLine, Remark, Table, Value, table
from comfyload.report.steps import by_workflow, knee, rate_key
from comfyload.report.values import value_of
from comfyload.words import DASH, count, digits, duration, percent, scale, seconds_words, span_words

_SLOWER = 0.95
"""Of the best rate with fewer in flight: what is below it, and by its interval too, is called slower."""
_FILES = ("SaveImage", "PreviewImage")


class Found(Struct, frozen=True, kw_only=True):
    """What a checklist ends with. `next`: command lines to type now; `places`: label and path."""

    name: str
    runs: list[Measured]
    verdicts: list[GateVerdict]
    warmup: int
    places: list[tuple[str, str]] = []
    next: list[str] = []


def checklist_pages(found: Found) -> list[Page]:
    """The results; then what they mean in short, and where to go on."""
    runs = count(len(found.runs), "run")
    return [
        Page(title=found.name, subtitle=[runs, found.runs[0].manifest.server.url], tables=[results_table(found.runs)]),
        Page(
            title="In short",
            facts=_in_short(found),
            remarks=list(_remarks(found)),
            places=found.places,
            next=found.next,
        ),
    ]


def _in_short(found: Found) -> list[PageLine]:
    good = overall(found.verdicts) != "FAIL" and all(run.summary.valid for run in found.runs)
    answers = {
        "Good" if good else "Not good": _good(found),
        "Gates": _gates(found),
        "Enough?": _enough(found),
        "Busy": _busy(found.runs),
        "GPU": next(iter(gpu_words(max(found.runs, key=_in_flight))), ""),
        "Slowest": _slowest(found.runs),
    }
    looks: dict[str, Look] = {"Good": "good", "Not good": "bad"}
    return [PageLine(label, Value(words), look=looks.get(label, "plain")) for label, words in answers.items() if words]


# --- the table


def results_table(runs: Sequence[Measured]) -> Table:
    """A row for each run, by workflow and jobs in flight; the first of each workflow names it."""
    key = rate_key(runs)
    halves, longest = (_seconds(runs, key) for key in ("p50_latency_s", "max_latency_s"))
    rows = []
    for steps in by_workflow(runs):
        for place, run in enumerate(steps):
            name = "" if place else run.manifest.name
            rate = value_of(run.summary.statistics[key]).words
            latency = (halves[run.path], longest[run.path])
            rows.append((name, str(_in_flight(run)), rate, *latency, _note(steps, place, key)))
    unit = runs[0].summary.statistics[key].unit
    return table("results", ("", ">in flight", f">{unit}", ">half wait", ">slowest", ""), rows)


def _in_flight(run: Measured) -> int:
    return run.manifest.plan.concurrency or 0


def _seconds(runs: Sequence[Measured], key: str) -> dict[str, str]:
    """A latency of each run by its path, all in one unit."""
    values = {run.path: run.summary.summary[key] for run in runs}
    known = [value for value in values.values() if isinstance(value, float)]
    factor, unit = scale(known, below=1.0)

    def words(value: object) -> str:
        if not isinstance(value, float):
            return DASH
        return f"{digits(value * factor, 1 if unit == 'ms' else 2)} {unit}"

    return {path: words(value) for path, value in values.items()}


def _note(steps: Sequence[Measured], place: int, key: str) -> str:
    """Whether the server saturates here, or does less than with fewer in flight."""
    run = steps[place]
    if not run.summary.valid:
        return "not valid"
    rate = run.summary.statistics[key]
    best = max(steps[:place], key=lambda one: one.summary.statistics[key].value or 0.0, default=None)
    if best is not None and rate.value is not None:
        before = best.summary.statistics[key].value or 0.0
        if rate.value < _SLOWER * before and rate.high is not None and rate.high < before:
            return f"slower than at {_in_flight(best)}"
    return "knee" if run is knee(steps) else ""


# --- in short


def _good(found: Found) -> str:
    counts = [run.summary.summary for run in found.runs]
    jobs, completed = (sum(int(one[key] or 0) for one in counts) for key in ("total_jobs", "completed"))
    longest = [one["max_latency_s"] for one in counts if isinstance(one["max_latency_s"], float)]
    words = f"{completed} of {count(jobs, 'job')} completed"
    if longest:
        words += f", the slowest in {duration(max(longest))}"
    invalid = sum(not run.summary.valid for run in found.runs)
    if invalid:
        words += f"; {count(invalid, 'run is', 'runs are')} not valid"
    return f"{words}."


def _gates(found: Found) -> str:
    """Each gate with the worst verdict of all runs, in the words for people."""
    gates: dict[str, list[GateVerdict]] = {}
    for verdict in found.verdicts:
        gates.setdefault(verdict.gate, []).append(verdict)
    return " · ".join(f"{gate}: {VERDICTS[overall(given)].word}" for gate, given in gates.items())


def _enough(found: Found) -> str:
    """Whether the jobs are enough to prove the gates, and if not, how many are and how long they take."""
    unproven = [verdict for verdict in found.verdicts if verdict.verdict == "PASS*"]
    if not unproven:
        proven = bool(found.verdicts) and overall(found.verdicts) == "PASS"
        return "Yes: every gate is proven." if proven else ""
    gates = " and ".join(dict.fromkeys(verdict.gate for verdict in unproven))
    needs = max((verdict.needs for verdict in unproven if verdict.needs is not None), default=None)
    if needs is None:
        return f"Not to prove {gates}."
    words = f"Not to prove {gates}: that takes --jobs {needs}{_takes(found, needs)}"
    success = next((verdict for verdict in unproven if verdict.metric == "success_rate"), None)
    alone = None if success is None or success.limit is None else needed(0, 1 - success.limit)
    if alone is not None and alone < needs and success is not None and success.needs == needs:
        words += f", or --jobs {alone} --independent-failures if failures come one at a time"
    return f"{words}."


def _takes(found: Found, jobs: int) -> str:
    """How long all runs take with so many jobs each, by their wall clocks, in brackets; "" if that is not known."""
    seconds = 0.0
    for run in found.runs:
        wall = run.summary.summary["wall_clock_s"]
        if not isinstance(wall, float) or not run.jobs.n:
            return ""
        seconds += wall / run.jobs.n * (jobs + found.warmup)
    return f" (about {seconds_words(round(seconds) if seconds < 120 else 60 * round(seconds / 60))})"


def _busy(runs: Sequence[Measured]) -> str:
    """With how many in flight the server has no idle time left."""
    knees: dict[int, list[str]] = {}
    least, idle = 1.0, []
    for steps in by_workflow(runs):
        at = knee(steps)
        run = at or steps[-1]
        name, busy = run.manifest.name, run.summary.saturation.server_busy
        if busy is None:
            return ""
        if at is None:
            uses = f"leaves it {percent(1 - busy)} idle" if busy <= 1 else f"runs {busy:.1f} jobs at a time"
            idle.append(f"{name} {uses} at {_in_flight(run)} in flight")
        else:
            knees.setdefault(_in_flight(run), []).append(name)
            least = min(least, busy)
    parts = []
    if knees:
        where = " or ".join(
            str(at) if len(knees) == 1 and not idle else f"{at} ({', '.join(names)})"
            for at, names in sorted(knees.items())
        )
        at_least = "at least " if sum(map(len, knees.values())) > 1 else ""
        parts.append(f"At {where} in flight the server is {at_least}{percent(least)} busy: more only waits.")
    if idle:
        parts.append(f"{'; '.join(idle)}: more in flight may help.")
    return " ".join(parts)


def _slowest(runs: Sequence[Measured]) -> str:
    """The class of nodes that takes most of the execution in most of the runs, and the range of its share."""
    first = [known[0] for run in runs if (known := class_shares(run.summary))]
    if not first:
        return ""
    ((name, nodes), times) = Counter((row.name, row.nodes) for row in first).most_common(1)[0]
    shares = [min(row.share, 1.0) for row in first if (row.name, row.nodes) == (name, nodes)]
    share = span_words(percent(min(shares)), percent(max(shares)))
    where = "each execution" if times == len(runs) else f"an execution in {times} of {len(runs)} runs"
    tip = " A faster disk or a lower PNG compression shortens that." if name in _FILES else ""
    take = f"{name} takes" if nodes == 1 else f"{nodes} {name} nodes take"
    return f"{take} {share} of {where}.{tip}"


def _remarks(found: Found) -> Iterator[Remark]:
    """Gates that do not hold, and why runs are not valid."""
    for verdict in found.verdicts:
        text = f"{verdict.verdict}  {verdict.run}: {verdict.gate}. {verdict.why}"
        if verdict.verdict == "FAIL":
            yield Remark("invalid", text)
        elif verdict.verdict == "INCONCLUSIVE":
            yield Remark("warning", text)
    for run in found.runs:
        for finding in run.summary.findings:
            if finding.level == "invalid":
                where = f"{run.manifest.name}, {_in_flight(run)} in flight"
                yield Remark("invalid", f"{where}: {finding.text}", hint=finding.hint, code=finding.code)
