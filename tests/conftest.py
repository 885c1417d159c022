"""Settings of all tests."""

import os

from hypothesis import settings

# Runs of tests that are started in this project's folder must leave nothing in its log.
os.environ["COMFYLOAD_LIVE_LOG"] = "off"

# How long an example takes says what else the machine is doing: tests that are about time are marked `alone`.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
