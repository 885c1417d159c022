"""What to know about how a workflow's jobs differ, before they are sent."""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from comfyload.workflow.vary import Variation


class VariationRemark(Struct, frozen=True):
    """One thing to know; `advice` is empty where there is nothing to do."""

    level: Literal["info", "warning"]
    text: str
    advice: str = ""


def remarks(variation: Variation, jobs: int | None = None) -> Iterator[VariationRemark]:
    """`jobs`: how many are to be sent, warm-up included; None if that is not known."""
    if variation.as_is:
        yield VariationRemark(
            "warning",
            "the graph is sent unchanged: every job after the first is answered from the cache",
            "leave --as-is out, unless you measure the cache",
        )
        return
    if variation.pinned:
        yield _pinned(variation)
    if variation.salted:
        them = "them" if len(variation.salted) > 1 else "it"
        yield VariationRemark(
            "warning",
            f"no seed reaches {_nodes(variation.salted)}: an input that ComfyUI ignores makes {them} run in each job, "
            "with the same result",
            "give the graph a literal seed where its work is, if the results should differ",
        )
    if variation.reach.reloaded:
        yield VariationRemark(
            "warning",
            f"what varies reaches {_nodes(variation.reach.reloaded)}: a model is loaded or patched in each job",
            "measure so only if production does the same",
        )
    if variation.constant:
        text = f"nothing that varies reaches {_nodes(variation.constant)}: they work in the first job only"
        yield VariationRemark("info", text)
    if jobs is not None and variation.period < jobs and not variation.pinned:
        yield VariationRemark(
            "warning",
            f"only {variation.period} of {jobs} jobs differ: the others repeat them, "
            "and may be answered from the cache",
            "give the table more rows, widen a seed's bounds, or run fewer jobs",
        )
    if variation.kept_prefix:
        text = f"the filename_prefix of {_nodes(variation.kept_prefix)} is left alone"
        yield VariationRemark("info", f"{text}: only ComfyUI's own classes are known to take a folder in it")


def _pinned(variation: Variation) -> VariationRemark:
    names, several = ", ".join(variation.pinned), len(variation.pinned) > 1
    text = f"{names} {'are' if several else 'is'} the same in every job, as you set {'them' if several else 'it'}"
    if variation.reach.runs:
        text = f"{text}: what depends on nothing else comes from the cache"
        return VariationRemark("warning", text, "nothing to do if you meant that")
    text = f"{text}: every job after the first repeats it and is answered from the cache"
    advice = "leave it out, so that each job gets a seed of its own; give --as-is to measure the cache"
    return VariationRemark("warning", text, advice)


def _nodes(nodes: list[str], most: int = 6) -> str:
    shown = ", ".join(nodes[:most]) + (f" and {len(nodes) - most} more" if len(nodes) > most else "")
    return ("node " if len(nodes) == 1 else "nodes ") + shown
