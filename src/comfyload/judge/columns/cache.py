"""Which files a job really made, and which the server took from its cache or returned before.

No numpy here: progress counts images while jobs run.

ComfyUI answers an unchanged graph from its cache in milliseconds, with the names of the files it wrote the first
time. Such a job is completed, but it made nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Literal

from msgspec import Struct

from comfyload.record.kinds import SHOWING, SHOWN, Kind, kind_of
from comfyload.record.model import Output, Record, WorkflowFacts

CacheClass = Literal["fresh", "partial", "cached"]
"""`cached`: all outputs from the cache; `partial`: some output or sampler was; `fresh`: neither."""


class JobFiles(Struct, frozen=True, kw_only=True):
    """What one job returned. Files are `type/subfolder/name`, each once however many nodes returned it.

    `kinds`: of all files but those that are the same in every job. `new`: made by this job; `made` counts these by kind
    and folder, and texts that lie in no file. `repeated`: not
    reported as cached, yet an earlier job of the run returned the same name; `overwritten` of these had their output
    node run, so a file was written, over the earlier one.
    """

    cache: CacheClass
    kinds: dict[str, Kind]
    new: Sequence[str]
    made: dict[tuple[Kind, str], int]
    repeated: Sequence[str] = ()
    overwritten: int = 0

    @property
    def images(self) -> int:
        """New images that were saved."""
        return self.made.get(("image", "output"), 0)

    @property
    def previews(self) -> int:
        """New images in any other folder."""
        return sum(count for (kind, folder), count in self.made.items() if kind == "image" and folder != "output")


class CacheJudge:
    """Judges jobs one after another, in the order of their completion, warm-up included.

    Names are kept as hashes: a million take some 100 MB, and two of them share their 64 bits with a chance of 3e-8.
    """

    def __init__(self, workflows: Iterable[WorkflowFacts]) -> None:
        self._facts = {facts.name: _Graph(facts) for facts in workflows}
        self._returned: set[int] = set()

    def judge(self, record: Record) -> JobFiles:
        """What the job made; remembers the names of its files."""
        run, graph = record.execution, self._facts.get(record.workflow, _UNKNOWN)
        cached = frozenset(run.cached)
        returned: dict[str, tuple[Output, bool]] = {}  # with the node that made it, or else one that shows it
        made: dict[tuple[Kind, str], int] = {}
        for output in run.outputs:
            if output.node in graph.constant:
                continue
            own = not cached or graph.made(output.node, cached)
            for file in output.files:
                if file not in returned or (own and not returned[file][1]):
                    returned[file] = output, own
            if own and output.kind == "text" and not any(o.files for o in run.outputs if o.node == output.node):
                made["text", SHOWN] = made.get(("text", SHOWN), 0) + output.count
        kinds = {file: kind_of(file, o.kind, animated=o.animated) for file, (o, _) in returned.items()}
        new, repeated = [], []
        for file, (output, own) in returned.items():
            name = hash(file)
            known = name in self._returned
            self._returned.add(name)
            if not own:
                continue
            if not known:
                new.append(file)
                at = kinds[file], file.partition("/")[0]
                made[at] = made.get(at, 0) + 1
            elif _written(file, output, kinds[file]):
                repeated.append(file)
        ran = {span.node for span in run.nodes if span.end is not None} if repeated else _NONE
        return JobFiles(
            cache=graph.cache_class(record, cached) if cached else "fresh",
            kinds=kinds,
            new=new,
            made=made,
            repeated=repeated,
            overwritten=sum(returned[file][0].node in ran for file in repeated),
        )

    def forget(self) -> None:
        """Give back the memory of the names, when no more jobs come."""
        self._returned = set()


class _Graph:
    """Which nodes of a workflow count for what."""

    def __init__(self, facts: WorkflowFacts | None) -> None:
        nodes = {} if facts is None else facts.nodes
        self.constant = frozenset(() if facts is None else facts.constant)
        self._samplers_of = {node: known.samplers for node, known in nodes.items()}
        self._samplers = {node for node, known in nodes.items() if known.sampler}
        self._outputs = {node for node, known in nodes.items() if known.output}

    def made(self, node: str, cached: Set[str]) -> bool:
        """Whether an output node's files are of this job: neither it nor a sampler before it came from the cache."""
        return node not in cached and cached.isdisjoint(self._samplers_of.get(node, ()))

    def cache_class(self, record: Record, cached: Set[str]) -> CacheClass:
        outputs = self._outputs or {output.node for output in record.execution.outputs} - self.constant
        if outputs and outputs <= cached:
            return "cached"
        return "fresh" if cached.isdisjoint(self._samplers | outputs) else "partial"


_UNKNOWN = _Graph(None)
_NONE: Set[str] = frozenset()


def _written(file: str, output: Output, kind: Kind) -> bool:
    """Whether a file that comes again should have been written anew: a node may show an input, or what another saved
    before, and a list of its own next to its pictures.
    """
    shown = output.kind in SHOWING or file.startswith("input/")
    return not shown and kind not in ("text", "other")
