"""The gateway's metrics: what they count, and that Prometheus, the alert rules and the dashboard know them by name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from comfyload import clock
from comfyload.sim import Faults, Server, Which
from tests.support.gateway import desk
from tests.support.rig import sleeper

INFRA = Path(__file__).parents[2] / "infra" / "observability"
_NAME = re.compile(r"comfyload_[a-z_]+")


def counted(text: bytes) -> dict[str, float]:
    """Every sample by its name and labels."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_jobs_are_counted_by_how_they_ended(tmp_path: Path) -> None:
    found: dict[str, float] = {}

    async def main() -> None:
        faults = Faults(node_error=Which(every=3))
        async with Server(faults=faults, seed=3) as server, desk(tmp_path, [server]) as front:
            for number in range(12):
                await front.run(sleeper(1.0 + number / 100))
            ended = [front.history.entry(row.id, row.tenant) for row in front.gateway.store.ended(None)]
            failed = sum(json.loads(entry or b"{}")["status"]["status_str"] == "error" for entry in ended)
            found["failed"] = failed
            found.update(counted(front.front.metrics.text()))

    clock.run_virtual(main())
    jobs = {key: value for key, value in found.items() if key.startswith("comfyload_jobs_total")}
    assert sum(jobs.values()) == 12
    assert sum(value for key, value in jobs.items() if "'failed'" in key) == found["failed"]
    assert found["comfyload_gateway_attention_jobs[]"] == found["failed"]
    latency = next(value for key, value in found.items() if key.startswith("comfyload_job_latency_seconds_sum"))
    completed = 12 - found["failed"]
    assert latency == pytest.approx(1.1 * completed, rel=1.0), "each took a second and some retries"
    assert found["comfyload_gateway_jobs[('state', 'pending')]"] == 0
    assert found["comfyload_gateway_server_up[('server', 'gpu1')]"] == 1


def expressions(value: Any) -> list[str]:
    """Every `expr` in a dashboard or in rules."""
    if isinstance(value, dict):
        own = [value["expr"]] if isinstance(value.get("expr"), str) else []
        return own + [found for inner in value.values() for found in expressions(inner)]
    return [found for inner in value for found in expressions(inner)] if isinstance(value, list) else []


@pytest.mark.parametrize("file", ["grafana-dashboard.json", "comfyload-alerts.yml"])
def test_dashboard_and_rules_name_only_what_there_is(tmp_path: Path, file: str) -> None:
    known: set[str] = set()

    async def main() -> None:
        async with Server() as server, desk(tmp_path, [server]) as front:
            await front.run(sleeper(0.1))
            for family in text_string_to_metric_families(front.front.metrics.text().decode()):
                known.update(sample.name for sample in family.samples)

    clock.run_virtual(main())
    used = {name for expr in expressions(yaml.safe_load((INFRA / file).read_text())) for name in _NAME.findall(expr)}
    assert used and used <= known


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_the_rules_and_the_configuration() -> None:
    for words in (["check", "rules", "comfyload-alerts.yml"], ["check", "config", "prometheus.yml"]):
        command = ["promtool", *words]
        done = subprocess.run(command, cwd=INFRA, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
