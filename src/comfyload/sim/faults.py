"""What can be made to go wrong with a simulated server, and when."""

import random

from msgspec import Struct


class Which(Struct, frozen=True, kw_only=True):
    """Which prompts, from 1 over the server's whole life: those listed, every n-th, a share at random."""

    at: tuple[int, ...] = ()
    every: int = 0
    share: float = 0.0

    def hits(self, ordinal: int, rng: random.Random) -> bool:
        if ordinal in self.at or (self.every and ordinal % self.every == 0):
            return True
        return self.share > 0.0 and rng.random() < self.share


NEVER = Which()


class Faults(Struct, frozen=True, kw_only=True):
    """All off by default. Prompts are counted as they start; posts as they are accepted.

    While a prompt runs:
        node_error: the node `error_class` (the first that runs where it is empty) raises `error_type`.
        nan_in_error: its `execution_error` carries a bare NaN, as a real one can.
        oom: the first sampler (or first node) raises torch.OutOfMemoryError and all models are unloaded.
        slow: takes `slow_factor` times as long.
        hang: its first node takes `hang_s` longer and does not notice interrupts.
        partial: sends an `execution_error` of type ExecutionBlocked, and ends well.
        success_lie: fails, and its history says success.
        dead_worker: the worker dies with it: it counts as running for ever and nothing runs any more.
        restart: the server process is replaced in the middle of it, refusing connections for `downtime_s`; with
            `restart_at_s` also once, so long after the server started.
    To the calls:
        http_500: answered 500: those whose path contains it (`""` for none, `"/"` for all), only the first
            `http_500_first` of them where that is positive.
        drop_reply: the post is accepted and its reply lost.
        lost_queue: the post is accepted and the prompt then vanishes from the queue without a word.
        refuse: the call is refused before anything is sent; calls are counted from 1 as they come.
        no_history_s: a history entry shows only so long after the prompt ended.
    To the events:
        drop_socket: every socket is cut at event `drop_socket_event` of the prompt.
        stall_events: from that prompt's start nobody gets events, for `stalled_s` (then all arrive at once).
        duplicate_events: each is sent twice.
        unknown_events: messages of custom nodes, and worse, are mixed in.
    """

    node_error: Which = NEVER
    error_class: str = ""
    error_type: str = "RuntimeError"
    error_message: str = "Simulated failure"
    nan_in_error: bool = False
    oom: Which = NEVER
    slow: Which = NEVER
    slow_factor: float = 1.0
    hang: Which = NEVER
    hang_s: float = float("inf")
    partial: Which = NEVER
    success_lie: Which = NEVER
    dead_worker: Which = NEVER
    restart: Which = NEVER
    restart_at_s: float | None = None
    downtime_s: float = 0.0
    http_500: str = ""
    http_500_first: int = 0
    drop_reply: Which = NEVER
    lost_queue: Which = NEVER
    refuse: Which = NEVER
    no_history_s: float = 0.0
    drop_socket: Which = NEVER
    drop_socket_event: int = 1
    stall_events: Which = NEVER
    stalled_s: float = float("inf")
    duplicate_events: bool = False
    unknown_events: bool = False


class Plan(Struct, frozen=True, kw_only=True):
    """Which of the faults strike one prompt."""

    node_error: bool = False
    oom: bool = False
    slow: bool = False
    hang: bool = False
    partial: bool = False
    success_lie: bool = False
    dead_worker: bool = False
    restart: bool = False
    drop_socket: bool = False
    stall_events: bool = False


def plan(faults: Faults, ordinal: int, rng: random.Random) -> Plan:
    """The plan of the prompt that is the `ordinal`-th to start."""
    return Plan(**{name: getattr(faults, name).hits(ordinal, rng) for name in Plan.__struct_fields__})
