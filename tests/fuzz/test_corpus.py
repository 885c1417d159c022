"""Inputs that once made trouble make none any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.round import CORPUS, corpus, trouble
from tests.fuzz.targets import TARGETS

INPUTS = [(name, file) for name, target in TARGETS.items() for file in corpus(target)]


@pytest.mark.parametrize(("name", "file"), INPUTS, ids=[f"{name}/{file.name}" for name, file in INPUTS])
def test_an_input_that_made_trouble_makes_none(name: str, file: Path) -> None:
    found = trouble(TARGETS[name], file.read_bytes())
    assert found is None or found.kind == "slow", found.text  # how long it takes is measured alone, by `make fuzz`


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "pages"])  # whose charts take seconds
def test_a_target_takes_what_is_valid(name: str) -> None:
    """An input that is refused at the door tests nothing behind it."""
    target = TARGETS[name]
    assert target.seeds
    for seed in target.seeds[:1]:
        target.feed(seed)


def test_each_folder_of_the_corpus_is_a_targets() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} <= TARGETS.keys()
