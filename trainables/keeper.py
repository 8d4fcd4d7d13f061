"""The keeper, an actor that stores the sources of a search, and the client of the processes that train trials.

    trial or host ── ask ──> keeper: files | train it | another process trains it, wait
                  ── put ──> keeper ── study folder

The first process that needs a source trains it, with the cores or the GPU of its trial. Sources travel through Ray, so
the nodes need no shared disk.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ladder_search.data.dataset import Dataset
from ladder_search.errors import ResourceError, StudyFolderError

if TYPE_CHECKING:  # PyTorch, which the keeper and thin trials do without
    import torch
    from torch import nn

    from ladder_search.bundles.bundle import Bundle
    from ladder_search.bundles.stages import Stage
    from ladder_search.trial import TrialSpec

PATIENCE_SECONDS, PATIENCE_EPOCHS = 120.0, 5
"""Silence after which a process that trains a source is considered dead: seconds until its first epoch, which may
compile, and then multiples of its longest epoch, at least 15 s."""
_LEAST_SECONDS = 15.0
_POLL_SECONDS = 0.3

Files = dict[str, bytes]
"""A bundle: file name -> content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The state of a source. By default, another process is training it."""

    files: Files | None = None
    failure: str = ""
    train: bool = False


class Keeper:
    """A Ray actor that holds every source of a search, in memory and in the study folder."""

    def __init__(self, folder: str, data: Mapping[str, Any]) -> None:
        """Args: ``folder``: folder of the bundles; ``data``: data set name -> a list with its object reference."""
        self._folder, self._data = Path(folder), data
        self._files: dict[str, Files] = {}
        self._failures: dict[str, str] = {}
        self._heard: dict[str, float] = {}
        self._patience: dict[str, float] = {}

    def dataset(self, name: str) -> Any:
        """Return the reference of a data set, in a list so that Ray does not resolve it."""
        return self._data[name]

    def ask(self, key: str) -> Answer:
        if key not in self._files and (self._folder / key).is_dir():  # from an earlier run of the search
            self._files[key] = read_files(self._folder / key)
        if key in self._files:
            return Answer(files=self._files[key])
        if key in self._failures:
            return Answer(failure=self._failures[key])
        if time.monotonic() - self._heard.get(key, float("-inf")) < self._patience.get(key, PATIENCE_SECONDS):
            return Answer()
        self._heard[key] = time.monotonic()
        self._patience.pop(key, None)
        return Answer(train=True)

    def at_work(self, key: str) -> None:
        """Record that the source's training has finished an epoch."""
        now = time.monotonic()
        epoch = now - self._heard.get(key, now)
        self._patience[key] = max(_LEAST_SECONDS, PATIENCE_EPOCHS * epoch, self._patience.get(key, 0.0))
        self._heard[key] = now

    def put(self, key: str, files: Files) -> None:
        """Store a trained source; the first one counts. If the disk fails, the source stays in memory only."""
        if key not in self._files:
            from ladder_search.disk.folders import write_folder

            self._files[key] = files
            with suppress(StudyFolderError):
                write_folder(self._folder / key, files, replace=True)

    def fail(self, key: str, why: str) -> None:
        """Record that the source cannot be trained."""
        self._failures[key] = why

    def give_up(self, key: str) -> None:
        """Allow the next process to train the source: this process failed, not the source."""
        self._heard.pop(key, None)


def open_keeper(folder: Path, data: Mapping[str, Dataset], ready: Mapping[str, Path], *, name: str) -> Any:
    """Start a keeper on this node, owned by this process, and return its handle; ``ready``: key -> bundle folder."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # One call at a time, so that `ask` has a strict order.
    keeper: Any = ray.remote(Keeper).options(name=name, num_cpus=0, scheduling_strategy=here)
    handle = keeper.remote(str(folder), {which: [ray.put(dataset)] for which, dataset in data.items()})
    ray.get([handle.put.remote(key, read_files(place)) for key, place in ready.items()])
    return handle


class KeptSources:
    """A process's client of the keeper; see ``ladder_search.bundles.stages.Networks``."""

    def __init__(self, keeper: str, device: torch.device) -> None:
        self._keeper: Any = ray.get_actor(keeper)
        self._device = device
        self._known: dict[str, Bundle] = {}
        self._one_at_a_time = threading.Lock()

    def networks(self, spec: TrialSpec, draw: int = 0) -> dict[str, nn.Module]:
        """Return the networks of a trial's stages, or raise ``ResourceError`` if a source could not be trained."""
        from ladder_search.bundles.stages import stages_of

        with self._one_at_a_time:
            return {name: self._bundle(stage).module() for name, stage in stages_of(spec, draw).items()}

    def _bundle(self, stage: Stage) -> Bundle:
        key = stage.key
        while key not in self._known:
            answer: Answer = ray.get(self._keeper.ask.remote(key))
            if answer.files is not None:
                self._known[key] = _unpacked(answer.files)
            elif answer.failure:
                raise ResourceError(answer.failure)
            elif answer.train:
                self._train(stage)
            else:
                time.sleep(_POLL_SECONDS)
        return self._known[key]

    def _train(self, stage: Stage) -> None:
        from ladder_search.bundles.shelf import train_stage

        try:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder) / stage.key
                dataset = ray.get(ray.get(self._keeper.dataset.remote(stage.config.data.name))[0])
                train_stage(stage, dataset, place, device=self._device, report=lambda *_: self._still_there(stage.key))
                ray.get(self._keeper.put.remote(stage.key, read_files(place)))
        except ResourceError as error:
            ray.get(self._keeper.fail.remote(stage.key, str(error)))
        except BaseException:
            self._keeper.give_up.remote(stage.key)
            raise

    def _still_there(self, key: str) -> None:
        self._keeper.at_work.remote(key)


def read_files(folder: Path) -> Files:
    """Return the files of a bundle; they are checked when unpacked."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def _unpacked(files: Files) -> Bundle:
    from ladder_search.bundles.bundle import read_bundle

    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return read_bundle(Path(folder))
