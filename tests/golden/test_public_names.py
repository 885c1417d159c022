"""The names that others may import. A change here is a change for them: it gets a news fragment."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "comfyload.record.model": """
        FORMAT Execution Failure FailureKind Fetch Host Line Manifest NodeFacts Observation Outcome Output Prompt Record
        Sample SelfCheck Sent Server ServerTimes Spread WorkflowFacts
    """,
    "comfyload.record.plan": "Arrivals Closed Load OnFull Open Order Plan Replay Stage",
    "comfyload.workflow": "ObjectInfo Variation Workflow override parse",
    "comfyload.load": "Engine Stop",
    "comfyload.judge.summary": "BookRow CacheRow Summary jsonable summarise",
    "comfyload.judge.stats": """
        CONFIDENCE QUANTILE_METHOD Statistic autocorrelation_time clopper_pearson mean mean_interval percentile
        percentiles proportion quantile quantile_interval quantile_time ratio_interval upper_bound_needs value_needs
        wilson
    """,
    "comfyload.sim": "Direct Faults Server Which",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_these_and_exist(module: str) -> None:
    imported = importlib.import_module(module)
    assert sorted(imported.__all__) == sorted(PUBLIC[module].split())
    assert [name for name in imported.__all__ if not hasattr(imported, name)] == []
