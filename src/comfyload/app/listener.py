"""Carries what happens to a job to a program's `on_event`, whose errors are not the job's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import structs

from comfyload.record.told import JobEvent, Progress

if TYPE_CHECKING:
    from comfyload.workflow import Workflow

__all__ = ["Listener"]


class Listener:
    """Called with each event of one job, until `over`. An error of `on_event` goes to the log, the first of a job."""

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
