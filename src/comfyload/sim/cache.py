"""Which results a server still holds: a node's key, and how long each cache mode keeps its result."""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from msgspec import Struct

from comfyload.sim.frames import UNKNOWN, Frame
from comfyload.workflow.graph import is_link

MODES = ("ram", "classic", "lru", "none")
_ROOM = 20_000


class Result(Struct, frozen=True):
    """A node's stored result; `ui` is what it showed (file names, text), None if it shows nothing."""

    ui: dict[str, Any] | None
    frame: Frame = UNKNOWN


def signatures(graph: dict[str, Any], changed: Callable[[dict[str, Any]], str]) -> dict[str, bytes]:
    """Every node's cache key: its class, literal inputs, `changed(node)`, and the keys of all it depends on, as far as
    these are in the graph.

    Raises:
        KeyError: a node without inputs (this kills a real server's worker, too).
    """
    known: dict[str, bytes] = {}
    opened: set[str] = set()  # on the path down to the current node: a link back to one of them is a cycle
    for start in graph:
        # Iterative, since a chain of nodes may be deeper than Python's stack.
        stack = [start]
        while stack:
            current = stack[-1]
            if current in known:
                stack.pop()
                continue
            node = graph[current]
            opened.add(current)
            sources = [value[0] for value in node["inputs"].values() if is_link(value) and value[0] in graph]
            missing = [source for source in sources if source not in known and source not in opened]
            if missing:
                stack.extend(missing)
                continue
            known[current] = _key(node, known, changed(node))
            stack.pop()
    return known


def _key(node: dict[str, Any], known: dict[str, bytes], changed: str) -> bytes:
    inputs = [
        (name, (known.get(value[0]), value[1]) if is_link(value) else _plain(value))
        for name, value in sorted(node["inputs"].items())
    ]
    return blake2b(repr((node["class_type"], changed, inputs)).encode(), digest_size=16).digest()


def _plain(value: object) -> object:
    # Equal in Python is equal to the server: 5 == 5.0 == True + 4.
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, dict):
        return sorted((str(name), _plain(item)) for name, item in value.items())
    return [_plain(item) for item in value] if isinstance(value, list) else value


class Cache:
    """The results held between prompts.

    `classic` keeps what the current prompt could use, `lru` up to `limit` results, `none` nothing. `ram` keeps
    old results only while the host has plenty of memory to spare (`roomy`); elsewhere it acts as `classic`.
    """

    def __init__(self, mode: str, limit: int, roomy: bool) -> None:
        if mode not in MODES:
            raise ValueError(f"no cache mode {mode!r}: use one of {', '.join(MODES)}")
        # A roomy host's memory ends, too, and so does that of a long test.
        self._mode = "lru" if mode == "ram" and roomy else "classic" if mode == "ram" else mode
        self._limit = _ROOM if mode == "ram" else limit
        self._held: dict[bytes, Result] = {}
        self._generation = 0
        self._used: dict[bytes, int] = {}  # the last generation (prompt) that could use each key

    def begin(self, keys: Iterable[bytes]) -> None:
        """A prompt whose nodes have these keys starts: drop what the mode does not keep."""
        self._generation += 1
        self._used |= dict.fromkeys(keys, self._generation)
        if self._mode == "classic":
            self._drop_before(self._generation)
        elif self._mode == "lru":
            # A generation goes as a whole, as on a real server.
            for oldest in sorted({self._used[key] for key in self._held} - {self._generation}):
                if len(self._held) <= self._limit:
                    break
                self._drop_before(oldest + 1)

    def _drop_before(self, generation: int) -> None:
        self._used = {key: used for key, used in self._used.items() if used >= generation}
        self._held = {key: result for key, result in self._held.items() if key in self._used}

    def get(self, key: bytes) -> Result | None:
        return self._held.get(key)

    def put(self, key: bytes, result: Result) -> None:
        if self._mode != "none":
            self._held[key] = result

    def clear(self) -> None:
        self._held.clear()
