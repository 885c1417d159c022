"""Settings of all tests."""

from hypothesis import settings

# How long an example takes says what else the machine is doing: tests that are about time are marked `alone`.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
