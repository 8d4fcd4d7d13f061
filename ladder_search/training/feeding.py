"""Data sets on a device, prepared for a member's training and evaluation, and adapted statistics of earlier stages."""

from __future__ import annotations

import copy
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ladder_search.data.dataset import Dataset
from ladder_search.data.music import FlatCorpus
from ladder_search.data.occluded import Renderer
from ladder_search.data.occluded_sets import FIXED_SEED, TEST, VALIDATION, stream_key
from ladder_search.data.whitening import Whitening, fit
from ladder_search.metrics import AMI
from ladder_search.nn.network import Network
from ladder_search.training.evaluation import labelled_statistics
from ladder_search.training.feeds import Feed, MovingDigits, ScaledRows, TrainingData
from ladder_search.training.grouped_feed import GroupedImages
from ladder_search.training.member import MemberSpec
from ladder_search.training.music_feed import MusicFeed

_ADAPTED_ROWS = 100
_KEPT = 2
"""Data sets kept on a device: a trial's and its sources', which two threads of a host use alternately."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    feed: Feed
    whitening: Whitening | None


_prepared: OrderedDict[tuple[object, ...], _Prepared] = OrderedDict()
_lock = threading.Lock()
"""Guards ``_prepared``."""


def training_feed(member: MemberSpec, dataset: Dataset, device: torch.device) -> Feed:
    """Return the training set on ``device``, prepared for the member."""
    return _prepare(member, dataset, device).feed


def whitening_of(member: MemberSpec, dataset: Dataset, device: torch.device) -> Whitening | None:
    """Return the whitening applied to the member's images; None if there is none."""
    return _prepare(member, dataset, device).whitening


def feed_of_test_set(member: MemberSpec, dataset: Dataset, device: torch.device) -> Feed:
    """Return the test set, prepared in the same way; for final training only."""
    whitening = whitening_of(member, dataset, device)
    x, y = _tensor(dataset.test_x, device), _tensor(dataset.test_y, device).long()
    if whitening is not None:
        return TrainingData(x=whitening(x), y=y, full_scale=1.0)
    pieces = dataset.pieces
    if pieces is not None:
        corpus = FlatCorpus(notes=dataset.test_x, first=pieces.test_first, lengths=pieces.test_lengths)
        everything = np.arange(len(corpus.lengths))
        return MusicFeed(corpus, x, training=everything, judged=everything)
    return _feed(member, dataset, x, y, TEST)


def adapted(source: nn.Module, dataset: Dataset, rows: NDArray[np.int64], scale: float) -> Network:
    """Return a copy of a network with batch statistics of another data set's rows (AdaBN, Li et al. 2016).

    Labels are not used; minibatches of 100 rows are averaged, an incomplete one is dropped. ``scale`` multiplies pixels
    in 0..1.
    """
    network = copy.deepcopy(source)
    assert isinstance(network, Network)
    size = min(_ADAPTED_ROWS, len(rows))
    batches = torch.from_numpy(rows[: len(rows) // size * size].reshape(1, -1, size))
    params = {name: value.detach().unsqueeze(0) for name, value in network.named_parameters()}
    x, y = (_tensor(array, torch.device("cpu")) for array in (dataset.train_x, dataset.train_y))
    feed = TrainingData(x=x, y=y, full_scale=dataset.full_scale / scale)
    statistics = labelled_statistics(network, params, feed, batches)
    network.load_state_dict({name: value[0] for name, value in statistics.items()}, strict=False)
    return network


def _prepare(member: MemberSpec, dataset: Dataset, device: torch.device) -> _Prepared:
    """Return the training set on the device; the most recently used ones are cached."""
    rows = member.training.labelled_batch + member.training.unlabelled_batch
    shape, validates = member.model.example_shape, len(member.split.validation) > 0
    scored = AMI.name in member.model.measures
    key = (dataset.digest, device, member.data, shape, validates, rows, scored)
    with _lock:
        prepared = _prepared.pop(key, None)
        if prepared is None:
            while len(_prepared) >= _KEPT:  # before memory is allocated for the next one
                _prepared.popitem(last=False)
            x, y = _tensor(dataset.train_x, device), _tensor(dataset.train_y, device).long()
            if member.data and not member.scalings:
                whitening = fit(x[torch.from_numpy(np.sort(member.split.unlabelled)).to(device)])
                prepared = _Prepared(TrainingData(x=whitening(x), y=y, full_scale=1.0), whitening)
            else:
                prepared = _Prepared(_feed(member, dataset, x, y, VALIDATION), None)
        _prepared[key] = prepared
        return prepared


def _feed(member: MemberSpec, dataset: Dataset, x: Tensor, y: Tensor, part: int) -> Feed:
    """Return the feed of a data set's rows; ``part`` selects the fixed sequences of moving digits."""
    moving, pieces, grouped, training = dataset.moving, dataset.pieces, dataset.grouped, member.training
    if pieces is not None:
        corpus = FlatCorpus(notes=dataset.train_x, first=pieces.first, lengths=pieces.lengths)
        return MusicFeed(corpus, x, training=member.split.unlabelled, judged=member.split.validation)
    numbers = torch.arange(training.labelled_batch + training.unlabelled_batch, device=x.device)
    if grouped is not None:
        return GroupedImages(
            x=x,
            y=y,
            full_scale=dataset.full_scale,
            scene=grouped.scene,
            painter=grouped.scene.painter(grouped.material, x.device),
            part=part,
            n_classes=dataset.n_classes,
            numbers=numbers,
            shape=member.model.example_shape,
            scored=AMI.name in member.model.measures,
        )
    if member.scalings:
        return ScaledRows.of(x, y, dataset.full_scale, member.scalings)
    if moving is None:
        return TrainingData(x=x, y=y, full_scale=dataset.full_scale)
    return MovingDigits(
        x=x,
        y=y,
        full_scale=dataset.full_scale,
        renderer=Renderer(moving.scene, x.device),
        fixed_key=stream_key(FIXED_SEED, part),
        reconstructed=moving.reconstructed,
        numbers=numbers,
        shape=member.model.example_shape,
    )


def _tensor(array: Any, device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        # Memory-mapped arrays are read-only; data sets are never written to.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)
