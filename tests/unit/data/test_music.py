"""Music: small files of the published layout, damage, sources; and the real corpora where they are."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladder_search.data import music, sources
from ladder_search.data.dataset import FETCHABLE, PRESENT
from ladder_search.errors import DataError

scipy_io = pytest.importorskip("scipy.io")

ROWS = {row.name: row for row in music.MUSIC}
LENGTHS = {"train": (3, 5), "valid": (2,), "test": (4, 1, 1)}
RANDOM = np.random.default_rng(0)
PIECES = {part: [RANDOM.integers(0, 2, (n, 88), np.uint8) for n in lengths] for part, lengths in LENGTHS.items()}


def mat(**changed: Any) -> bytes:
    """A file of the published layout: cells [1, n] of rolls."""
    variables = {}
    for part, rolls in (PIECES | changed).items():
        cells = np.empty((1, len(rolls)), object)
        cells[0, :] = [None] * len(rolls)
        for i, roll in enumerate(rolls):
            cells[0, i] = roll
        variables[f"{part}data"] = cells
    file = io.BytesIO()
    scipy_io.savemat(file, variables, do_compression=True)
    return file.getvalue()


CONTENT = mat()


def by_hand(pieces: dict[str, list[np.ndarray]]) -> str:
    sha = hashlib.sha256()
    for part in ("train", "valid", "test"):
        for piece in pieces[part]:
            sha.update(f"{part} {len(piece)}\n".encode() + piece.tobytes())
    return sha.hexdigest()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One small corpus in the table, an address that nobody answers, and no folder; returns the cache."""
    row = music.MusicSource(
        name="small",
        description="",
        file="Small.mat",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        digest=by_hand(PIECES),
        pieces=(2, 1, 3),
        pickle="Small Pieces.pickle",
    )
    monkeypatch.setitem(ROWS, "small", row)
    monkeypatch.setattr(music, "PUBLISHED", "http://127.0.0.1:9/mdata")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LADDER_SEARCH_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def folder(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    return tmp_path


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def assert_is_small(found: music.MusicCorpus) -> None:
    for part, pieces in PIECES.items():
        rolls = getattr(found, part)
        assert len(rolls) == len(pieces)
        for roll, piece in zip(rolls, pieces, strict=True):
            np.testing.assert_array_equal(roll, piece, strict=True)
            assert roll.flags["C_CONTIGUOUS"] and not roll.flags["WRITEABLE"]


@pytest.mark.parametrize("below", music.FOLDERS)
def test_the_file_in_the_users_folder(folder: Path, below: str) -> None:
    assert ROWS["small"].state() == FETCHABLE
    put(folder / below / "Small.mat")
    assert ROWS["small"].state() == PRESENT
    found = ROWS["small"].corpus()
    assert_is_small(found)
    assert found.name == "small" and found.digest == by_hand(PIECES)


def test_a_fetched_file_is_kept_and_fetched_again_when_it_is_damaged(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, said = [], []

    def fetch(url: str, *, at_most: int) -> bytes:
        asked.append((url, at_most))
        return CONTENT

    monkeypatch.setattr(sources, "fetch", fetch)
    for _ in range(2):
        assert_is_small(ROWS["small"].corpus(said.append))
    assert asked == [("http://127.0.0.1:9/mdata/Small.mat", len(CONTENT))]
    assert said == ["fetching http://127.0.0.1:9/mdata/Small.mat (0.0 MB)"] and ROWS["small"].state() == PRESENT
    kept = small / "music" / "Small.mat"
    assert kept.read_bytes() == CONTENT
    kept.write_bytes(CONTENT[:-1])
    assert_is_small(ROWS["small"].corpus(said.append))
    assert len(asked) == 2 and kept.read_bytes() == CONTENT
    assert "Small.mat must have the sha256" in said[1] and said[1].endswith("; it is fetched again.")


def test_a_cache_that_cannot_be_written_costs_a_line(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.write_text("a file where the folder would be")
    monkeypatch.setattr(sources, "fetch", lambda url, at_most: CONTENT)
    said: list[str] = []
    assert_is_small(ROWS["small"].corpus(said.append))
    assert "Small.mat cannot be written (" in said[1] and said[1].endswith("will be fetched again next time.")


def test_another_file_is_refused_before_it_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(music, "read_mat", lambda *a: pytest.fail("must not be opened"))
    monkeypatch.setattr(sources, "fetch", lambda url, at_most: b"<html>please log in</html>")
    with pytest.raises(DataError, match=r"mdata/Small.mat must have the sha256 \w{64}, found \w{64}; get the file aga"):
        ROWS["small"].corpus()
    put(folder / "music/Small.mat", CONTENT[:-1] + b"!")
    with pytest.raises(DataError, match=r"music/Small.mat must have the sha256 \w{64}, found \w{64}; get the file aga"):
        ROWS["small"].corpus()


def test_when_nothing_has_it_the_remedy_is_told(small: Path) -> None:
    with pytest.raises(DataError) as raised:
        ROWS["small"].corpus()
    text = str(raised.value)
    assert text.startswith("corpus 'small' needs Small.mat: http://127.0.0.1:9/mdata/Small.mat cannot be fetched (")
    assert (
        text.endswith(
            "put Small.mat or Small Pieces.pickle or Small_Pieces.pickle into a folder and set "
            "LADDER_SEARCH_DATA to it."
        )
        and "\n" not in text
    )


NOTES = {
    part: [[tuple(int(n) + 21 for n in np.flatnonzero(row)) for row in roll] for roll in rolls]
    for part, rolls in PIECES.items()
}


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", ["Small Pieces.pickle", "Small_Pieces.pickle"])
def test_the_authors_own_file_in_the_users_folder(folder: Path, name: str, protocol: int) -> None:
    assert ROWS["small"].state() == FETCHABLE
    put(folder / "music" / name, pickle.dumps(NOTES, protocol))
    assert ROWS["small"].state() == PRESENT
    assert_is_small(ROWS["small"].corpus())
    put(folder / "Small.mat", CONTENT[:-1])  # the published file comes first
    with pytest.raises(DataError, match=r"Small.mat must have the sha256"):
        ROWS["small"].corpus()


class _Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("it ran",)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({**NOTES, "test": NOTES["test"][::-1]}, "corpus 'small' must have the content sha256"),
        ({**NOTES, "valid": []}, "0 pieces in valid, not 1"),
        ({"train": NOTES["train"]}, "'valid'"),
        ([], "list indices"),
        ({**NOTES, "valid": [[(20,)]]}, "the note 20"),
        ({**NOTES, "valid": [[(109,)]]}, "the note 109"),
        ({**NOTES, "valid": [[("a",)]]}, "must hold the notes of train, valid, test step by step, it does not"),
        ({**NOTES, "valid": [[(21,) * 89]]}, "a step of 89 notes"),
        ({**NOTES, "valid": [[()] * 1_000_001]}, "more than 1000000 steps"),
        (_Runs(), "must hold plain values only, found a reference to builtins.print; do not use this file"),
    ],
)
def test_what_is_no_file_of_the_authors_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], found: object, reason: str
) -> None:
    put(folder / "Small Pieces.pickle", pickle.dumps(found))
    with pytest.raises(DataError, match=reason) as raised:
        ROWS["small"].corpus()
    assert "\n" not in str(raised.value) and "it ran" not in capsys.readouterr().out


