"""Late binding: a job stays here, where it can be moved, cancelled and ordered, until a server is about to need it."""

from msgspec import structs

from comfyload.record.policy import Policy

PREFETCHED = 1
"""Prompts that wait on a server behind the one that runs: more would only be harder to move, cancel and order."""


def late_bound(policy: Policy) -> Policy:
    """The policy with no more than PREFETCHED prompts waiting on a server."""
    depth = policy.admission.depth
    within = PREFETCHED if depth is None else min(PREFETCHED, depth)
    return structs.replace(policy, admission=structs.replace(policy.admission, depth=within))
