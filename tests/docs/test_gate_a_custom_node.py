"""The files that gate a custom node are YAML as the two systems read it, and every command in them is understood."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
import yaml

from comfyload.judge.gates.grammar import parse_gate
from tests.docs.commands import commands, parsed
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "how-to" / "gate-a-custom-node.md").read_text(encoding="utf-8")
START = re.findall(r"^```bash\n(#!.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0]
GITHUB, GITLAB = (yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
STEPS: list[dict[str, Any]] = GITHUB["jobs"]["speed"]["steps"]
SCRIPTS = {
    "github": "\n".join(step["run"] for step in STEPS if "run" in step),
    "gitlab": "\n".join(GITLAB["speed"]["script"]),
}


@pytest.mark.parametrize("system", SCRIPTS)
def test_every_command_is_understood(system: str) -> None:
    found = [parsed(words) for words in commands(SCRIPTS[system])]
    names = [name for name, _ in found]
    assert {"ab", "run", "baseline save"} <= set(names)
    (gated,) = (flags for name, flags in found if name == "ab")
    assert [condition.value for condition in gated["fail_if"]] == ["slower", "more-failures"]
    assert gated["pairs"] * gated["jobs"] >= 59, "a mean is shown to be the same from 59 jobs on"
    for _, flags in found:
        assert [parse_gate(text).text for text in flags.get("gate") or []] == (flags.get("gate") or [])


def test_both_systems_load_with_the_same_commands() -> None:
    of_github, of_gitlab = ([" ".join(words) for words in commands(script)] for script in SCRIPTS.values())
    assert [line.replace(" --github-summary", "") for line in of_github if line.startswith(("ab", "run"))] == of_gitlab[
        :2
    ]


def test_the_expressions_of_github_name_what_there_is_and_none_reaches_a_shell() -> None:
    text = yaml.safe_dump(GITHUB)
    names = set(re.findall(r"\$\{\{ *(\w[\w.]*)", text))
    assert names == {
        "vars.COMFYLOAD",
        "github.workspace",
        "github.event.pull_request.base.sha",
        "github.run_id",
        "github.event_name",
    }
    assert "${{" not in SCRIPTS["github"], "what a pull request says must not become part of a script"
    assert [step["if"] for step in STEPS if "${{" in str(step.get("if", ""))] == []


def test_actions_are_taken_by_major_version_and_comfyui_by_tag() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[a-z/-]+@v\d+", action) for action in used)
    (comfyui,) = (step["with"]["ref"] for step in STEPS if step.get("with", {}).get("path") == "comfyui")
    assert f"--branch {comfyui} " in SCRIPTS["gitlab"] and re.fullmatch(r"v\d+\.\d+\.\d+", comfyui)


def test_undecided_is_a_warning_and_a_failure_is_not() -> None:
    assert GITLAB["speed"]["allow_failure"] == {"exit_codes": 3}
    (step,) = (step["run"] for step in STEPS if "--fail-if" in step.get("run", ""))
    assert "|| code=$?" in step and step.rstrip().endswith('exit "$code"') and '"$code" -eq 3' in step
    informs = [step for step in STEPS if step.get("continue-on-error")]
    assert [step["name"] for step in informs] == ["Beside the default branch's baseline, for information"]


@pytest.mark.parametrize(("code", "exits"), [(0, 0), (1, 1), (2, 2), (3, 0), (5, 5)])
@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="the step is for a shell")
def test_the_step_on_github_turns_3_alone_into_a_warning(code: int, exits: int) -> None:
    (step,) = (step["run"] for step in STEPS if "--fail-if" in step.get("run", ""))
    script = f"comfyload() {{ return {code}; }}\n{step}"
    done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, "::warning" in done.stdout) == (exits, code == 3)


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="the script is for a shell")
@pytest.mark.parametrize("script", [START, *SCRIPTS.values()])
def test_the_scripts_are_a_shells(script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_script_that_starts_comfyui_is_called_as_it_is_written() -> None:
    assert "start-comfyui.sh NODE PORT" in START
    for script in SCRIPTS.values():
        calls = re.findall(r"tests/start-comfyui\.sh (\S+) (\d+)", script)
        assert sorted(calls) == [("base", "8188"), ("head", "8189")]
