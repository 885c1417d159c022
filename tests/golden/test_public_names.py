"""The names that others may import. A change here is a change for them: it gets a news fragment."""

from __future__ import annotations

import ast
import importlib
import inspect
from types import ModuleType

import pytest

PUBLIC = {
    "comfyload": "Execution JobEvent Policy Progress Queued Retrying connect log_event stage",
    "comfyload.record.model": """
        FORMAT AgainOf Attempt Environment Execution Fact Failure FailureKind Fetch Host Line LogLine Manifest NodeFacts
        Observation Output Prompt Quantiles Record RetryLine Sample SelfCheck Sent Server ServerState
        ServerTimes Span WorkflowFacts
    """,
    "comfyload.record.plan": "Arrivals Closed Load OnFull Open Order Plan Replay Stage",
    "comfyload.workflow": "ObjectInfo Variation Workflow override parse",
    "comfyload.load": "Engine Stop",
    "comfyload.judge.summary": "BookRow CacheRow Measured Summary jsonable measure summarise",
    "comfyload.judge.statistics.stats": """
        CONFIDENCE Interval QUANTILE_METHOD Statistic percentile percentiles proportion
        quantile quantile_interval quantile_time upper_bound_needs value_needs
    """,
    "comfyload.judge.statistics.means": "INDEPENDENT mean rate",
    "comfyload.record.archive": """
        ArchiveManifest BASE Contents DATED Damaged FORMAT Kept KeptRun MANIFEST PROMOTED check_free find find_by_hand
        list_all list_by_hand list_damaged promote promoted save verify_files
    """,
    "comfyload.judge.gates.grammar": """
        DEFAULT_GATES Gate GateSet Op expected_patterns parse_gate read_gates
    """,
    "comfyload.judge.gates.gate": "GateVerdict RunError Verdict exit_code judge overall",
    "comfyload.judge.comparison.compare": "CompareVerdict Comparison Ratio compare",
    "comfyload.judge.comparison.history": "Change DEFAULT LevelShift LevelShifts Point TrendSeries changes history",
    "comfyload.report.charts": "Chart charts concurrency_chart png script",
    "comfyload.sim": "Faults Server Which",
}


def _public(module: ModuleType) -> list[str]:
    """What a module says that it passes on, else what it defines itself."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    names: set[str] = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return sorted(name for name in names if not name.startswith("_"))


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_these_and_exist(module: str) -> None:
    imported = importlib.import_module(module)
    assert _public(imported) == sorted(PUBLIC[module].split())
    assert [name for name in _public(imported) if not hasattr(imported, name)] == []
