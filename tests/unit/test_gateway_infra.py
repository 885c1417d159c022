"""What we ship to run a gateway as a service: a unit for systemd, and a file for containers."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest

from comfyload.gateway.console import Console
from tests.docs.commands import parsed

ROOT = Path(__file__).parents[2]
FILES = ROOT / "infra" / "gateway"
UNIT = (FILES / "comfyload-gateway.service").read_text()
CONTAINER = (FILES / "Containerfile").read_text()
MOST_EXPOSED = 20
"""Of 100, as `systemd-analyze security` counts it: lower is safer."""


def setting(name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    assert found is not None, name
    return found[1]


def instruction(name: str) -> str:
    found = re.search(rf"^ *{name} (.*)$", CONTAINER, re.MULTILINE)
    assert found is not None, name
    return found[1]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit_and_finds_it_safe(tmp_path: Path) -> None:
    here = tmp_path / "comfyload-gateway.service"
    here.write_text(UNIT.replace("/opt/comfyload/bin/comfyload", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, timeout=30)
    said = [line for line in verified.stderr.splitlines() if "comfyload" in line]
    assert (verified.returncode, said) == (0, [])
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", str(here)]
    safe = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert safe.returncode == 0, safe.stdout[-2000:]


def test_the_unit_fits_the_command() -> None:
    binary, *words = setting("ExecStart").split()
    assert binary.endswith("/comfyload")
    assert parsed(words)[0] == "gateway"
    assert setting("ExecReload") == "/bin/kill -HUP $MAINPID"
    assert setting("Type") == "notify"
    example = (FILES / "gateway.toml").read_text()
    drain = re.search(r"^drain_s = ([\d.]+)", example, re.MULTILINE)
    assert drain is not None and float(setting("TimeoutStopSec")) > float(drain[1])
    assert f'ledger = "/var/lib/{setting("StateDirectory")}"' in example


def test_the_container_starts_the_command_and_asks_whether_it_lives() -> None:
    health, arguments = map(json.loads, re.findall(r"^ *CMD (\[.*\])$", CONTAINER, re.MULTILINE))
    entry = json.loads(instruction("ENTRYPOINT"))
    assert entry == ["comfyload"] and parsed(arguments)[0] == "gateway"
    assert "0.0.0.0" in arguments, "nothing outside a container reaches its loopback"
    program = health[2]
    ast.parse(program)
    asked = re.search(r"http://127\.0\.0\.1:(\d+)(/\S+?)'", program)
    assert asked is not None
    # Its routes alone are asked for, so that it needs nothing.
    console = Console(Mock(), Mock(), None)
    assert asked[2] in {path for _, path, _ in console.routes()}
    assert asked[1] == instruction("EXPOSE") == "8189"
    assert instruction("USER") not in ("root", "0")
    assert instruction("VOLUME") == instruction("WORKDIR") == "/var/lib/comfyload"


def test_what_the_container_copies_is_there_after_make_dist() -> None:
    *sources, _ = instruction("COPY").split()
    for source in sources:
        assert source == "dist/*.whl" or (ROOT / source).is_file()
    assert "--outdir dist" in (ROOT / "Makefile").read_text()
