"""For every test: one thread, so that several test processes share a machine without waiting for each other."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read by torch when it is first imported, which is after this
