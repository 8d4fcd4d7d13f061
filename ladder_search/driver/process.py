"""Restore the process state that a search changes: environment, signal handlers and loggers."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ladder_search import environment, signals

_LOGGERS = ("", "optuna", "ray", "ray.tune", "ray.tune.execution.experiment_state")


@contextmanager
def as_before() -> Iterator[None]:
    loggers = {
        logger: (logger.level, list(logger.handlers), logger.propagate) for logger in map(logging.getLogger, _LOGGERS)
    }
    hook = sys.excepthook
    try:
        with environment.ours(), signals.restored(), warnings.catch_warnings():
            yield
    finally:
        for logger, (level, handlers, propagate) in loggers.items():
            logger.setLevel(level)
            logger.handlers[:], logger.propagate = handlers, propagate
        sys.excepthook = hook
