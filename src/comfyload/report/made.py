"""What a run made, in words: a row for each kind of file, and what its images a minute are of."""

from comfyload.judge.summary import Summary
from comfyload.record.kinds import KIND_WORDS, SHOWN, Kind
from comfyload.words import count, sentence_case


def made_rows(summary: Summary) -> list[tuple[str, str]]:
    """A kind, and how many new files of it there are; images also where nothing was made at all."""
    made = summary.made or {"image": {}}
    return [(sentence_case(KIND_WORDS[kind][1]), _words(summary, kind, folders)) for kind, folders in made.items()]


def rate_label(summary: Summary) -> str | None:
    """The name of the rate of images; None where a run makes no images but something else."""
    if summary.made and "image" not in summary.made:
        return None
    return "Previews/min" if summary.statistics["images_per_minute"].unit.startswith("previews") else "Images/min"


def _words(summary: Summary, kind: Kind, folders: dict[str, int]) -> str:
    """`69 new, 69 previews, 4.26 kB fetched`; `0 saved, 12 previews` where none was saved."""
    shown = folders.get(SHOWN, 0)
    saved, others = folders.get("output", 0), sum(folders.values()) - folders.get("output", 0) - shown
    parts = [f"{saved} {'saved' if others and not saved else 'new'}"] if saved or not shown else []
    parts += [count(others, "preview")] if others else []
    parts += [f"{shown} shown"] if shown else []
    size = None if summary.fetched is None else summary.fetched.kinds.get(kind)
    if size is not None:
        parts.append(f"{f'{size / 1e6:.3g} MB' if size >= 1e5 else f'{size / 1e3:.3g} kB'} fetched")
    return ", ".join(parts)
