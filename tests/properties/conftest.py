"""Profiles of the property tests: pytest tests/properties --hypothesis-profile=thorough"""

from __future__ import annotations

from hypothesis import settings

# No deadline per example: the machine may be busy, and pytest's own timeout holds.
settings.register_profile("quick", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("quick")
