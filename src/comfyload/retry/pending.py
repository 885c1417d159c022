"""One job over all its attempts: the prompt that is sent now, and who gets its events."""

import asyncio
from collections.abc import Callable

from msgspec import structs

from comfyload.record.job_events import JobEvent, Retrying, Sending
from comfyload.record.model import Failure, Prompt
from comfyload.record.policy import Policy
from comfyload.retry.attempt_log import AttemptLog, id_of
from comfyload.retry.decide import PendingJob


class PendingPrompt(PendingJob):
    """One job over all its attempts, with the prompt that is sent now. `tell` is called with each event of the job."""

    def __init__(
        self, prompt: Prompt, began: float, policy: Policy, tell: Callable[[JobEvent], None] | None = None
    ) -> None:
        super().__init__(prompt.id, prompt.workflow, began, policy)
        self.tell = tell
        self.prompt = prompt
        self.abandoned: Failure | None = None
        """Why the job was given up; None while it was not."""
        self.over = asyncio.Event()
        """Set when its waits must end."""
        self.failed = False
        """Whether it has failed and is on no server now: it is to be sent again."""
        self.given_up = False
        """Whether it is not sent again, whatever the policy says."""
        self.log = AttemptLog(prompt.id, began)

    def send_as(self, prompt: Prompt) -> None:
        """Send this prompt from now on, under its own id."""
        self.prompt, self.id = prompt, prompt.id

    def send_under(self, number: int) -> None:
        """Send it from now on under the id of that number."""
        self.log.number = number
        self.send_as(structs.replace(self.prompt, id=id_of(self.log.first, number)))

    def tell_sending(self, server: str) -> None:
        """Note and report that the job is sent to that server."""
        self.failed = False
        if self.tell is not None:
            self.tell(Sending(server=server, prompt_id=self.prompt.id, attempt=len(self.log.attempts) + 1))

    def tell_retrying(self, why: Failure, wait_s: float, server: str, rule: str, of: int | None = None) -> None:
        """Report that the job is sent again. `server`: where it was; `rule`: by which rule; `of`: attempts at most."""
        if self.tell is not None:
            event = Retrying(
                attempt=len(self.log.attempts) + 1,
                why=why.kind,
                message=why.message,
                wait_s=wait_s,
                of=of,
                rule=rule,
                prompt_id=self.prompt.id,
                server=server,
            )
            self.tell(event)
