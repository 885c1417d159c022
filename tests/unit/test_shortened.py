"""What is refused is quoted in part where it is long, and what is said of it stays whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfyload.visible import shortened
from tests.support.commands import call


@pytest.mark.parametrize("quoted", ["9" * 5000, f"'{'a b ' * 1000}'", f'"{"it is " * 1000}"'])
def test_a_long_quotation_loses_its_middle_and_the_sentence_stays(quoted: str) -> None:
    cut = shortened(f"--set 4.seed={quoted} is no integer of the server's")
    assert cut.startswith(f"--set 4.seed={quoted[:50]}") and cut.endswith(
        f"{quoted[-30:]} is no integer of the server's"
    )
    assert len(cut) < 250


def test_what_is_long_without_quotation_marks_is_cut_too() -> None:
    cut = shortened("--set " + "9 " * 2000 + ": the graph has no such node")
    assert cut.endswith(": the graph has no such node") and len(cut) < 250


def test_sentences_of_usual_length_stay_whole() -> None:
    text = f"the server's reply is none of ComfyUI's: {'and so it goes on, ' * 20}as others' do"
    assert shortened(text) == text


def test_a_command_quotes_no_more_of_what_it_refuses(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text('{"1":{"class_type":"SaveImage","inputs":{"images":["1",0]}}}')
    done = call("run", "--server", ":1", "--workflow", "g.json", "--set", "9" * 5000 + ".seed=3", cwd=tmp_path)
    assert done.returncode == 2
    assert "the graph has no such node — write NODE.INPUT" in done.stderr and len(done.stderr) < 400
