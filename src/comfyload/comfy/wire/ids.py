"""The ids of prompts."""

import uuid


def is_uuid(value: object) -> bool:
    """Whether it is a UUID in the one form a server accepts: canonical, lower case, hyphenated."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False
