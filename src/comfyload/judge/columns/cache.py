"""Which files a job really made, and which the server took from its cache or returned before.

No numpy here: progress counts images while jobs run.

ComfyUI answers an unchanged graph from its cache in milliseconds, with the names of the files it wrote the first
time. Such a job is completed, but it made nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Literal

from msgspec import Struct

from comfyload.record.kinds import SHOWING, SHOWN, Kind, kind_of, kind_under
from comfyload.record.model import Output, Record, WorkflowFacts

CacheClass = Literal["fresh", "partial", "cached"]
"""`cached`: all outputs from the cache; `partial`: some output or sampler was; `fresh`: neither."""
_DIFFERENT = 1000
"""So many jobs that returned something different are remembered, so that the next of their like is judged at once."""
Place = tuple[str, Kind]
"""A node, and what it makes."""
Shape = tuple[tuple[Place, int, int], ...]
"""How many of what a job made at each node that reported anything, nothing included, and how many of these it saved."""


class JobFiles(Struct, frozen=True, kw_only=True, eq=False):
    """What one job returned, or several that returned the same under other names. A file's number is its place among
    those of its job, each once however many nodes returned it, without those that are the same in every job.

    `kinds`: of the files. `new`: made by this job; `made` counts these by kind and folder of the server, and texts that
    lie in no file. `images`: new ones that were saved; `previews`: new ones in any other folder. `repeated`: files
    not reported as cached, of which an earlier job returned the name, each with its node. `shape` None:
    something came from the cache. `reported`: key, things and folders of their files, of each node.
    """

    cache: CacheClass
    kinds: Sequence[Kind]
    new: Sequence[int]
    made: dict[tuple[Kind, str], int]
    images: int
    previews: int
    repeated: dict[int, str]
    shape: Shape | None
    reported: Sequence[tuple[str, int, Sequence[str]]]


class CacheJudge:
    """Judges jobs one after another, in the order of their completion, warm-up included. `several`: each of several
    servers counts its files by itself, so that two of one name are two.

    Names are kept as hashes: a million take some 100 MB, and two of them share their 64 bits with a chance of 3e-8.
    `newest`: at least so many of them are remembered, and at most twice as many; None: all.
    """

    def __init__(self, workflows: Iterable[WorkflowFacts], *, newest: int | None = None, several: bool = False) -> None:
        self._several = several
        self._facts = {facts.name: _Graph(facts) for facts in workflows}
        self._returned: dict[int, None] = {}  # no set, as in `Ledger`
        self._older: dict[int, None] = {}
        self._newest = newest
        self._judged: dict[tuple[object, ...], JobFiles] = {}

    def judge(self, record: Record) -> JobFiles:
        """What the job made; remembers the names of its files."""
        if self._newest is not None and len(self._returned) >= self._newest:
            self._older, self._returned = self._returned, {}
        run, graph, returned = record.execution, self._facts.get(record.workflow, _UNKNOWN), self._returned
        older = self._older
        alike: list[object] = [record.workflow, *run.cached]
        known: dict[str, bool] = {}
        server = run.attempts[-1].server if self._several and run.attempts else ""
        for output in run.outputs:
            node, files = output.node, output.files
            alike += node, output.kind, output.count, output.animated, len(files)
            constant = node in graph.constant
            for name in files:
                folder, slash, rest = name.partition("/")
                if constant:
                    alike.append(folder)
                elif name in known:
                    alike.append(list(known).index(name))
                else:
                    code = hash((server, name)) if server else hash(name)
                    known[name] = before = code in returned or code in older
                    returned[code] = None
                    _, dot, ending = rest.rpartition(".")
                    alike += before, folder, slash, ending if dot else None
        everything = tuple(alike)
        found = self._judged.get(everything)
        if found is None:
            if len(self._judged) >= _DIFFERENT:
                self._judged.clear()
            found = self._judged[everything] = _judge(record, graph, known)
        return found

    def cache_class(self, record: Record) -> CacheClass:
        """What the server reported of its cache; nothing is remembered."""
        return self._facts.get(record.workflow, _UNKNOWN).cache_class(record, frozenset(record.execution.cached))

    def kinds(self, record: Record, files: JobFiles) -> dict[str, Kind]:
        """The kind of each file of the job, by name."""
        graph = self._facts.get(record.workflow, _UNKNOWN)
        names = [name for o in record.execution.outputs if o.node not in graph.constant for name in o.files]
        return dict(zip(dict.fromkeys(names), files.kinds, strict=True))

    def forget(self) -> None:
        """Give back the memory of the names, when no more jobs come."""
        self._returned, self._older = {}, {}


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


def _judge(record: Record, graph: _Graph, known: Mapping[str, bool]) -> JobFiles:
    """`known`: the job's files, and whether an earlier job had returned them."""
    run, cached = record.execution, frozenset(record.execution.cached)
    outputs = [output for output in run.outputs if output.node not in graph.constant]
    own = {output.node: graph.made(output.node, cached) for output in outputs}
    returned: dict[str, Output] = {}  # by the node that made it, or else one that shows it
    made: Counter[tuple[Kind, str]] = Counter()
    for output in outputs:
        for file in output.files:
            if file not in returned or (own[output.node] and not own[returned[file].node]):
                returned[file] = output
        if own[output.node] and output.kind == "text" and not any(o.files for o in outputs if o.node == output.node):
            made["text", SHOWN] += output.count
    kinds = {file: kind_of(file, returned[file].kind, animated=returned[file].animated) for file in known}
    ours = {file: kind for file, kind in kinds.items() if own[returned[file].node]}
    made.update((kind, file.partition("/")[0]) for file, kind in ours.items() if not known[file])
    images = {folder: count for (kind, folder), count in made.items() if kind == "image"}
    cache = graph.cache_class(record, cached) if cached else "fresh"
    whole = cache == "fresh" and cached.isdisjoint(output.node for output in run.outputs)
    return JobFiles(
        cache=cache,
        kinds=tuple(kinds.values()),
        new=[number for number, file in enumerate(known) if file in ours and not known[file]],
        made=made,
        images=images.get("output", 0),
        previews=sum(images.values()) - images.get("output", 0),
        repeated={
            number: returned[file].node
            for number, file in enumerate(known)
            if known[file] and file in ours and _written(file, returned[file], ours[file])
        },
        shape=_shape(outputs, kinds) if whole else None,
        reported=[(o.kind, o.count, [file.partition("/")[0] for file in o.files]) for o in run.outputs],
    )


def _written(file: str, output: Output, kind: Kind) -> bool:
    """Whether a file that comes again should have been written anew: a node may show an input, or what another saved
    before, and a list of its own next to its pictures.
    """
    shown = output.kind in SHOWING or file.startswith("input/")
    return not shown and kind not in ("text", "other")


def _shape(outputs: Iterable[Output], kinds: Mapping[str, Kind]) -> Shape:
    counts: dict[Place, list[int]] = {}
    for output in outputs:
        for file in output.files:
            at = counts.setdefault((output.node, kinds[file]), [0, 0])
            at[0] += 1
            at[1] += file.startswith("output/")
        kind = None if output.files else kind_under(output.kind)
        if kind is not None and (output.count == 0 or kind == "text"):
            at = counts.setdefault((output.node, kind), [0, 0])
            at[0] += min(output.count, 1)  # of several texts in a list, nobody knows how many
    return tuple([(place, made, saved) for place, (made, saved) in sorted(counts.items())])
