"""Names that are similar to a missing one: a typing error, another folder, another ending."""

import difflib
import re
from collections.abc import Callable, Collection
from typing import Any

MODEL_SUFFIXES = (
    ".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf", ".onnx", ".engine", ".yaml",
)  # fmt: skip

MOST = 3
CLASS_LIKENESS, FILE_LIKENESS, OPTION_LIKENESS = 0.86, 0.82, 0.75
"""How similar two names must be, of 1; names of classes share many words although they mean different things."""

PREFIX = 5
"""Letters of a common beginning that make two options similar (`dpmpp_2m` and `dpmpp_2m_karras`)."""


def near_classes(name: str, known: Collection[Any]) -> list[str]:
    """Names of node classes that are written almost the same; capitals, spaces and signs do not count."""
    return _near(name, known, _letters, CLASS_LIKENESS)


def near_files(name: str, known: Collection[Any]) -> list[str]:
    """Files that are almost called so; folders, capitals and the suffix of models do not count. One in the same folder,
    written with the other slash, is the first.
    """
    same = [str(other) for other in known if _slashed(str(other)) == _slashed(name)]
    return [*same, *(other for other in _near(name, known, _stem, FILE_LIKENESS) if other not in same)][:MOST]


def near_options(name: str, known: Collection[Any]) -> list[str]:
    """Options of a list that are almost written so, or of which one is the beginning of the other."""
    letters, found = _letters(name), _near(name, known, _letters, OPTION_LIKENESS)
    for other in map(str, known):
        short, long = sorted((letters, _letters(other)), key=len)
        if len(short) >= PREFIX and long.startswith(short) and other not in found:
            found.append(other)
    return found[:MOST]


def _near(name: str, known: Collection[Any], plain: Callable[[str], str], likeness: float) -> list[str]:
    plains = {str(other): plain(str(other)) for other in known}
    wanted = plain(name)
    close = difflib.get_close_matches(wanted, list(dict.fromkeys(plains.values())), MOST, likeness)
    close += [like for like in dict.fromkeys(plains.values()) if like not in close and _one_slip(wanted, like)]
    return [other for like in close for other in plains if plains[other] == like][:MOST]


def _one_slip(one: str, other: str) -> bool:
    """Whether one letter is wrong, missing or too many, or two have changed places; in words of four letters or so."""
    if one == other or abs(len(one) - len(other)) > 1 or min(len(one), len(other)) < 4:
        return False
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rest, others = one[same:], other[same:]
    swapped = rest[:2] == others[:2][::-1] and rest[2:] == others[2:]
    return swapped or rest[1:] == others[1:] or rest[1:] == others or rest == others[1:]


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _stem(path: str) -> str:
    last = _slashed(path).rpartition("/")[2].lower()
    last = next((last.removesuffix(suffix) for suffix in MODEL_SUFFIXES if last.endswith(suffix)), last)
    return _letters(last) or last
