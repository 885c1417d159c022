"""Follows the shards of a run to the end of the last, and ends them on Ctrl-C."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from comfyload.app.fleet.watch import ShardWatch
from comfyload.app.run.viewer import Viewer
from comfyload.load.arrivals import expected_jobs
from comfyload.record.model import Observation, Record

LOOK_S = 0.25
STOPPING = "Stopping: waiting for running jobs (press Ctrl-C again to cancel them)"
CANCELLING = "Cancelling: removing our jobs from the server"


def follow(
    watched: ShardWatch,
    viewer: Viewer,
    *,
    shows: bool,
    warn: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when no shard goes on. `shows`: the viewer shows something, so that it is worth reading the journals.
    `warn` takes the words about a lost shard, where it does not.
    """
    begun, counting = False, False
    with _on_interrupt(watched, viewer):
        while True:
            for news in watched.look():
                if shows:
                    viewer.noticed(Observation(t=0.0, code="lost_shard", text=news))
                else:
                    warn(news)
            if shows and not counting:
                manifests = watched.manifests()
                if manifests and not begun:
                    begun = True
                    viewer.began(manifests[0], watched.path, expected_jobs(manifests[0].plan))
                if len(manifests) == len(watched.fleet.shards) and all(
                    one.counted_from is not None for one in manifests
                ):
                    counting = True
                    viewer.counting()
            if shows and begun:
                for line in watched.lines():
                    if not (counting and isinstance(line, Record) and line.warmup):
                        viewer.line(line)
            if not watched.going():
                break
            sleep(LOOK_S)
    if begun:
        viewer.ended()


@contextmanager
def _on_interrupt(watched: ShardWatch, viewer: Viewer) -> Iterator[None]:
    """Within the context Ctrl-C and SIGTERM stop all shards, a second time cancel their jobs. When a terminal is closed
    or this process is killed, they go on.
    """
    times = 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal times
        times += 1
        watched.interrupt()
        viewer.stopping(STOPPING if times == 1 else CANCELLING)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
