"""A proxy that passes events on twice."""

from __future__ import annotations

from collections.abc import Callable

from comfyload.sim.proxy import Alteration, Proxy

__all__ = ["Doubles", "DoublingProxy"]


class DoublingProxy(Proxy):
    """`duplicate`: the share of messages on event streams that come twice; it may change at any time. `doubled`: how
    many have.
    """

    duplicate = 0.0
    doubled = 0

    def _alteration(self) -> Alteration:
        return Doubles(self._copies).of

    def _copies(self) -> int:
        again = self._rng.random() < self.duplicate
        self.doubled += again
        return 1 + again


class Doubles:
    """What comes back on one connection; on an event stream, each message as often as `copies` says."""

    def __init__(self, copies: Callable[[], int]) -> None:
        self._copies = copies
        self._messages = False
        self._rest = b""

    def of(self, piece: bytes) -> bytes:
        """What to pass on for the next piece. What is not a whole message yet waits for the rest of it."""
        if not self._messages and piece.startswith(b"HTTP/1.1 101 "):  # a connection may have served calls before
            self._messages = True
            head, _, self._rest = piece.partition(b"\r\n\r\n")
            return head + b"\r\n\r\n" + self.of(b"")
        if not self._messages:
            return piece
        self._rest += piece
        out = []
        while (size := _message_bytes(self._rest)) is not None:
            message, self._rest = self._rest[:size], self._rest[size:]
            out += [message] * self._copies()
        return b"".join(out)


def _message_bytes(held: bytes) -> int | None:
    """The length of a server's first WebSocket message, unmasked (RFC 6455, 5.2); None: not all of it is here."""
    if len(held) < 2:
        return None
    size, after = held[1] & 0x7F, 2
    if size >= 126:
        after += 2 if size == 126 else 8
        size = int.from_bytes(held[2:after], "big")
    return after + size if len(held) >= after + size else None
