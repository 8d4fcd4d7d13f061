"""Trials and hosts that leave a trace, for ``watched_search.py``; like the real ones, they bring PyTorch with them only
where it trains.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.e2e.stepping_clock import CLOCK
from trainables.base import PackTrainable
from trainables.desk import Desk, open_desk
from trainables.pack_host import PackHost

if TYPE_CHECKING:  # it imports PyTorch
    from trainables.host import Host


def trace(key: str, epoch: int) -> None:
    """Leave a line for an epoch that a trial has trained in this process."""
    _write("WATCHED_EPOCHS", f"{key} {epoch} {os.getpid()}")


def _write(variable: str, line: str) -> None:
    if variable in os.environ:
        file = os.open(os.environ[variable], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(file, f"{line}\n".encode())
        os.close(file)


class WatchedHost(PackHost):
    """A host that leaves a trace of each epoch of each trial."""

    def _host_in_use(self) -> Host:
        if "WATCHED_FAKE_GPU" in os.environ:
            self._how = {**self._how, "device": "cpu"}
        host = super()._host_in_use()
        host.told = trace
        return host


class WatchedDesk(Desk):
    """Its hosts are watched."""

    host = WatchedHost


class Watched(PackTrainable):
    """A trial that leaves a trace of each epoch, also of those that are trained again after a fault."""

    open_desk = staticmethod(partial(open_desk, WatchedDesk))

    def setup(self, config: dict[str, Any], dataset: Any = None) -> None:
        CLOCK.start()
        super().setup({**config, "device": "cpu"} if "WATCHED_FAKE_GPU" in os.environ else config, dataset)
        if config["desk"] is None:
            self._seat.host.told = trace  # type: ignore[attr-defined]

    def step(self) -> dict[str, Any]:
        _write("WATCHED_TRIALS", f"{self.config['key']} {os.getpid()} {int('torch' in sys.modules)}")
        return super().step()
