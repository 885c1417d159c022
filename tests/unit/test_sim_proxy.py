"""The bad network: what it does to bytes is what was asked for, and a good one changes nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest

from comfyload.sim.proxy import Proxy, Trouble
from tests.chaos.doubles import Doubles


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def _through(trouble: Trouble) -> AsyncIterator[tuple[Proxy, Callable[[bytes], Coroutine[Any, Any, bytes]]]]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with Proxy("127.0.0.1", server.sockets[0].getsockname()[1], random.Random(1), trouble) as proxy:

        async def ask(sent: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
            writer.write(sent)
            writer.write_eof()
            try:
                got = b""
                while len(got) < len(sent):
                    piece = await reader.read(1 << 16)
                    if not piece:
                        break
                    got += piece
                return got
            finally:
                writer.close()

        yield proxy, ask
    server.close()
    await asyncio.sleep(0.05)  # its connections end


def test_a_good_network_passes_every_byte() -> None:
    async def main() -> None:
        async with _through(Trouble()) as (_, ask):
            sent = random.Random(2).randbytes(300_000)
            assert await asyncio.wait_for(ask(sent), 5) == sent

    asyncio.run(main())


def test_delay_and_throttling_take_their_time() -> None:
    async def main() -> None:
        for trouble, least in ((Trouble(delay_s=0.1), 0.2), (Trouble(bytes_per_s=100_000), 0.3)):
            async with _through(trouble) as (_, ask):
                begun = time.perf_counter()
                assert len(await asyncio.wait_for(ask(bytes(16_000)), 5)) == 16_000
                assert time.perf_counter() - begun >= least

    asyncio.run(main())


def test_a_lost_reply_and_a_refusal_are_resets() -> None:
    async def main() -> None:
        for trouble in (Trouble(lose_reply=1.0), Trouble(refuse=True), Trouble(reset=1.0, reset_after_bytes=100)):
            async with _through(trouble) as (_, ask):
                with pytest.raises(ConnectionError):
                    await asyncio.wait_for(ask(bytes(5000)), 5)

    asyncio.run(main())


def test_silence_ends_and_nothing_is_lost_by_it() -> None:
    async def main() -> None:
        async with _through(Trouble(silent=True)) as (proxy, ask):
            under_way = asyncio.create_task(ask(b"hello"))
            done, _ = await asyncio.wait({under_way}, timeout=0.2)
            assert not done
            proxy.trouble = Trouble()
            assert await asyncio.wait_for(under_way, 5) == b"hello"

    asyncio.run(main())


HALVES: tuple[Literal["close", "half_close"], ...] = ("close", "half_close")


def test_a_connection_cut_by_fin_ends_early_and_one_that_stalls_never_does() -> None:
    async def main() -> None:
        for how in HALVES:
            async with _through(Trouble(reset=1.0, reset_after_bytes=100, how=how)) as (_, ask):
                assert len(await asyncio.wait_for(ask(bytes(50_000)), 5)) < 50_000
        async with _through(Trouble(reset=1.0, reset_after_bytes=100, how="stall")) as (proxy, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
            writer.write(bytes(50_000))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(50_000), 0.3)
            assert proxy.resets == 1 and not reader.at_eof()
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("length", [1, 4, 7, 1000])
def test_messages_of_an_event_stream_come_twice_and_other_bytes_once(length: int) -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    messages = [bytes([0x81, 2]) + b"ab", bytes([0x82, 126]) + (300).to_bytes(2, "big") + bytes(300)]
    stream = head + b"".join(messages)
    pieces = [stream[: len(head) + 1], *(stream[i : i + length] for i in range(len(head) + 1, len(stream), length))]
    doubles = Doubles(lambda: 2)
    assert b"".join(doubles.of(piece) for piece in pieces) == head + b"".join(m + m for m in messages)
    plain = Doubles(lambda: 2)
    assert b"".join(plain.of(piece) for piece in (b"HTTP/1.1 200 OK\r\n", *messages)).endswith(b"".join(messages))
