"""What we ship to make a run on Kubernetes: what the schemas of its API say, and what they cannot say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from comfyload.app.run.options import read_plan
from comfyload.load.arrivals import expected_jobs
from comfyload.workflow import parse
from tests.docs.commands import parsed

ROOT = Path(__file__).parents[2]
FILE = ROOT / "infra" / "kubernetes" / "run.yaml"
TEXT = FILE.read_text(encoding="utf-8").replace("START_AT", "2030-01-01T12:00:00Z")
OLDEST = "1.29"


@cache
def objects() -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in yaml.safe_load_all(TEXT)}


def job() -> dict[str, Any]:
    spec: dict[str, Any] = objects()["Job"]["spec"]
    return spec


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = job()["template"]["spec"]
    return spec


def generator() -> dict[str, Any]:
    (container,) = pod()["containers"]
    found: dict[str, Any] = container
    return found


@pytest.mark.skipif(find_spec("kubernetes_validate") is None, reason="pip install kubernetes-validate")
@pytest.mark.parametrize("version", [OLDEST, "1.33", "1.37"])
def test_the_schemas_of_the_api_take_it_and_no_misspelt_field(tmp_path: Path, version: str) -> None:
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", version]
    right, wrong = tmp_path / "right.yaml", tmp_path / "wrong.yaml"
    right.write_text(TEXT)
    wrong.write_text(TEXT.replace("podReplacementPolicy", "podReplacmentPolicy"))
    done = subprocess.run([*command, str(right)], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    assert subprocess.run([*command, str(wrong)], capture_output=True, timeout=50).returncode != 0


def test_a_shard_is_an_index_and_all_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")  # as the Job does
    assert parsed(generator()["args"])[0].split()[:2] == ["fleet", "shard"]
    shards = re.search(r"--shards=(\d+)", " ".join(generator()["args"]))
    assert shards is not None
    assert job()["completionMode"] == "Indexed"
    assert job()["completions"] == job()["parallelism"] == int(shards[1])


def test_an_index_that_fails_is_resumed_alone_and_never_twice_at_once() -> None:
    """`backoffLimitPerIndex` needs `Never`; a failure policy needs `Failed`: the API refuses others."""
    assert job()["backoffLimitPerIndex"] > 0 and "backoffLimit" not in job() and "maxFailedIndexes" not in job()
    assert pod()["restartPolicy"] == "Never"
    assert job()["podReplacementPolicy"] == "Failed"
    (rule,) = job()["podFailurePolicy"]["rules"]
    assert rule["action"] == "Ignore" and [one["type"] for one in rule["onPodConditions"]] == ["DisruptionTarget"]
    assert "activeDeadlineSeconds" not in job() and "ttlSecondsAfterFinished" not in job(), (
        "who then knows what was lost?"
    )


def test_the_pod_is_guaranteed_what_it_needs_and_may_do_little() -> None:
    resources = generator()["resources"]
    assert resources["requests"] == resources["limits"] and set(resources["limits"]) == {"cpu", "memory"}
    assert int(resources["limits"]["cpu"]) >= 2, "throttled when its threads run beside it"
    assert pod()["terminationGracePeriodSeconds"] >= 600
    container = (ROOT / "infra" / "gateway" / "Containerfile").read_text()
    assert f"USER {pod()['securityContext']['runAsUser']}" in container
    assert json.loads(re.findall(r"^ENTRYPOINT (.*)$", container, re.MULTILINE)[0]) == ["comfyload"]
    assert "command" not in generator(), "the image knows what it is"


def test_what_is_mounted_is_there_and_the_runs_are_for_all() -> None:
    volumes = {one["name"]: one for one in pod()["volumes"]}
    mounts = {one["name"]: one["mountPath"] for one in generator()["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    assert volumes["plan"]["configMap"]["name"] == objects()["ConfigMap"]["metadata"]["name"]
    claim = objects()["PersistentVolumeClaim"]
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert generator()["args"][-1].startswith(mounts["runs"] + "/")
    assert generator()["workingDir"] == mounts["plan"]


def test_its_plan_is_one_that_shards_can_share(tmp_path: Path) -> None:
    data = objects()["ConfigMap"]["data"]
    (tmp_path / "plan.toml").write_text(data["plan.toml"])
    options = read_plan(tmp_path / "plan.toml")
    assert options.plan.seed is not None and expected_jobs(options.plan) == 2000
    (choice,) = options.workflows
    assert parse(data[choice.file].encode(), "book", choice.file).graph


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_the_commands_of_its_head_are_what_the_page_says() -> None:
    page = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text(encoding="utf-8")
    head = [line.removeprefix("#   ") for line in FILE.read_text().splitlines() if line.startswith("#   ")]
    assert len(head) == 2 and all(line in page for line in head)
