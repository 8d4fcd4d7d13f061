"""For every test: the home, cache, temporary folder and environment of a test run are its own, see the plugin."""

from __future__ import annotations

from tests.surroundings import (  # noqa: F401 - pytest finds hooks by their names
    pytest_collection,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_report_header,
    pytest_runtest_call,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_unconfigure,
)
