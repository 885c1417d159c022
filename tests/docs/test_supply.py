"""The lock covers what pyproject.toml needs, with hashes and no index's address; CI runs what there is to run."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from tests.docs.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
NEEDED = {
    "comfyload": PROJECT["dependencies"],
    # Fuzzing by atheris is not for every Python that CI has, and CI compares us with no other client and has
    # neither Locust nor Ray.
    "dev": [
        *PROJECT["dependencies"],
        *(text for name in EXTRAS.keys() - {"bench", "fuzz", "locust", "ray"} for text in EXTRAS[name]),
    ],
}
RENEW = "the lock lags behind pyproject.toml; run: make lock"


def locked(name: str) -> dict[str, list[tuple[str, int]]]:
    """Of each package its versions (one, or one for each range of Pythons) and how many hashes each has."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    found: dict[str, list[tuple[str, int]]] = {}
    for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE):
        if match := re.match(r"([a-z0-9-]+)==(\S+)", block):
            found.setdefault(match[1], []).append((match[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block))))
    return found


@pytest.mark.parametrize("name", NEEDED)
def test_the_lock_covers_what_is_needed(name: str) -> None:
    has = locked(name)
    for needed in map(Requirement, NEEDED[name]):
        if needed.name == "comfyload":
            continue
        versions = [version for version, _ in has.get(needed.name.lower(), [])]
        assert versions and all(needed.specifier.contains(version) for version in versions), f"{needed}: {RENEW}"


@pytest.mark.parametrize("name", NEEDED)
def test_every_file_is_locked_by_hash_and_no_index_is_named(name: str) -> None:
    assert [package for package, rows in locked(name).items() if not all(hashes for _, hashes in rows)] == []
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_what_a_user_gets_is_what_ci_tests() -> None:
    ours, tested = locked("comfyload"), locked("dev")
    assert [name for name in ours if ours[name] != tested.get(name)] == []


def test_the_workflow_of_the_project_runs_its_gate_and_both_ends_of_the_versions() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    scripts = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in scripts
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", "\n".join(scripts)):
        assert re.search(rf"^(\w+ )*{target}( \w+)*:", makefile, re.MULTILINE)
    pythons = workflow["jobs"]["newest"]["strategy"]["matrix"]["python"]
    supported = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert set(supported) <= set(pythons), "a supported Python that is tested nowhere"
    assert PROJECT["requires-python"] == f">={pythons[0]}" == ">=3.11"
