"""The pack's README names every variable, event and route; its metadata and its version agree; it stands on its own."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

import comfyload_probe
from comfyload_probe.probe import VERSION

PACK = Path(comfyload_probe.__file__).parent
README = (PACK / "README.md").read_text(encoding="utf-8")
SOURCES = sorted(PACK.glob("*.py"))
OPTIONAL = {"aiohttp", "psutil", "pynvml", "torch"}


def test_the_readme_names_every_variable_event_and_route() -> None:
    settings = (PACK / "settings.py").read_text(encoding="utf-8")
    variables = set(re.findall(r"COMFY[A-Z]+_[A-Z_]+", settings))
    events = {shape["$ref"].rpartition("/")[2] for shape in json.loads((PACK / "schema.json").read_bytes())["oneOf"]}
    routes = {f"/comfyload/v1/{name}" for name in ("events", "clock", "environment", "metrics", "overview")}
    assert len(variables) == 9
    assert [name for name in variables | events | routes if f"`{name}" not in README] == []


def test_version_and_metadata() -> None:
    metadata = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))
    assert metadata["project"]["version"] == VERSION
    assert metadata["tool"]["comfy"]["requires-comfyui"] == ">=0.3.64"
    assert (PACK / "LICENSE").read_bytes() == (PACK.parents[1] / "LICENSE").read_bytes()


def test_it_needs_the_standard_library_alone() -> None:
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, 10))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names | OPTIONAL, f"{source.name} imports {name}"
