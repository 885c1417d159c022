"""Knows which images a job really made, and which the server took from its cache or returned before.

ComfyUI answers an unchanged graph from its cache in milliseconds, with the names of the files it wrote the first
time. Such a job is completed, but it made nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

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
    images: list[str]
    new: list[str]
    repeated: list[str]
    overwritten: int


class Truth:
    """Judges jobs one after another, in the order of their completion, warm-up included."""

    def __init__(self, workflows: Iterable[WorkflowFacts]) -> None:
        self._facts = {facts.name: facts for facts in workflows}
        # Hashes, for memory: two of a million file names sharing 64 bits has a chance of 3e-8.
        self._returned: set[int] = set()

    def judge(self, record: Record) -> JobImages:
        """What the job made; remembers the names of its files."""
        cached, facts = set(record.execution.cached), self._facts.get(record.workflow)
        constant = set() if facts is None else set(facts.constant)
        images: dict[str, None] = {}
        claimed: dict[str, str] = {}  # file: the node that made it
        for output in record.execution.outputs:
            if output.node in constant:
                continue
            for file in filter(is_image, output.files):
                images[file] = None
                if self._made(facts, output.node, cached):
                    claimed[file] = output.node
        repeated = {file: None for file in claimed if hash(file) in self._returned}
        self._returned.update(map(hash, images))
        ran = {span.node for span in record.execution.nodes if span.end is not None} if repeated else set()
        return JobImages(
            cache=_cache_class(record, facts, cached),
            images=list(images),
            new=[file for file in claimed if file not in repeated],
            repeated=list(repeated),
            overwritten=sum(claimed[file] in ran for file in repeated),
        )

    @staticmethod
    def _made(facts: WorkflowFacts | None, node: str, cached: set[str]) -> bool:
        node_facts = None if facts is None else facts.nodes.get(node)
        samplers = [] if node_facts is None else node_facts.samplers
        return node not in cached and cached.isdisjoint(samplers)


def is_image(file: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return file.lower().endswith(IMAGE_SUFFIXES)


def _cache_class(record: Record, facts: WorkflowFacts | None, cached: set[str]) -> CacheClass:
    if not cached:
        return "fresh"
    samplers: set[str] = set()
    outputs: set[str] = set()
    if facts is not None:
        samplers = {node for node, known in facts.nodes.items() if known.sampler}
        outputs = {node for node, known in facts.nodes.items() if known.output}
    if not outputs:
        constant = set() if facts is None else set(facts.constant)
        outputs = {output.node for output in record.execution.outputs} - constant
    if outputs and outputs <= cached:
        return "cached"
    return "fresh" if cached.isdisjoint(samplers | outputs) else "partial"
