"""A reply as it arrives: its head, and its body, unpacked and within bounds that are checked before a byte is kept."""

import zlib
from collections.abc import Mapping

PACKED_PIECE, PIECE = 1 << 10, 1 << 16
"""Bytes of a packed body that are unpacked at one time, and the most that come of it at one time."""

CODINGS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""The codings that we accept, with zlib's `wbits` for each."""


class Broken(Exception):
    """What came is not a whole reply; the text says why."""


class TooLarge(Broken):
    """The body was abandoned: it, or all bodies under way together, have more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes")
        self.limit = limit


class BodiesUnderWay:
    """How many bodies are read at one time, and their bytes. Beyond a limit, one of the larger is abandoned."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0


class Incoming:
    """One reply.

    `most`: bytes of its body, unpacked; `together`: bytes of all bodies under way. `kept`: bytes of the body that are
    kept; None: all. `bodiless`: it replies to a HEAD. `idle_s`: how long it may stand still.
    """

    status = size = 0
    length: int | None = None
    headers: Mapping[bytes, bytes] = {}
    _under_way = False
    _coding = _first = b""
    _unpack: "zlib._Decompress | None" = None
    _rest: list[bytearray] | None = None

    def __init__(
        self,
        bodies: BodiesUnderWay,
        *,
        most: int,
        together: int,
        kept: int | None = None,
        bodiless: bool = False,
        idle_s: float | None = None,
    ) -> None:
        self.most = most
        self.together = together
        self.kept = kept
        self.bodiless = bodiless
        self.idle_s = idle_s
        self._bodies = bodies

    def begin(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        """The head is whole; the names of its headers are in lower case.

        Raises:
            Broken: the body is announced as too large, or coded in a way that we did not offer.
        """
        self.status = status
        self.headers = headers
        length = headers.get(b"content-length", b"")
        self.length = int(length) if length.isdigit() and len(length) < 19 else None
        if b"content-encoding" in headers:
            coding = headers[b"content-encoding"].strip().lower()
            self._coding = b"" if coding == b"identity" else coding
        if (self.length or 0) > self.most and not self.bodiless:
            raise TooLarge(self.most)
        if self._coding and self.kept is None and self._coding not in CODINGS:
            raise Broken(f"its body is coded as {self._coding[:40].decode('latin-1')}")
        self._bodies.count += 1
        self._under_way = True

    def feed(self, data: bytes | memoryview) -> None:
        """Take a piece of the body. One of which only the beginning is kept is not unpacked.

        Raises:
            Broken: it is too large, or cannot be unpacked.
        """
        if not self._coding or self.kept is not None:
            self._take(data)
            return
        if self._unpack is None:
            bare = self._coding == b"deflate" and data[0] & 15 != 8  # without zlib's head, as some servers send it
            self._unpack = zlib.decompressobj(-15 if bare else CODINGS[self._coding])
        try:
            for at in range(0, len(data), PACKED_PIECE):
                left: bytes | memoryview = data[at : at + PACKED_PIECE]
                while left and not self._unpack.eof:
                    self._take(self._unpack.decompress(left, PIECE))
                    left = self._unpack.unconsumed_tail
        except zlib.error:
            raise Broken("its body cannot be unpacked") from None

    def end(self) -> None:
        """The body is whole.

        Raises:
            Broken: a coded body breaks off.
        """
        self._leave()
        if self._unpack is not None and not self._unpack.eof:
            raise Broken("its body cannot be unpacked")

    def drop(self) -> None:
        """Forget the body: the reply failed, and its error may live long."""
        self._leave()
        self._first, self._unpack, self._rest = b"", None, None

    @property
    def body(self) -> bytes:
        """What is kept of the body."""
        return self._first if self._rest is None else b"".join((self._first, *self._rest))

    @property
    def coded(self) -> bool:
        """Whether its `length` is not that of the body unpacked."""
        return bool(self._coding)

    def header(self, name: bytes) -> str:
        """The value of a header, by its name in lower case; "" if there is none."""
        return self.headers.get(name, b"").decode("utf-8", "surrogateescape")

    @property
    def content_type(self) -> str:
        return self.header(b"content-type").partition(";")[0].strip().lower() or "application/octet-stream"

    def _take(self, data: bytes | memoryview) -> None:
        bodies = self._bodies
        self.size += len(data)
        if self.kept is None:
            bodies.total += len(data)
        if self.size > self.most:
            raise TooLarge(self.most)
        if self.kept is not None:
            if len(self._first) < self.kept:
                self._first += data[: self.kept - len(self._first)]
            return
        if bodies.total > self.together and self.size * bodies.count >= bodies.total:
            raise TooLarge(self.together)
        if self.size == len(data):
            self._first = bytes(data)
            return
        # In pieces of one size: a buffer that grows is copied again and again, into ever larger holes of the memory.
        if self._rest is None:
            self._rest = [bytearray()]
        elif len(self._rest[-1]) >= PIECE:
            self._rest.append(bytearray())
        self._rest[-1] += data

    def _leave(self) -> None:
        if self._under_way:
            self._under_way = False
            self._bodies.count -= 1
            if self.kept is None:
                self._bodies.total -= self.size
