"""What completed jobs made, by kind and by node, and which made less than their like.

A server calls a job successful of which a filter let nothing through, or whose detector found nothing. That is no
failure, and no image either.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby
from typing import Any, Literal

from msgspec import Struct

from comfyload.judge.columns.cache import JobFiles, Place, Shape
from comfyload.judge.columns.ledger import Tagged
from comfyload.record.kinds import KINDS, Kind
from comfyload.record.model import Record

Choice = tuple[tuple[str, int], ...]
"""The values of a job that may decide how much it makes: switches, and whole numbers as small as a batch's size that
are no seeds."""

_MADE: Literal[1] = 1
_SAVED: Literal[2] = 2
"""Parts of a shape."""

_SMALL = 1024
_GROUPS, _SHAPES = 1000, 100
"""So many are kept apart; a workflow whose jobs are all different has no like among them."""
_USUAL = 0.75
"""Share of a node's jobs that make the same number, for fewer to be a shortage and no variety."""


class Shortage(Struct, frozen=True, kw_only=True):
    """Jobs of a workflow, `of` so many, that made fewer than their like. `node` None: all nodes together made none.
    `kind` None: their like made things of several kinds. `verb` "saved": they made some, and saved none. `usual` 0: no
    job made any, and each reported so.
    """

    workflow: str
    node: str | None
    kind: Kind | None
    verb: Literal["made", "saved"] = "made"
    made: int
    usual: int
    jobs: Tagged
    of: int


class Made:
    """Gathered job by job; only counted jobs that completed and took nothing from the cache are compared."""

    def __init__(self) -> None:
        self._new: Counter[tuple[Kind, str]] = Counter()
        self._groups: dict[str, dict[Choice, dict[Shape, Tagged]]] = {}

    def add(self, jobs: Iterable[tuple[Record, JobFiles]], alike: Mapping[JobFiles, int]) -> None:
        """Count what completed counted jobs made. `alike`: of how many of them each is the files."""
        for its, count in alike.items():
            for at, made in its.made.items():
                self._new[at] += made * count
        groups: dict[tuple[str, Choice, JobFiles], list[int]] = {}
        for record, its in jobs:
            group = record.workflow, _choice(record.values), its
            groups.setdefault(group, []).append(record.index)
        for (workflow, choice, its), indices in groups.items():
            named = None if its.shape is None else self._like(workflow, choice, its.shape)
            if named is not None:
                named.add(*indices)

    @property
    def previews_only(self) -> bool:
        """Whether images were made and no file at all was saved, and none was missed: previews are what it is about."""
        saved = any(count for (_, folder), count in self._new.items() if folder == "output")
        ever: Counter[Place] = Counter()
        for groups in self._groups.values():
            for place, count, _ in chain.from_iterable(chain.from_iterable(groups.values())):
                ever[place] += count
        return bool(self.by_kind().get("image")) and not saved and all(ever.values())

    def by_kind(self) -> dict[Kind, dict[str, int]]:
        """New files by kind and folder of the server, and texts shown."""
        made = sorted(self._new.items(), key=lambda pair: (KINDS.index(pair[0][0]), pair[0][1]))
        return {kind: {at[1]: count for at, count in those} for kind, those in groupby(made, lambda pair: pair[0][0])}

    def shortages(self) -> Iterator[Shortage]:
        """Every one, whole jobs first."""
        for workflow, groups in self._groups.items():
            of = sum(named.count for shapes in groups.values() for named in shapes.values())
            part = _SAVED if any(_total(shape, _SAVED) for shapes in groups.values() for shape in shapes) else _MADE
            yield from _without(workflow, groups, of, part)
            yield from _fewer(workflow, groups, of, part)

    def _like(self, workflow: str, choice: Choice, shape: Shape) -> Tagged | None:
        """Those that made the same by the same choice; None: they are too many to be kept apart."""
        groups = self._groups.setdefault(workflow, {})
        if choice not in groups and len(groups) >= _GROUPS:
            return None
        shapes = groups.setdefault(choice, {})
        if shape not in shapes and len(shapes) >= _SHAPES and _total(shape):
            return None
        return shapes.setdefault(shape, Tagged())


