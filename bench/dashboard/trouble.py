"""A simulated server some of whose jobs fail, in a process of its own; prints its address and ends with its input."""

from __future__ import annotations

import asyncio
import sys

from comfyload.sim import Faults, Server, Which
from comfyload.sim.http import serve

SPEED = 9.0
FAULTS = Faults(
    node_error=Which(share=0.14),
    error_class="VAEDecode",
    error_message="decoded image holds NaN in 786432 of 3145728 values",
    slow=Which(share=0.05),
    slow_factor=4.0,
)


async def main() -> None:
    server = Server(speed=SPEED, seed=5, probe=True, faults=FAULTS)
    async with server, serve(server) as url:
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