def test_other_notes_than_the_tables_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, "small", dataclasses.replace(ROWS["small"], digest="0" * 64))
    put(folder / "Small.mat")
    with pytest.raises(DataError, match="corpus 'small' must have the content sha256 0{64}, what was read has "):
        ROWS["small"].corpus()


@pytest.mark.parametrize(
    ("name", "steps", "shortest", "longest", "notes_per_step"),
    [
        ("piano-midi", (75_911, 8_540, 19_036), 65, 3_857, 3.04),
        ("nottingham", (176_561, 45_513, 44_463), 40, 1_793, 3.96),
        ("musedata", (245_202, 82_755, 64_339), 9, 4_273, 3.49),
        ("jsb-chorales", (13_807, 4_602, 4_725), 25, 160, 3.90),
    ],
)
def test_the_real_corpora(
    name: str, steps: tuple[int, ...], shortest: int, longest: int, notes_per_step: float
) -> None:
    """Uses the user's own cache and folder."""
    if ROWS[name].state() != PRESENT:
        pytest.skip(f"{name} is not here")
    found = ROWS[name].corpus()
    parts = (found.train, found.valid, found.test)
    lengths = [len(piece) for part in parts for piece in part]
    assert tuple(sum(map(len, part)) for part in parts) == steps
    assert (min(lengths), max(lengths)) == (shortest, longest)
    assert sum(int(piece.sum()) for piece in found.train) / steps[0] == pytest.approx(notes_per_step, abs=0.005)
    used = np.flatnonzero(sum(piece.sum(0, dtype=int) for part in parts for piece in part)) + music.LOWEST_NOTE
    if name == "jsb-chorales":
        assert (used.min(), used.max()) == (43, 96)
    if name == "piano-midi":
        assert (used.min(), used.max()) == (21, 108)
