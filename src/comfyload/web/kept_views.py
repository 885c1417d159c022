"""What the other process computes of several runs: baselines, comparisons, differences of environments, trends."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import structs

from comfyload.app.baseline import save_baseline
from comfyload.app.check import check, gate_set
from comfyload.app.compare import compare_found
from comfyload.app.locate import Result, Target, default_log, measured
from comfyload.app.report import environment_of, limits, notes_of, shown
from comfyload.errors import RunFilesError
from comfyload.judge.columns.ledger import clean
from comfyload.judge.comparison.comparable import differences
from comfyload.judge.comparison.history import TrendSeries, history
from comfyload.judge.numbers import NUMBERS
from comfyload.judge.observations import run_labels
from comfyload.judge.summary import jsonable
from comfyload.record import archive
from comfyload.record.archive import Damaged, Kept
from comfyload.record.by_hand import ByHand
from comfyload.record.model import Environment
from comfyload.record.run import RunReader
from comfyload.report.charts.trend import trend_chart
from comfyload.report.comparison import comparison_page
from comfyload.report.history import history_page
from comfyload.report.kept import by_hand_words, stated_words
from comfyload.report.overview import Shown, overview, run_page
from comfyload.report.page import Chart, Page, State, Table, table
from comfyload.report.page import as_json as page_json
from comfyload.report.sections import environment_rows
from comfyload.report.verdicts import gate_state, gate_tables
from comfyload.web.file_state import FileState, Side
from comfyload.web.run_views import chart_head, picture, read
from comfyload.web.worker import Answer, NotThere, as_json, refusal
from comfyload.words import count

_MOST_README = 1 << 16


# --- the archive


def archive_answer(base: str, _state: FileState) -> Answer:
    """Every baseline and what it holds, the newest first; folders made by hand and damaged ones too."""
    folder = Path(base)
    promoted, problem = None, ""
    try:
        best = archive.promoted(folder)
        promoted = None if best is None else best.folder
    except RunFilesError as error:
        problem = str(error)
    rows = [_kept_row(one, promoted) for one in archive.list_all(folder)]
    rows += [_row(one.path, "damaged", f"damaged: {one.problem}") for one in archive.list_damaged(folder)]
    rows += [_row(one.path, "by hand", by_hand_words(one)) for one in archive.list_by_hand(folder)]
    rows.sort(key=lambda row: str(row["name"]), reverse=True)
    return as_json({"folder": base, "promoted": promoted, "problem": problem, "baselines": rows})


def _kept_row(kept: Kept, promoted: str | None) -> dict[str, Any]:
    runs = kept.manifest.runs
    loads = ", ".join(dict.fromkeys(run.name for run in runs))
    more = {
        "saved_utc": kept.manifest.saved_utc,
        "promoted": kept.folder == promoted,
        "runs": [{"name": run.name, "load": run.load, "run_id": run.run_id} for run in runs],
        "notes": kept.manifest.notes,
    }
    return {**_row(kept.path, "kept", f"{count(len(runs), 'run')}: {clean(loads, 200)}"), **more}


def _row(path: Path, state: str, words: str) -> dict[str, Any]:
    return {
        "name": path.name, "state": state, "saved_utc": "", "promoted": False, "words": words, "runs": [], "notes": {}
    }  # fmt: skip


def baseline_answer(base: str, name: str, number: int | None, state: FileState) -> Answer:
    """The Page of a baseline, or of one of its runs."""
    found = _inside(base, name)
    if isinstance(found, ByHand):
        return _by_hand_answer(found)
    name = found.folder
    page, pictures, labels = _baseline(base, name, number, state)
    runs = [{"n": n, "label": label} for n, label in enumerate(labels)] if len(labels) > 1 else []
    heads = [chart_head(chart) for chart in pictures]
    view = {"name": name, "state": "kept", "page": page_json(page), "charts": heads, "runs": runs, "readme": ""}
    return as_json(view)


def baseline_chart_answer(base: str, name: str, number: int | None, chart: str, dark: bool, state: FileState) -> Answer:
    """A picture of a baseline, or of one of its runs."""
    return picture(_baseline(base, name, number, state)[1], chart, dark=dark)


def save_answer(base: str, name: str, runs: tuple[str, ...], notes: tuple[tuple[str, str], ...]) -> Answer:
    """Keep runs as a baseline; the Page has the verdicts on them."""
    try:
        archive.check_free(Path(base), name or None)
    except RunFilesError as error:
        return refusal(409, error.message, error.hint)
    found = target(base, tuple(("run", path) for path in runs))
    gates = gate_set([], None, [])
    kept, verdicts = save_baseline(Path(base), name or None, found, gates, default_log(None), dict(notes))
    page = Page(title=kept.folder, states=[gate_state(verdicts)], tables=gate_tables(verdicts))
    return as_json({"name": kept.folder, "page": page_json(page)}, 201)


def promote_answer(base: str, name: str) -> Answer:
    """Make it the one to compare with."""
    _inside(base, name)
    return as_json({"promoted": archive.promote(Path(base), name).folder})


def _by_hand_answer(folder: ByHand) -> Answer:
    text = ""
    if folder.readme is not None:
        with folder.readme.open(encoding="utf-8-sig", errors="replace") as file:
            text = file.read(_MOST_README)
    notes = [stated_words(file, summary) for file, summary in folder.stated.items()]
    page = Page(title=folder.path.name, subtitle=[by_hand_words(folder)], notes=notes)
    more: dict[str, Any] = {"charts": [], "runs": [], "readme": text}
    return as_json({"name": folder.path.name, "state": "by hand", "page": page_json(page), **more})


@lru_cache(maxsize=4)
def _baseline(base: str, name: str, number: int | None, _state: FileState) -> tuple[Page, list[Chart], list[str]]:
    """Page, pictures, and what its runs are called."""
    found = target(base, (("baseline", name),))
    labels = run_labels(found.runs)
    if number is not None:
        if number >= len(labels):
            raise NotThere(f"{name} has no run {number}", f"it has {count(len(labels), 'run')}")
        one = shown(found.results[number])
        return run_page(one, labels[number]), one.charts, labels
    gates = gate_set([], None, [])
    verdicts = check(found, gates).verdicts
    single = len(found.results) == 1
    runs = [shown(one, gates.gates) if single else Shown(measured=one.measured, charts=[]) for one in found.results]
    environment, notes = _environment(found)
    page = overview(name, runs, verdicts=verdicts, environment=environment, notes=notes, limits=limits(gates.gates))
    return page, runs[0].charts if single else page.charts, labels


def _inside(base: str, name: str) -> Kept | ByHand:
    """The baseline of that folder's name; a link that leads out of the archive is none.

    Raises:
        NotThere: there is none.
        RunFilesError: it is damaged.
    """
    folder = Path(base)
    if not base:
        raise NotThere("there is no archive of baselines", "name one with --archive")
    if name == archive.PROMOTED:
        best = archive.promoted(folder)
        if best is None:
            raise NotThere("no baseline is promoted yet", "promote one first")
        name = best.folder
    every: list[Kept | Damaged | ByHand] = [
        *archive.list_all(folder), *archive.list_damaged(folder), *archive.list_by_hand(folder)
    ]  # fmt: skip
    one = next((one for one in every if one.path.name == name), None)
    if one is None or one.path.resolve().parent != folder.resolve():
        raise NotThere(f"there is no baseline {clean(name, 100)!r}")
    if isinstance(one, Damaged):
        raise RunFilesError(f"{name} is damaged: {one.problem}")
    return one


# --- several runs


def target(base: str, side: Side) -> Target:
    """The runs of a side of a comparison."""
    results, names, kept = list[Result](), list[str](), None
    for kind, place in side:
        if kind == "run":
            results += read(Path(place))[0].results
            names.append(Path(place).name)
            continue
        found = _inside(base, place)
        if isinstance(found, ByHand):
            raise RunFilesError(f"{place} was made by hand: it has no records", "keep a run whole as a baseline")
        for run, reader in found.runs():
            if not (found.path / run.folder).resolve().is_relative_to(found.path.resolve()):
                raise RunFilesError(f"{run.folder} of {found.folder} is a link that leads out of it")
            results.append(Result(reader=reader, measured=measured(reader)))
        names.append(found.folder)
        kept = found
    return Target(name=", ".join(names), results=results, kept=kept if len(side) == 1 else None)


def compare_answer(
    base: str, a: Side, b: Side, paired: bool, margin: float, accept: tuple[str, ...], _state: FileState
) -> Answer:
    """B against A, or the keys in which they differ so that they cannot be compared."""
    ours, theirs = target(base, a), target(base, b)
    left = [one for one in differences(ours.runs, theirs.runs) if one.refuses and one.key not in accept]
    if left:
        keys = list(dict.fromkeys(one.key for one in left))
        named = [{"key": one.key, "a": one.a, "b": one.b, "why": one.why} for one in left]
        hint = f"to compare them all the same, accept {', '.join(keys)}"
        return refusal(409, "these runs are not comparable", hint, differences=named, accept=keys)
    names = ours.name, theirs.name
    found = compare_found(ours, theirs, names, paired=paired, margin=margin, accept=accept).comparison
    return as_json({"page": page_json(comparison_page(found, names)), "rows": jsonable(found.rows)})


def environment_answer(base: str, a: Side, b: Side, _state: FileState) -> Answer:
    """What is known of both servers and their machines, what differs first."""
    ours, theirs = target(base, a), target(base, b)
    mine, others = _facts(ours), _facts(theirs)
    rows: dict[str, list[list[str]]] = {"differs": [], "one": [], "same": []}
    for key in dict.fromkeys([*mine, *others]):
        one, other = mine.get(key, ""), others.get(key, "")
        kind = "same" if one == other else "differs" if one and other else "one"
        rows[kind].append([key, one or "unknown", other or "unknown"])
    titles = {"differs": "Differs", "one": "Known of one", "same": "The same"}
    tables = [_three(key, titles[key], found) for key, found in rows.items() if found]
    word = State("DIFFERENT", "doubt") if rows["differs"] else State("THE SAME", "good")
    sentence = f"{count(len(rows['differs']), 'fact')} of {len(mine.keys() | others.keys())} known differ."
    state = structs.replace(word, sentence=sentence if rows["differs"] else "No fact that is known of both differs.")
    page = Page(title="Environment", subtitle=[f"A: {ours.name}", f"B: {theirs.name}"], states=[state], tables=tables)
    return as_json({"differs": len(rows["differs"]), "page": page_json(page)})


def _three(key: str, title: str, rows: Sequence[Sequence[str]]) -> Table:
    cells = [[clean(text, 300) for text in row] for row in rows]
    return table(key, ("what", "A", "B"), cells, title=title, detail=key == "same")


def _facts(found: Target) -> dict[str, str]:
    """Known facts and notes in words."""
    environment, notes = _environment(found)
    facts: dict[str, str] = {}
    for key, fact in environment.items():
        if fact.value is not None:
            facts |= {name: words for name, words, _ in environment_rows({key: fact})}
    return facts | notes


def _environment(found: Target) -> tuple[Environment, dict[str, str]]:
    kept = None if found.kept is None else found.kept.manifest
    if kept is not None:
        return kept.environment, kept.notes
    return environment_of(found.results), notes_of(found.results)


# --- trends


def trend_answer(base: str, runs: Side, metrics: tuple[str, ...], state: FileState) -> Answer:
    """Every metric through the baselines, or through the runs, with its steps."""
    series, left_out = _trend(base, runs, metrics, state)
    heads = [chart_head(trend_chart(one, f"trend-{n}")) for n, one in enumerate(series)]
    page = history_page(series, "run" if runs else "baseline")
    found = {"page": page_json(page), "series": jsonable(series), "charts": heads, "left_out": left_out}
    return as_json(found)


def trend_chart_answer(
    base: str, runs: Side, metrics: tuple[str, ...], state: FileState, number: int, dark: bool
) -> Answer:
    """The picture of one series."""
    series, _ = _trend(base, runs, metrics, state)
    return picture([trend_chart(one, f"trend-{n}") for n, one in enumerate(series)], f"trend-{number}", dark=dark)


@lru_cache(maxsize=2)
def _trend(base: str, runs: Side, metrics: tuple[str, ...], _state: FileState) -> tuple[list[TrendSeries], list[str]]:
    """The series, and why runs are left out: one that is damaged must not hide the others."""
    unknown = [metric for metric in metrics if metric not in NUMBERS]
    if unknown:
        raise RunFilesError(f"there is no number {clean(unknown[0], 60)!r}")
    left_out: list[str] = []
    if runs:
        entries = []
        for _, place in runs:
            try:
                reader = RunReader(Path(place))
                entries.append((Path(place).name, reader.manifest.started_utc, measured(reader)))
            except RunFilesError as error:
                left_out.append(clean(str(error), 300))
    else:
        every = archive.list_all(Path(base)) if base else []
        kept = [one for one in every if one.path.resolve().parent == Path(base).resolve()]
        found = [(one.path.name, reader) for one in kept for _, reader in one.runs()]
        entries = [(name, reader.manifest.started_utc, measured(reader)) for name, reader in found]
    return (history(entries, metrics) if metrics else history(entries)), left_out
