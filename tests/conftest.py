"""For every test: one thread, so that several test processes share a machine, and one place of compiled programs."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read by torch when it is first imported, which is after this

from ladder_search.training.compiling import keep_programs

# A program that another test process, or an earlier run, has compiled is found; the header of all programs, which takes
# a compiler the longest, is compiled once. Tests that name a cache of their own change nothing about it.
keep_programs()
