"""Ctrl-C at the moment at which the event loop is closed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import pytest

from comfyload import clock


def _runner(struck: type[BaseException] | None) -> type[Any]:
    class Runner:
        def __init__(self, **_: Any) -> None: ...

        def __enter__(self) -> Runner:
            return self

        def run(self, main: Coroutine[Any, Any, None]) -> None:
            main.close()

        def __exit__(self, *_: object) -> None:
            try:
                if struck is not None:
                    raise struck
            finally:
                raise RuntimeError("Cannot close a running event loop")

    return Runner


async def _nothing() -> None: ...


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop")
@pytest.mark.parametrize(("struck", "raised"), [(KeyboardInterrupt, KeyboardInterrupt), (None, RuntimeError)])
def test_an_interrupt_that_uvloop_covers_up_is_an_interrupt(
    struck: type[BaseException] | None, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio, "Runner", _runner(struck))
    with pytest.raises(raised):
        clock.run(_nothing())