def _choice(values: dict[str, Any]) -> Choice:
    chosen: Choice = ()
    for key, value in values.items():
        switch = value is True or value is False
        if switch or (type(value) is int and -_SMALL <= value <= _SMALL and not key.endswith("seed")):
            chosen += ((key, value),)
    return chosen


def _total(shape: Shape, part: Literal[1, 2] = _MADE) -> int:
    return sum(at_node[part] for at_node in shape)


def _without(
    workflow: str, groups: dict[Choice, dict[Shape, Tagged]], of: int, part: Literal[1, 2]
) -> Iterator[Shortage]:
    """Jobs that made nothing at all, or where jobs save, that saved nothing. Those whose switches stand otherwise are
    not their like.
    """
    alike: dict[Choice, list[tuple[Shape, Tagged]]] = {}
    for choice, shapes in groups.items():
        switches = tuple(pair for pair in choice if isinstance(pair[1], bool))
        alike.setdefault(switches, []).extend(shapes.items())
    kinds: set[Kind] = set()
    short: list[tuple[Shape, Tagged]] = []
    for several in alike.values():
        made = [shape for shape, _ in several if _total(shape, part)]
        kinds |= {at_node[0][1] for shape in made for at_node in shape if at_node[part]}
        short += [(shape, named) for shape, named in several if made and not _total(shape, part)]
    usual = 1
    if not kinds:  # no job made any: is that reported?
        usual, short = 0, [pair for several in alike.values() for pair in several if pair[0]]
        kinds = {place[1] for shape, _ in short for place, _, _ in shape}
    if short:
        yield Shortage(
            workflow=workflow,
            node=None,
            kind=next(iter(kinds)) if len(kinds) == 1 else None,
            verb="saved" if any(_total(shape) for shape, _ in short) else "made",
            made=0,
            usual=usual,
            jobs=_together(named for _, named in short),
            of=of,
        )


def _fewer(
    workflow: str, groups: dict[Choice, dict[Shape, Tagged]], of: int, part: Literal[1, 2]
) -> Iterator[Shortage]:
    """Jobs that made something, but less at a node than is usual for it, and nowhere more."""
    found: dict[tuple[Place, int, int], list[Tagged]] = {}
    for shapes in groups.values():
        jobs = {shape: named for shape, named in shapes.items() if _total(shape, part)}
        places = dict.fromkeys(place for shape in jobs for place, _, _ in shape)
        counts = {place: _counts(place, jobs) for place in places}
        usual = {place: max(of_it, key=lambda made: of_it[made]) for place, of_it in counts.items()}
        for shape, named in jobs.items():
            made = {place: _at(place, shape) for place in places}
            if any(made[place] > usual[place] for place in places):
                continue  # what it lacks at one node it has at another
            for place in places:
                if made[place] < usual[place] and _is_rule(counts[place], usual[place], made[place]):
                    found.setdefault((place, made[place], usual[place]), []).append(named)
    for (place, made_there, usually), named_jobs in found.items():
        jobs_of = _together(named_jobs)
        node, kind = place
        yield Shortage(workflow=workflow, node=node, kind=kind, made=made_there, usual=usually, jobs=jobs_of, of=of)


def _at(place: Place, shape: Shape) -> int:
    return next((count for found, count, _ in shape if found == place), 0)


def _counts(place: Place, jobs: dict[Shape, Tagged]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for shape, named in jobs.items():
        counts[_at(place, shape)] += named.count
    return counts


def _is_rule(counts: Counter[int], usual: int, made: int) -> bool:
    return counts[usual] >= _USUAL * counts.total() and (made == 0 or max(counts) == usual)


def _together(several: Iterable[Tagged]) -> Tagged:
    """All of these jobs, the first few by their numbers."""
    listed = list(several)
    first = sorted(index for named in listed for index in named.first)[:5]
    return Tagged(count=sum(named.count for named in listed), first=first)
