"""Tells a program's `on_event` what happens to a job. An error there does not touch the job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import structs

from comfyload.record.job_events import JobEvent, Progress

if TYPE_CHECKING:
    from comfyload.workflow import Workflow

__all__ = ["EventCallback"]


class EventCallback:
    """Called with each event of one job, until `over`. The first error that `on_event` raises for the job is logged."""

    def __init__(self, on_event: Callable[[JobEvent], object], workflow: Workflow) -> None:
        self.over = False
        self._on_event = on_event
        self._workflow = workflow
        self._said = False

    def __call__(self, event: JobEvent) -> None:
        if self.over:
            return
        if isinstance(event, Progress) and event.node in self._workflow.graph:
            event = structs.replace(event, node_class=self._workflow.class_of(event.node))
        try:
            self._on_event(event)
        except Exception:
            if not self._said:
                self._said = True
                logging.getLogger("comfyload").warning("on_event failed; the job goes on", exc_info=True)
