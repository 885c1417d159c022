"""How late the generator is: the lateness of what it sends, and of nothing that waits by design."""

from __future__ import annotations

from typing import Any

import pytest

from comfyload.app.run.inputs import Prepared
from comfyload.app.run.session import Session
from comfyload.load.selfcheck import SelfWatch
from comfyload.record.model import Manifest
from comfyload.record.plan import Closed, Open, Stage
from comfyload.record.policy import Policy
from tests.unit.judge_runs import job, manifest, planned

RATE = [Stage(per_s=1.0)]


class _Quiet:
    """A writer and a viewer that keep nothing."""

    path = "run"

    def write_line(self, _: object) -> None: ...
    def line(self, _: object) -> None: ...
    def noticed(self, _: object) -> None: ...


def _lateness(manifest: Manifest) -> list[float]:
    """What the self-check of such a run holds after a job that was sent 3 s after it was due."""
    quiet: Any = _Quiet()
    prepared = Prepared(manifest=manifest, jobs=quiet, options=quiet)
    session = Session(prepared, quiet, quiet, lambda: 0.0, caps=quiet)
    session._self_watch = SelfWatch()
    session._on_line(job(0, 10.0, 5.0, sent=13.0))
    session._on_line(job(1, 10.0, 5.0, sent=14.0, warmup=True))
    session._on_line(job(2, 10.0, 5.0, sent=None))
    seen = session._self_watch.send_lateness
    return list(seen._exact[: len(seen)])


def test_a_job_sent_late_is_late_by_the_generator() -> None:
    assert _lateness(manifest()) == [3.0]
    assert _lateness(planned(Open(stages=RATE))) == [3.0]
    assert _lateness(planned(Open(stages=RATE, max_in_flight=2, on_full="drop"))) == [3.0]


@pytest.mark.parametrize(
    "manifest",
    [
        planned(Open(stages=RATE, max_in_flight=2)),
        planned(Open(stages=RATE), max_server_queue=2),
        planned(Closed(), max_server_queue=2),
        manifest(retry=Policy()),
    ],
)
def test_a_wait_for_a_place_or_for_a_retry_is_no_lateness_of_the_generator(manifest: Manifest) -> None:
    assert _lateness(manifest) == []
