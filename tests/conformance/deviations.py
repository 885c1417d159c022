"""Where a gateway answers otherwise than a ComfyUI, on purpose; everything else is a defect."""

from __future__ import annotations

from typing import NamedTuple

MOST = 6


class Deviation(NamedTuple):
    """`what` it does, in the words of docs/why/gateway.md; `held_by`: the test that shows it."""

    what: str
    held_by: str


DEVIATIONS = {
    "once": Deviation(
        "A prompt that is sent twice under one `prompt_id`, or with one `Idempotency-Key`, runs once.",
        "tests/unit/test_gateway.py::test_the_same_prompt_runs_once",
    ),
    "own": Deviation(
        "A client sees and stops its own tenant's jobs alone: `/queue`, `/history`, `/api/jobs`, `clear`, and "
        "`/interrupt` without a body, which stops the only job that runs and never everybody's. `status` counts them, "
        "at most four times a second.",
        "tests/conformance/test_gateway_deviations.py::test_interrupt_without_a_body_stops_the_only_job_that_runs",
    ),
    "more": Deviation(
        "Jobs and history have keys that ComfyUI has not: `comfyload`, with the attempts, and `status.error`, saying "
        "why a job failed for good.",
        "tests/conformance/test_gateway_deviations.py::test_keys_that_comfyui_has_not",
    ),
    "refused": Deviation(
        "Two prompts are refused that ComfyUI takes: one that would end its worker, such as one with a node without "
        "`inputs` (400), and one that could not be done by its deadline (503 with `Retry-After`).",
        "tests/conformance/test_gateway_deviations.py::test_a_node_without_inputs_is_refused",
    ),
    "marked": Deviation(
        "With several servers, the folder of a file begins with its server's mark: `@gpu2/portraits`.",
        "tests/conformance/test_files_like_a_real_server.py::test_a_prefix_becomes_a_name",
    ),
    "guarded": Deviation(
        "Calls under a foreign name, from a foreign page, or to a path that can be read in two ways are refused where "
        "ComfyUI lets some pass, and the refusal says why (403, 421, 400).",
        "tests/conformance/test_api_like_a_real_server.py::test_single_requests",
    ),
}
assert len(DEVIATIONS) <= MOST
