"""The exception tree: every error says what is wrong, how to fix it, and the exit code of the process.

ComfyloadError
├── UsageError            2   the command or its input is not valid
│   ├── WorkflowError         ComfyUI cannot run the graph
│   └── RunFilesError         a run directory is missing, damaged or exists already
├── ServerUnreachable     4   no ComfyUI answers at that address
│   ├── NotComfyUI            something answers, but it is not a ComfyUI
│   └── NotLetIn              the server, or a gateway in front of it, refuses access
├── NothingMeasured       5   the run ended without a number to report
├── OwnFault              70  an error in comfyload itself
└── JobFailed             1   a job did not complete (raised on request)

Exit codes: 0 ok · 1 a gate failed · 2 usage or bad input · 3 undecided · 4 server unreachable · 5 run invalid or
nothing measured · 70 an error in comfyload · 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from comfyload.record.model import Execution, Failure, FailureKind

INTERRUPTED = 130
READER_GONE = 141
"""The shell's exit code for a program that SIGPIPE ended (`| head`)."""


class ComfyloadError(Exception):
    """What went wrong, in one line, with a `hint` that says how to fix it."""

    exit_code: ClassVar[int] = 1
    lines: ClassVar[bool] = False
    """Whether the message has several lines; else a break in it comes from outside."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(ComfyloadError):
    """The command or its input is not valid."""

    exit_code = 2


class WorkflowError(UsageError):
    """The graph is not one that ComfyUI can run."""


class RunFilesError(UsageError):
    """A run directory is missing, damaged or already there."""


@contextmanager
def file_errors(what: str, hint: str = "", kind: type[UsageError] = RunFilesError) -> Iterator[None]:
    """Turn an error of the system into one of this kind: `what` could not be done, and why."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: {error.strerror or error}", hint) from None


class ServerUnreachable(ComfyloadError):
    """Nothing answers as a ComfyUI at that address."""

    exit_code = 4


class NotComfyUI(ServerUnreachable):
    """Something answers, but it is not a ComfyUI."""


class NotLetIn(ServerUnreachable):
    """The server, or a guard before it, refuses us."""


class NothingMeasured(ComfyloadError):
    """The run ended without a number to report."""

    exit_code = 5


class OwnFault(ComfyloadError):
    """an error in comfyload itself. `cause`: what was raised. `run`: the run directory that it happened in."""

    exit_code = 70

    def __init__(self, cause: BaseException, run: Path | None = None) -> None:
        first = cause
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        super().__init__(f"comfyload made a mistake: {type(first).__name__}: {first}".rstrip(": "))
        self.cause = cause
        self.run = run


class JobFailed(ComfyloadError):
    """A job did not complete, and its caller wants an exception for that: `execution` says how it ended."""

    def __init__(self, message: str, execution: Execution) -> None:
        super().__init__(message)
        self.execution = execution

    def __reduce__(self) -> tuple[type[JobFailed], tuple[str, Execution]]:
        """Errors are carried between processes, as by a queue of jobs."""
        return type(self), (self.message, self.execution)

    @property
    def failure(self) -> Failure | None:
        """Why; None: that is not known."""
        return self.execution.failure

    @property
    def kind(self) -> FailureKind | None:
        """What kind of failure it was."""
        return None if self.failure is None else self.failure.kind
