"""Joins the rows of the instrumentation log by prompt, the probe's and an application's together."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from comfyload.record.bounds import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from comfyload.record.metrics.log import LogRow

__all__ = ["ByPrompt", "PromptRows"]

HELD = 10_000
"""Prompts that are held at once; beyond that the oldest is yielded, ended or not."""

APP_ROWS = 50
"""Rows of an application that are kept of one prompt; the rest is counted."""


class PromptRows(Struct, kw_only=True):
    """The rows of one prompt. None: in no row.

    `status`: of its end. `nodes_run`, `nodes_cached`: from its end, else the number of rows of nodes. `error` and the
    three after it: of the prompt's end or of a node. `app`: an application's rows; `more_app`: how many are not kept.
    `chosen`: one of its rows was chosen.
    """

    prompt_id: str
    began: datetime | None
    queued: bool = False
    started: bool = False
    waited_ms: float | None = None
    duration_ms: float | None = None
    nodes_run: int = 0
    nodes_cached: int = 0
    status: str | None = None
    attempt: int | None = None
    retry_of: str | None = None
    error: str | None = None
    exception_type: str | None = None
    node: str | None = None
    class_type: str | None = None
    app: list[LogRow] = []
    more_app: int = 0
    chosen: bool = False

    @property
    def failed(self) -> bool:
        """Whether a row of the server or of the application has an error."""
        return self.error is not None or any(row.error is not None for row in self.app)


class ByPrompt:
    """Joins rows by their prompt, in the order of each one's first row. `without`: rows that name none."""

    def __init__(self, chosen: Callable[[LogRow], bool]) -> None:
        self.without = 0
        self._chosen = chosen
        self._held: OrderedDict[str, PromptRows] = OrderedDict()
        self._ended: dict[str, float] = {}

    def of(self, rows: Iterable[LogRow], *, keep_open: bool = False) -> Iterator[PromptRows]:
        """All prompts; with `keep_open` those that have not ended stay for rows to come."""
        for row in rows:
            yield from self.add(row)
        for prompt_id in list(self._held):
            if not keep_open or prompt_id in self._ended:
                yield from self._let_go(prompt_id)

    def add(self, row: LogRow, arrived: float = 0.0) -> Iterator[PromptRows]:
        """Add a row that `arrived` at that instant of any clock; yields prompts that can no longer be held."""
        if row.prompt_id is None:
            self.without += 1
            return
        group = self._held.get(row.prompt_id)
        if group is None:
            group = self._held[row.prompt_id] = PromptRows(prompt_id=row.prompt_id, began=row.utc)
        group.chosen = group.chosen or self._chosen(row)
        if row.seq is None:
            _enter_app(group, row)
        else:
            _enter(group, row)
        if row.seq is not None and row.event == "prompt.ended":
            self._ended[row.prompt_id] = arrived
        if len(self._held) > HELD:
            yield from self._let_go(next(iter(self._held)))

    def ended(self, arrived_until: float) -> Iterator[PromptRows]:
        """Those whose end came by then: time enough for an application's rows after it."""
        for prompt_id, arrived in list(self._ended.items()):
            if arrived <= arrived_until:
                yield from self._let_go(prompt_id)

    def _let_go(self, prompt_id: str) -> Iterator[PromptRows]:
        self._ended.pop(prompt_id, None)
        group = self._held.pop(prompt_id)
        if group.chosen:
            yield group


def _enter_app(group: PromptRows, row: LogRow) -> None:
    if len(group.app) < APP_ROWS:
        group.app.append(row)
    else:
        group.more_app += 1


def _enter(group: PromptRows, row: LogRow) -> None:
    raw = row.raw
    if row.event == "prompt.queued":
        group.queued = True
        group.attempt, group.retry_of = _whole(raw.get("attempt")), _text(raw.get("retry_of"))
    elif row.event == "prompt.started":
        group.started, group.waited_ms = True, finite(raw.get("waited_ms"))
    elif row.event == "node":
        group.nodes_run += raw.get("status") == "run"
        group.nodes_cached += raw.get("status") == "cached"
        if row.error is not None:
            _enter_error(group, row)
    elif row.event == "prompt.ended":
        group.status, group.duration_ms = _text(raw.get("status")), finite(raw.get("duration_ms"))
        run, cached = _whole(raw.get("nodes_run")), _whole(raw.get("nodes_cached"))
        group.nodes_run = group.nodes_run if run is None else run
        group.nodes_cached = group.nodes_cached if cached is None else cached
        if row.error is not None:
            _enter_error(group, row)


def _enter_error(group: PromptRows, row: LogRow) -> None:
    group.error = row.error
    group.exception_type = _text(row.raw.get("exception_type")) or group.exception_type
    group.node = _text(row.raw.get("node")) or group.node
    group.class_type = _text(row.raw.get("class_type")) or group.class_type


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: Any) -> int | None:
    """A whole number that JSON is written with; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None
