"""Settings that all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# The same examples on every run, so that a run says something of the change and not of the draw;
# HYPOTHESIS_PROFILE=explore draws others each time.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
