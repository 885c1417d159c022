"""Knows which images a job really made, and which the server took from its cache or returned before.

ComfyUI answers an unchanged graph from its cache in milliseconds, with the names of the files it wrote the first
time. Such a job is completed, but it made nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from itertools import compress
from typing import Literal

from msgspec import Struct

from comfyload.judge.seen import Seen
from comfyload.record.model import Record, WorkflowFacts

__all__ = ["IMAGE_SUFFIXES", "CacheClass", "JobImages", "Truth", "is_image"]

CacheClass = Literal["fresh", "partial", "cached"]
"""`cached`: all outputs from the cache; `partial`: some output or sampler was; `fresh`: neither."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


class JobImages(Struct, frozen=True, kw_only=True):
    """What one job returned. Files are `type/subfolder/name`, each once however many nodes returned it.

    `new`: made by this job. `repeated`: not reported as cached, yet an earlier job of the run returned the same name;
    `overwritten` of these had their output node seen running, so a file was written, over the earlier one.
    """

    cache: CacheClass
    images: Sequence[str]
    new: Sequence[str]
    repeated: Sequence[str] = ()
    overwritten: int = 0


class Truth:
    """Judges jobs one after another, in the order of their completion, warm-up included."""

    def __init__(self, workflows: Iterable[WorkflowFacts]) -> None:
        self._facts = {facts.name: _Graph(facts) for facts in workflows}
        self._mixed = {name for name, graph in self._facts.items() if graph.constant}
        self._returned = Seen()

    def plain(self, records: Sequence[Record]) -> list[bool]:
        """Which of successive jobs are like most: completed, with nothing from the cache, and one image, a new one.

        These are judged with that. The others are still to be, one by one; all, if they have a name twice among them.
        """
        mixed = self._mixed
        alike = [
            (run := record.execution).outcome == "completed"
            and len(run.outputs) == 1
            and len(files := run.outputs[0].files) == 1
            and files[0].endswith(IMAGE_SUFFIXES)
            and not run.cached
            and record.workflow not in mixed
            for record in records
        ]
        names = [record.execution.outputs[0].files[0] for record in compress(records, alike)]
        unlike = [record.execution for record, is_alike in zip(records, alike, strict=True) if not is_alike]
        others = [file for run in unlike for output in run.outputs for file in output.files]
        if len(set(names + others)) < len(names) + len(others):
            return [False] * len(records)
        known = self._returned.add_all(names)
        if any(known):
            again = iter(known)
            return [is_alike and not next(again) for is_alike in alike]
        return alike

    def judge(self, record: Record) -> JobImages:
        """What the job made; remembers the names of its files."""
        run, graph = record.execution, self._facts.get(record.workflow, _UNKNOWN)
        cached = set(run.cached) if run.cached else _NONE
        images: dict[str, str | None] = {}  # file: the node that made it, None if none did
        for output in run.outputs:
            node = output.node
            if node in graph.constant:
                continue
            maker = node if not cached or graph.made(node, cached) else None
            for file in output.files:
                if is_image(file) and (maker is not None or file not in images):
                    images[file] = maker
        new, repeated = self._split(images)
        ran = {span.node for span in run.nodes if span.end is not None} if repeated else _NONE
        return JobImages(
            cache=graph.cache_class(record, cached) if cached else "fresh",
            images=list(images),
            new=new,
            repeated=repeated,
            overwritten=sum(images[file] in ran for file in repeated) if repeated else 0,
        )

    def _split(self, images: dict[str, str | None]) -> tuple[list[str], list[str]]:
        """Files that the job made, new ones and those seen before; all of them are seen now."""
        new: list[str] = []
        repeated: list[str] = []
        for file, maker in images.items():
            known = self._returned.add(file)
            if maker is not None:
                (repeated if known else new).append(file)
        return new, repeated

    def forget(self) -> None:
        """Give back the memory of the names, when no more jobs come."""
        self._returned = Seen()


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


def is_image(file: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return file.endswith(IMAGE_SUFFIXES) or file.lower().endswith(IMAGE_SUFFIXES)
