"""The feed of music: windows of pieces for training, whole pieces for evaluation.

In training, every row of a batch plays pieces window by window and carries its state on; a new piece starts with a zero
state. Evaluations play each piece from its start, in groups of similar length. As in the published code, a piece's
first step, which is predicted from silence, is not scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data.music import FlatCorpus
from ladder_search.data.music_batches import Segments, Steps, WindowStream, evaluation_batches, steps, whole
from ladder_search.nn.protocol import Windows
from ladder_search.training.member import MemberSpec

_STATISTICS_SEED = 1
_STATISTICS_WINDOWS = 8


class MusicFeed:
    """A feed of pieces of music, see ``feeds.Feed``; row indices in evaluations are indices of its pieces."""

    def __init__(
        self, corpus: FlatCorpus, x: Tensor, *, training: NDArray[np.int64], judged: NDArray[np.int64]
    ) -> None:
        """Args:
        x: the corpus's notes on the device.
        training: pieces for training, or for statistics.
        judged: pieces for evaluation.
        """
        self.x = x
        self.y = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self._corpus, self._lengths, self._judged = corpus, corpus.lengths[training], judged
        self._chunks: dict[int, list[tuple[Tensor, ...]]] = {}
        self._statistics: tuple[Tensor, ...] = ()

    def stream(self, spec: MemberSpec) -> MusicStream:
        return MusicStream(spec, self._corpus)

    def rows(self, spec: MemberSpec) -> tuple[int, int]:
        return spec.labelled_rows * spec.training.window, 0

    def gather(
        self, x: Tensor, y: Tensor, rows: Sequence[Tensor], keys: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        inputs, targets, continues = rows
        return x[inputs].to(dtype), x[targets].to(dtype), targets > 0, continues > 0

    def batch(self, gathered: Sequence[Tensor], carried: Mapping[str, Tensor]) -> Windows:
        inputs, targets, present, continues = gathered

        def kept(value: Tensor) -> Tensor:
            return torch.where(continues.view(-1, *(1,) * (value.dim() - 1)), value, 0.0)

        state = {name: kept(value) for name, value in carried.items()}
        return Windows(inputs=inputs, targets=targets, present=present, scored=present, carried=state)

    def minibatches(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        # The same windows for every member, from the start or the middle of a piece, without a state.
        if not self._statistics:
            width = int(min(self._lengths.max(), 64))
            stream = WindowStream(self._lengths, rows=16, width=width, seed=_STATISTICS_SEED)
            windows = steps(self._corpus, stream.windows(0, _STATISTICS_WINDOWS), width)
            self._statistics = self._on_device(windows.inputs, windows.present)
        inputs, present = self._statistics
        shape = (len(rows), *present.shape)
        return self.x[inputs].to(dtype).expand(*shape, -1), present.expand(shape)

    def chunks(self, rows: Tensor, at_once: int, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
        members = len(rows)
        for inputs, targets, scored in self._pieces(at_once):
            tensors = (self.x[inputs].to(dtype), self.x[targets].to(dtype), scored)
            yield tuple(value.expand(members, *value.shape) for value in tensors)

    def everything(self) -> Tensor:
        return torch.from_numpy(self._judged).to(self.x.device)

    def _pieces(self, at_once: int) -> list[tuple[Tensor, ...]]:
        """Return tables of whole pieces, cached: a captured program must not synchronise with the host."""
        if at_once not in self._chunks:
            lengths = self._corpus.lengths
            batches = evaluation_batches(lengths[self._judged], max(1, at_once))
            self._chunks[at_once] = [self._whole(self._judged[batch]) for batch in batches]
        return self._chunks[at_once]

    def _whole(self, pieces: NDArray[np.int64]) -> tuple[Tensor, ...]:
        segments = whole(pieces, self._corpus.lengths)
        tables = steps(self._corpus, segments, int(segments.length.max()), score_first=False)
        return self._on_device(tables.inputs, tables.targets, tables.scored)

    def _on_device(self, *arrays: NDArray[np.int64] | NDArray[np.bool_]) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(array).to(self.x.device) for array in arrays)


class MusicStream:
    """The windows of a member's training, see ``feeds.Stream``."""

    def __init__(self, spec: MemberSpec, corpus: FlatCorpus) -> None:
        training = spec.training
        self._corpus, self._pieces, self._width = corpus, spec.split.labelled, training.window
        lengths = corpus.lengths[self._pieces]
        self._windows = WindowStream(lengths, rows=training.labelled_batch, width=training.window, seed=spec.seed)

    def tables(self, start: int, count: int) -> tuple[NDArray[np.int64], ...]:
        windows = self._windows.windows(start, count)
        segments = Segments(
            piece=self._pieces[windows.piece], start=windows.start, length=windows.length, continues=windows.continues
        )
        played: Steps = steps(self._corpus, segments, self._width)
        return played.inputs, played.targets, segments.continues.astype(np.int64)

    def statistics_rows(self) -> NDArray[np.int64]:
        return np.zeros((1, 1), np.int64)  # unused: the feed has its own
