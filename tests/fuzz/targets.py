"""The table of what is fuzzed."""

from __future__ import annotations

from tests.fuzz import of_commands, of_files, of_gateway, of_input, of_page, of_routes, of_server
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {
    target.name: target
    for target in [
        *of_commands.TARGETS,
        *of_server.TARGETS,
        *of_files.TARGETS,
        *of_input.TARGETS,
        *of_routes.TARGETS,
        *of_gateway.TARGETS,
        *of_page.TARGETS,
    ]
}
