"""Makes odd inputs of valid ones: JSON by its structure, any text by its bytes. Seeded, and fast: it splices."""

from __future__ import annotations

import re
from random import Random

__all__ = ["Mutations"]

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')

SCALARS = (
    *(b"null", b"true", b"false", b"0", b"-1", b"1", b"-0.0", b"0.5", b"1e308", b"-1e308", b"5e-324", b"1e400"),
    *(b"NaN", b"Infinity", b"-Infinity", b"2147483648", b"4294967296", b"9223372036854775807", b"9007199254740993"),
    *(b"18446744073709551616", b"-9223372036854775809", b"1" + b"0" * 400, b"1000000000000000"),
    *(b'""', b'"1"', b'"-1"', b'"x"', b'"NaN"', b'"inf"', b'"1e999"', b'"p"', b'"true"', b'"2026-01-01T00:00:00"'),
    *(b'"0001-01-01T00:00:00+14:00"', b'"9999-12-31T23:59:59-14:00"', b'"../../etc/passwd"', b'"/"', b'"C:\\\\x"'),
    *(
        b'"\\ud83d"',
        b'"\\udce9.png"',
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
        b'"\\u0000"',
        b'"\\u001b[2J\\u009b"',
        b'"\\u202e"',
    ),
    *(b'"\\u2028\\n\\r"', b'"[/b][red]"', b"[]", b"{}", b"[[]]", b'{"":{}}', b"[null]", b"[1,[2]]", b'{"a":1,"a":2}'),
)
"""Values that some decoder somewhere takes for another."""

LARGE = (
    b"9" * 5000,
    b'"' + b"1" * 5000 + b'"',
    b'"' + b"A" * 100_000 + b'"',
    b'{"' + b"k" * 20_000 + b'":1}',
    b"[" + b"0," * 5000 + b"0]",
    *(b"[" * levels + b"]" * levels for levels in (50, 120, 250, 330, 480, 700, 990, 3000)),
    *(b'{"a":' * levels + b"1" + b"}" * levels for levels in (50, 120, 250, 330, 480, 700, 990, 3000)),
    b"[" * 100_000,
)
"""The same, of a size that costs: drawn less often."""

BITS = (
    *(
        b"\0",
        b"\n",
        b"\r\n",
        b"\xff",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xb3\xa9",
        b"\x1b[31m",
        b"\xc2\x9b",
        b"\xe2\x80\xae",
    ),
    *(
        b"=",
        b",",
        b";",
        b":",
        b".",
        b"..",
        b"@",
        b"/",
        b"%",
        b"*",
        b"-",
        b"+",
        b" ",
        b"\t",
        b'"',
        b"'",
        b"[",
        b"]",
        b"{",
        b"}",
    ),
    *(b"0", b"1", b"-1", b"1e400", b"nan", b"inf", b"9" * 400, b"1" * 5000, b"\xd9\xa3", b"\xc2\xb2", b"\xe0\xa5\xa7"),
    *(
        b"(",
        b")",
        b"(?:a*)*b",
        b"\\",
        b"\\u",
        b"#",
        b"<",
        b">",
        b"&#xD800;",
        b"&#99999999999;",
        b"env:NOT_THERE",
        b"true",
    ),
    *(
        b"2026-11-23T12:00:00Z",
        b"9999-12-31",
        b"A" * 2000,
        b" " * 5000,
        b"\xf0\x9f\x92\xa9",
        b"://",
        b"[::1]",
        b"?",
        b"\\ud800",
    ),
)
"""What is spliced into any text."""


class Mutations:
    """An endless supply of inputs like `seeds`, and unlike them."""

    def __init__(self, seeds: list[bytes], random: Random) -> None:
        self._seeds = seeds or [b""]
        self._spans = [_spans(seed) for seed in self._seeds]
        self._random = random

    def next(self) -> bytes:
        random = self._random
        at = int(random.random() * len(self._seeds))
        seed, spans = self._seeds[at], self._spans[at]
        if spans and random.random() < 0.8:
            seed = self._by_structure(seed, spans)
            if random.random() < 0.9:
                return seed
        for _ in range(1 + int(random.random() * 3)):
            seed = self._by_bytes(seed)
        return seed

    def _by_structure(self, seed: bytes, spans: list[tuple[int, int]]) -> bytes:
        """Some values of the JSON replaced, from the right to the left, so that the places before them stay."""
        random = self._random
        count = 1 + int(random.random() * 2.5)
        edge = len(seed) + 1
        for begin, end in sorted((random.choice(spans) for _ in range(count)), reverse=True):
            if end > edge:
                continue
            seed = seed[:begin] + self._value(seed[begin:end]) + seed[end:]
            edge = begin
        return seed

    def _value(self, before: bytes) -> bytes:
        random, kind = self._random, self._random.random()
        if kind < 0.7:
            return random.choice(SCALARS)
        if kind < 0.74:
            return random.choice(LARGE)
        if kind < 0.8:
            return b"[" + before + b"]"
        if kind < 0.85:
            return b'"' + before.replace(b'"', b"")[:200] + b'"'
        if kind < 0.9:
            return before + b"," + before  # a list's item, or a member, twice
        other = int(random.random() * len(self._seeds))
        begin, end = random.choice(self._spans[other] or [(0, 0)])
        return self._seeds[other][begin:end] or b"0"

    def _by_bytes(self, seed: bytes) -> bytes:
        random, kind = self._random, self._random.random()
        begin = int(random.random() * (len(seed) + 1))
        end = min(len(seed), begin + 1 + int(random.random() ** 3 * 20))
        if kind < 0.4:
            return seed[:begin] + random.choice(BITS) + seed[begin:]
        if kind < 0.6:
            return seed[:begin] + random.choice(BITS) + seed[end:]
        if kind < 0.75:
            return seed[:begin] + seed[end:]
        if kind < 0.85:
            return seed[:begin] + bytes([int(random.random() * 256)]) + seed[begin + 1 :]
        if kind < 0.9:
            return seed[:begin]
        if kind < 0.95:
            return seed[:begin] + seed[begin:end] * (2 + int(random.random() * 50)) + seed[end:]
        other = random.choice(self._seeds)
        return seed[:begin] + other[int(random.random() * (len(other) + 1)) :]


def _spans(seed: bytes) -> list[tuple[int, int]]:
    """Where in the JSON each value and each key is; none in what is no JSON."""
    if seed.lstrip()[:1] not in (b"{", b"["):
        return []
    found, begun = list[tuple[int, int]](), list[int]()
    for token in _TOKEN.finditer(seed):
        if token[0] in b"[{":
            begun.append(token.start())
        elif token[0] in b"]}":
            if begun:
                found.append((begun.pop(), token.end()))
        elif token[0] not in b",:":
            found.append(token.span())
    return found
