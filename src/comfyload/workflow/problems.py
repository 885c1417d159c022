"""What a server would do with a graph, and why: the answer that preflight gives, and its words."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct, field, structs

from comfyload.errors import WorkflowError
from comfyload.visible import visible

Kind = Literal[
    "unknown_class", "missing_model", "missing_image", "bad_option", "missing_input", "out_of_range", "wrong_type",
    "bad_slot", "link_type", "no_outputs", "dangling_link", "cycle", "undeclared_link",
]  # fmt: skip

Then = Literal["refuse", "drop", "fail", "kill"]
"""What follows from a problem: the whole prompt is refused; the outputs that it is of are dropped, and the prompt is
refused if none is left; it is accepted, and each job fails, or its worker dies.
"""

Verdict = Literal["accepted", "doubtful", "partly", "refused", "fails", "kills"]

_MEANS: dict[Verdict, str] = {
    "accepted": "would be accepted by the server",
    "doubtful": "may be refused by the server",
    "refused": "would be refused by the server",
    "fails": "would be accepted by the server, and every job would fail",
    "kills": "would be accepted by the server and kill its worker: nothing runs until it is restarted",
}
_WORST: tuple[Verdict, ...] = ("kills", "refused", "fails", "partly", "doubtful", "accepted")

SHOWN_NODES, SHOWN_LINES = 6, 60


class Problem(Struct, frozen=True, kw_only=True):
    """One thing that is wrong. `near` are existing names like the one that is missing, best first.

    `outputs`: the output nodes it is of; empty where it is the whole graph's. `sure` False: the class may have a check
    of its own, or the server may be too old to check, and then nothing follows. `where`: the row of a table it comes
    from; empty where all jobs have it.
    """

    kind: Kind
    node: str = ""
    title: str = ""
    class_type: str = ""
    input: str = ""
    value: Any = None
    near: list[str] = []
    message: str = field(default="", name="said")
    sure: bool = True
    then: Then = "drop"
    outputs: list[str] = []
    where: str = ""

    def text(self) -> str:
        """The problem in one line, whatever the graph or the server wrote into it."""
        return visible(_line([self]))


class PreflightAnswer(Struct, frozen=True, kw_only=True):
    """What the server would do. `outputs`: its output nodes, each with its class, in the order of the graph.

    `rows`: of a graph with a table, how many rows have which verdict; empty otherwise.
    """

    outputs: dict[str, str]
    problems: list[Problem]
    rows: dict[Verdict, int] = {}

    @property
    def dropped(self) -> list[str]:
        """Outputs that the server surely drops, or would if it took the rest."""
        found = {output for problem in self._sure("drop") for output in problem.outputs}
        return [output for output in self.outputs if output in found]

    @property
    def left(self) -> list[str]:
        """Outputs that are not dropped."""
        return [output for output in self.outputs if output not in self.dropped]

    @property
    def verdict(self) -> Verdict:
        """The word for it: the worst that is sure, else `doubtful` or `accepted`; of several rows the worst."""
        if self.rows:
            return next(word for word in _WORST if word in self.rows)
        dropped = self.dropped
        left = set(self.left)
        if self._sure("refuse") or (dropped and not left):
            return "refused"
        for then, word in (("kill", "kills"), ("fail", "fails")):
            if any(left & set(problem.outputs) for problem in self._sure(then)):
                return word  # type: ignore[return-value]
        return "partly" if dropped else "doubtful" if self.problems else "accepted"

    def reason(self, output: str) -> str:
        """Why an output is dropped, in one line."""
        return next(problem.text() for problem in self._sure("drop") if output in problem.outputs)

    def _sure(self, then: str) -> list[Problem]:
        return [problem for problem in self.problems if problem.sure and problem.then == then]


class PreflightFailed(WorkflowError):
    """The server would not run a graph, or not all of it. The message has a line for each problem of each workflow."""

    lines = True

    def __init__(self, found: Mapping[str, PreflightAnswer], *, droppable: bool = True) -> None:
        """`found`: answers by the workflow's name; those without a problem are passed over. `droppable`: whether
        outputs could be left out.
        """
        self.found = {name: answer for name, answer in found.items() if answer.problems}
        parts = [describe(answer, name) for name, answer in self.found.items()]
        verdicts = {answer.verdict for answer in self.found.values()}
        more = "Nothing was submitted."
        if "kills" not in verdicts:
            more += " To submit it all the same, give --no-preflight."
        can = droppable and all(answer.left for answer in self.found.values())
        if "partly" in verdicts and verdicts <= {"partly", "doubtful"} and can:
            more = "Nothing was submitted. To run the other outputs, give --drop-broken-outputs."
        super().__init__("\n".join([*parts, more]))


def describe(answer: PreflightAnswer, name: str = "the workflow") -> str:
    """What the server would do, then a line for each problem; nodes with the same problem share a line."""
    head = f"{visible(_verdict(answer, name))}, problems: {len(answer.problems)} ({_kinds(answer.problems)})"
    groups: dict[Any, list[Problem]] = {}
    for problem in answer.problems:
        groups.setdefault(_alike(problem), []).append(problem)
    shows_drops = answer.verdict in ("partly", "fails", "kills")
    lines = [visible(_line(alike, drops=shows_drops)) for alike in groups.values()]
    more = [f"and {len(lines) - SHOWN_LINES} more"] if len(lines) > SHOWN_LINES else []
    return "\n".join([head, *(f"  {line}" for line in [*lines[:SHOWN_LINES], *more])])


def merged(answers: Sequence[PreflightAnswer], places: Sequence[str] = ()) -> PreflightAnswer:
    """One answer for graphs that differ in their values alone: the problems of all, each once. `places`: the graphs'
    rows in the table, in as many words.
    """
    if len(answers) == 1:
        return answers[0]
    found: dict[Any, list[tuple[str, Problem]]] = {}
    for answer, place in zip(answers, places or [""] * len(answers), strict=True):
        for problem in answer.problems:
            key = problem.kind, problem.node, problem.input, problem.message
            found.setdefault(key, []).append((place, problem))
    problems = []
    for alike in found.values():
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        where = "" if len(alike) == len(answers) else f"{alike[0][0]}{more}"
        problems.append(structs.replace(alike[0][1], where=where))
    rows = Counter(answer.verdict for answer in answers)
    return PreflightAnswer(outputs=answers[0].outputs, problems=problems, rows=dict(rows))


def _verdict(answer: PreflightAnswer, name: str) -> str:
    rows = sum(answer.rows.values())
    if rows and answer.rows[answer.verdict] < rows:
        name = f"{name}, in {answer.rows[answer.verdict]} of {rows} rows of the table,"
    if answer.verdict != "partly":
        return f"{name} {_MEANS[answer.verdict]}"
    rest = _of(answer, answer.left) if answer.left else "the others, which are not the same in each row"
    return f"of {name} the server would drop {_of(answer, answer.dropped)} and run {rest}"


def _of(answer: PreflightAnswer, outputs: list[str]) -> str:
    shown = [f"{node} ({answer.outputs[node]})" for node in outputs[:SHOWN_NODES]]
    shown += [f"{len(outputs) - SHOWN_NODES} more"] if len(outputs) > SHOWN_NODES else []
    return f"{'output' if len(outputs) == 1 else 'outputs'} {', '.join(shown)}"


def _kinds(problems: list[Problem]) -> str:
    """How many of which kind; of classes, how many that are and in how many nodes."""
    counts = Counter(problem.kind for problem in problems)
    classes = len({problem.class_type for problem in problems if problem.kind == "unknown_class"})
    parts = []
    for kind, count in counts.items():
        several = kind == "unknown_class" and classes < count
        parts.append(f"{kind.replace('_', ' ')}: {f'{classes} in {count} nodes' if several else count}")
    return ", ".join(parts)


def _alike(problem: Problem) -> Any:
    """What problems share a line: the same words of nodes of the same class."""
    if problem.kind == "cycle":
        return problem.kind, problem.node
    return problem.kind, problem.class_type, problem.message, *problem.near, problem.sure, problem.then, problem.where


def _line(alike: list[Problem], *, drops: bool = False) -> str:
    """The one line of problems that are alike; with `drops` the outputs that are dropped for them too."""
    first = alike[0]
    if not first.node:
        return first.message
    nodes = list(dict.fromkeys(problem.node for problem in alike))
    names = [f"node {first.node}"]
    if len(nodes) == 1:
        names += [json.dumps(first.title, ensure_ascii=False)] if first.title not in ("", first.class_type) else []
    else:
        more = f" and {len(nodes) - SHOWN_NODES} more" if len(nodes) > SHOWN_NODES else ""
        names = [f"{len(nodes)} nodes, {', '.join(nodes[:SHOWN_NODES])}{more}"]
    names += [f"({first.class_type})"] if first.kind != "unknown_class" else []
    line = f"{' '.join(names)}: {first.message}"
    line += f"; nearest: {', '.join(first.near)}" if first.near else ""
    line += f" ({first.where})" if first.where else ""
    if not first.sure:
        doubt = "the server does not check this: it may fail" if first.then == "fail" else "but its class may allow it"
        return f"{line} ({doubt})"
    outputs = list(dict.fromkeys(output for problem in alike for output in problem.outputs))
    return f"{line} -> no output {', '.join(outputs)}" if drops and first.then == "drop" else line
