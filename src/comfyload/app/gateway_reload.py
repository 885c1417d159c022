"""A gateway takes its configuration anew while it runs: the policy, the servers and the certificate."""

import ssl
from collections.abc import Callable, Mapping

from yarl import URL

from comfyload.app.gateway_options import GatewayOptions
from comfyload.errors import UsageError
from comfyload.gateway.binding import late_bound
from comfyload.gateway.service import Gateway

FIXED = ("ledger", "host", "port", "tokens", "operators", "allowed_hosts", "keep_workflow", "uploads_gb")
"""What takes a restart to change."""


async def reload(
    gateway: Gateway,
    before: GatewayOptions,
    read: Callable[[Mapping[URL, str]], GatewayOptions],
    tls: ssl.SSLContext | None,
    note: Callable[[str], None],
) -> GatewayOptions:
    """Read the options and go by them; what holds now. Where they are not valid, nothing changes.

    Servers that an operator had join or leave stay as they are, unless the file says something new of them.
    """
    fleet = gateway.fleet
    names = {member.given.url: member.name for member in fleet.members if not member.leaving}
    try:
        after = read(names)
        if tls is not None and after.tls is not None:
            load_certificate(tls, after.tls)
    except UsageError as error:
        note(f"reload: {error}; nothing was changed")
        return before
    old, new = ({given.name: given for given in options.servers} for options in (before, after))
    gone = [name for name in old if old[name] != new.get(name)]
    changes = [f"{name} leaves" for name in gone if fleet.leave(name)]
    for name, given in new.items():
        if given != old.get(name) and await fleet.put(given):
            changes.append(f"{name} joins")
    if after.policy != before.policy:
        gateway.adopt(late_bound(after.policy))
        changes.append("the retry policy is another")
    fixed = [name for name in FIXED if getattr(after, name) != getattr(before, name)]
    if fixed:
        changes.append(f"{', '.join(fixed)}: restart the gateway to change it")
    note(f"reload: {'; '.join(changes) or 'nothing has changed'}")
    return after


def load_certificate(tls: ssl.SSLContext, files: tuple[str, str]) -> None:
    """Take the certificate for connections from now on.

    Raises:
        UsageError: it cannot be read, or the key is another's.
    """
    try:
        tls.load_cert_chain(*files)
    except OSError as error:
        text = f"--tls-cert {files[0]}, --tls-key {files[1]}: {error.strerror or error}"
        raise UsageError(text, "give PEM files that belong together") from None
