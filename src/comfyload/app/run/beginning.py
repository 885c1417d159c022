"""When the counted load of a run begins: at once, or at an instant of the wall clock that all its shards share."""

from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime

from comfyload import clock as clocks
from comfyload.app.run.sharing import LATE_S, WallClock, hold, start_of, wall
from comfyload.load import Stop
from comfyload.load.timer import Timer
from comfyload.record.model import Manifest, Observation
from comfyload.record.options import RunOptions


class Beginning:
    """Puts into the manifest of a shard what lays its clock and those of the others over each other."""

    def __init__(
        self, manifest: Manifest, options: RunOptions, clock: Callable[[], float], wall: WallClock = wall
    ) -> None:
        self._manifest, self._options, self._clock, self._wall = manifest, options, clock, wall
        self._instant: float | None = None
        self._is_shard = isinstance(manifest.shard, str)
        if self._is_shard and not isinstance(manifest.zero_utc, str):
            manifest.zero_utc = _utc(wall() - clock())

    def start(
        self, stop: Stop, show: Callable[[Observation], None], note: Callable[[Observation], None]
    ) -> Callable[[], Awaitable[float]] | None:
        """What waits for the instant, as the engine needs it; None: there is none, or it passed while an earlier
        process went on. `show`: takes what people may see, `note` what the run keeps.
        """
        at = start_of(self._options)
        if at is None or (self._manifest.resumed and at < self._wall()):
            return None

        async def wait() -> float:
            if (left := at - self._wall()) > 1:
                text = f"the load begins in {left:.0f} s, at {self._options.start_at}"
                show(Observation(t=self._clock(), code="waits", text=text))
            instant = self._instant = await hold(at, self._clock, stop, self._wall)
            late = self._clock() - instant
            if late > LATE_S:
                text = f"it was ready {late:.3g} s after the instant at which the load was to begin"
                note(Observation(t=self._clock(), code="late_start", text=text))
            if self._is_shard:
                self._manifest.zero_utc = _utc(at - instant)
            return instant

        return wait

    def counted_from(self) -> float:
        """The instant by the run's clock, once the load begins."""
        return self._clock() if self._instant is None else self._instant

    async def note_began(self) -> None:
        """Note when the load of a shard really begins, by the wall clock."""
        if self._is_shard:
            with closing(Timer()) as timer:
                await timer.until(clocks.now() - self._clock() + self.counted_from())
                self._manifest.began_utc = _utc(self._wall())


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
