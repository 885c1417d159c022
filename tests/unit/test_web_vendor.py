"""The libraries of the dashboard's page are those that the registry gave, with their licences."""

from pathlib import Path

import pytest
from tools.vendor import PAGE, TESTS, wrong_files


@pytest.mark.parametrize("folder", [PAGE, TESTS], ids=["page", "tests"])
def test_each_file_is_the_one_that_was_fetched(folder: Path) -> None:
    assert wrong_files(folder) == []
    assert list(folder.glob("*.LICENSE"))


def test_a_changed_a_missing_and_a_strange_file_are_named(tmp_path: Path) -> None:
    for file in PAGE.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "preact.js").write_text("other", encoding="utf-8")
    (tmp_path / "htm.js").unlink()
    (tmp_path / "more.js").write_text("", encoding="utf-8")
    assert wrong_files(tmp_path) == [
        "htm.js is listed and absent",
        "more.js is present and not listed",
        "preact.js is not the file that was fetched",
    ]


def test_no_module_has_a_bare_import() -> None:
    for file in PAGE.glob("*.js"):
        assert 'from"./' in (text := file.read_text(encoding="utf-8")) or 'from"' not in text, file.name
        assert "sourceMappingURL" not in text, file.name
