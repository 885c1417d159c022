"""Seeds are within bounds, reproducible, distinct, and independent of anything but run seed and index."""

from __future__ import annotations

import json
import uuid

from hypothesis import given
from hypothesis import strategies as st

from comfyload.workflow import ObjectInfo, Variation, parse
from comfyload.workflow.vary import prompt_id


def variation(low: int, high: int, seed: int) -> Variation:
    graph = {
        "a": {"class_type": "Noise", "inputs": {"seed": 0}},
        "b": {"class_type": "SaveImage", "inputs": {"images": ["a", 0]}},
    }
    info = ObjectInfo(
        {
            "Noise": {"output": ["IMAGE"], "input": {"required": {"seed": ["INT", {"min": low, "max": high}]}}},
            "SaveImage": {"output_node": True, "output": []},
        }
    )
    return Variation(parse(json.dumps(graph).encode(), "g"), info, seed=seed)


bounds = st.one_of(
    st.just((0, 2**64 - 1)),
    st.tuples(st.integers(-(2**63), 2**63), st.integers(0, 2**16)).map(lambda pair: (pair[0], pair[0] + pair[1])),
)


@given(bounds, st.integers(0, 2**63), st.integers(0, 10**9))
def test_seeds_are_in_bounds_and_reproducible(limits: tuple[int, int], seed: int, index: int) -> None:
    value = variation(*limits, seed).values(index)["a.seed"]
    assert limits[0] <= value <= limits[1]
    assert json.loads(variation(*limits, seed).render(index))["a"]["inputs"]["seed"] == value


@given(bounds, st.integers(0, 2**63), st.integers(1, 300))
def test_seeds_are_distinct_as_long_as_there_are_others(limits: tuple[int, int], seed: int, jobs: int) -> None:
    made = variation(*limits, seed)
    jobs = min(jobs, limits[1] - limits[0] + 1)
    assert made.period == limits[1] - limits[0] + 1
    assert len({made.values(index)["a.seed"] for index in range(jobs)}) == jobs


@given(st.text(min_size=1, max_size=40), st.integers(0, 10**9))
def test_prompt_ids_are_canonical_uuids(run_id: str, index: int) -> None:
    made = prompt_id(run_id, index)
    assert str(uuid.UUID(made)) == made
    assert made == prompt_id(run_id, index) != prompt_id(run_id, index + 1)
