"""`ab`: two servers, or one server in two states, with alternating runs, so that a drift affects both alike."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import randbits
from typing import Literal

from msgspec import Struct, structs

from comfyload.app.locate import measured
from comfyload.app.run.caps import Caps
from comfyload.app.run.launch import connect, folder_of_runs, run
from comfyload.app.run.options import RunOptions
from comfyload.app.run.viewer import Viewer
from comfyload.comfy.identify import identify
from comfyload.errors import ServerUnreachable, UsageError
from comfyload.judge.comparison.comparable import check_keys, differences, refuse
from comfyload.record.run import RunReader

Side = Literal["a", "b"]
RESTART_S = 300.0
POLL_S = 0.5


class Alternation(Struct, frozen=True, kw_only=True):
    """The options of each side, how many pairs of runs, and the command that switches between the sides.

    `switch` None: the sides are two servers. `accept`: keys that may differ between the sides, as for a comparison.
    """

    a: RunOptions
    b: RunOptions
    pairs: int
    switch: str | None = None
    accept: list[str] = []

    @property
    def names(self) -> tuple[str, str]:
        """What a reader knows the sides by: their addresses, or the commands that switch to them."""
        if self.switch is None:
            return self.a.server, self.b.server
        return f"{self.switch} a", f"{self.switch} b"


class Alternated(Struct, frozen=True, kw_only=True):
    """The runs: `a` and `b` name those of whole pairs. `cut`: which cap ended it early; "" if none did."""

    folder: Path
    a: str
    b: str
    cut: str = ""


def turns(pairs: int) -> Iterator[tuple[int, Side]]:
    """ABBA ABBA …: pair and side, in the order of the runs, so that a drift over time affects both sides alike."""
    for pair in range(pairs):
        order: tuple[Side, Side] = ("a", "b") if pair % 2 == 0 else ("b", "a")
        for side in order:
            yield pair, side


async def alternate(plan: Alternation, viewer: Callable[[], Viewer], folder: Path | None = None) -> Alternated:
    """Make all runs, those of A in `a/01`, `a/02`, … of the folder, those of B in `b/`.

    Both runs of a pair have the same jobs, in the same order, unless both sides are one server, whose cache would then
    answer the second.

    Raises:
        UsageError: the folder exists, the switch failed, or the first pair shows that the sides cannot be compared.
        ServerUnreachable: a server did not come back after a switch.
        NothingMeasured: a cap was reached before there were two whole pairs.
    """
    caps, made = Caps(plan.a), list[Side]()
    folder = folder_of_runs("ab", folder)
    check_keys(plan.accept)
    one_server = plan.a.server == plan.b.server
    seeds: dict[int, int] = {}
    for pair, side in turns(plan.pairs):
        if caps.reached:
            break
        options = plan.a if side == "a" else plan.b
        if plan.switch is not None:
            await _switch(plan.switch, side, options)
        seed = randbits(53) if one_server else seeds.setdefault(pair, randbits(53))
        path = folder / side / f"{pair + 1:02}"
        options = structs.replace(options, run_dir=str(path), plan=structs.replace(options.plan, seed=seed))
        await run(options, viewer(), caps=caps)
        if caps.cut:
            break
        made.append(side)
        if (pair, side) == (0, "b"):  # before the other pairs, not after them
            first, second = ([measured(RunReader(folder / of / "01"))] for of in ("a", "b"))
            refuse(differences(first, second), plan.accept)
    whole = len(made) // 2
    if whole == plan.pairs:
        return Alternated(folder=folder, a=str(folder / "a"), b=str(folder / "b"))
    if whole < 2:
        raise caps.short("there were two whole pairs", folder)
    a, b = (",".join(str(folder / side / f"{pair + 1:02}") for pair in range(whole)) for side in ("a", "b"))
    return Alternated(folder=folder, a=a, b=b, cut=f"{caps.reached} after {whole} of {plan.pairs} pairs")


async def _switch(command: str, side: Side, options: RunOptions) -> None:
    process = await asyncio.create_subprocess_shell(f"{command} {side}")
    code = await process.wait()
    if code:
        raise UsageError(f"the switch to {side} failed with exit code {code}", f"run it by hand: {command} {side}")
    deadline = asyncio.get_running_loop().time() + RESTART_S
    while True:
        try:
            async with connect(options) as transport:
                await identify(transport, transport.name, [])
                return
        except ServerUnreachable:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(POLL_S)
