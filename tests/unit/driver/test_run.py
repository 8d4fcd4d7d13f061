"""What a search checks, says and refuses before Ray starts."""

from __future__ import annotations

import errno
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ladder_search.config import as_mapping
from ladder_search.console import Console
from ladder_search.data import datasets
from ladder_search.driver.journal import Journal, space_as_json
from ladder_search.driver.run import Run
from ladder_search.driver.settings import SearchSettings
from ladder_search.driver.storage import MARKER, Place
from ladder_search.errors import SettingError, StudyFolderError
from ladder_search.models import find_family
from ladder_search.record.folder import StudyFolder
from spaces import find_space

FINITE = {"space": {"noise": "fixed", "lambda_": "fixed", "combinators": ["gauss", "vanilla"], "lr": False}}
Started = Callable[..., Run]


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def started(tmp_path: Path, out: io.StringIO) -> Started:
    """A search in ROOT/s whose settings are checked, and which has begun nothing."""

    def start(root: str = "a", name: str = "s", **settings: Any) -> Run:
        asked = SearchSettings(study="digits-100", root=str(tmp_path / root), name=name, **settings)
        study, folder = asked.resolved_study(), StudyFolder(tmp_path / root / name)
        folder.path.mkdir(parents=True, exist_ok=True)
        own = study.trial()
        console = Console(out, width=200, terminal=False)
        return Run(
            asked, study, own, datasets.load("digits"), {}, folder, find_space(find_family(study.family).space), console
        )

    return start


def _begun(run: Run) -> None:
    """As ``plan`` begins it, once Ray has room for its trials."""
    if run._place:
        run._place.claim(run._id, run._folder.path)
    run._journal = Journal(run._folder.journal, run._search, new=True)
    run._description = {
        "id": run._id, "search": run._search, "settings": as_mapping(run._settings), "study": as_mapping(run._study),
        "space": space_as_json(run._space.distributions), "store": "sqlite:///x", "provenance": run._provenance,
    }  # fmt: skip
    run._folder.create(run._description)


def test_a_finite_space_limits_the_search_also_when_more_trials_are_asked_for_later(
    started: Started, out: io.StringIO
) -> None:
    run = started(trials=10, overrides=FINITE)
    note = (
        "The space has 2 configurations, 3 with the fixed ones: the search ends after 3 trials instead of 10, because"
    )
    assert out.getvalue().startswith(note) and run.outlook() == "3 trials"
    _begun(run)
    again = started(trials=12, overrides=FINITE, resume=True)
    again.recall()
    assert again.outlook() == "0 of 3 trials have ended" and "instead of 12" in out.getvalue()


def test_a_taken_place_is_refused_before_anything_is_begun(started: Started, tmp_path: Path) -> None:
    storage = str(tmp_path / "storage")
    _begun(started("a", storage=storage))
    with pytest.raises(SettingError, match=r"holds the checkpoints of the search in .*a/s; choose another --name"):
        started("b", storage=storage)
    assert list((tmp_path / "b" / "s").iterdir()) == []


def test_a_renamed_study_folder_goes_on_with_its_journal_its_runs_and_its_checkpoints(
    started: Started, tmp_path: Path
) -> None:
    storage = str(tmp_path / "storage")
    first = started("a", storage=storage)
    _begun(first)
    (tmp_path / "a" / "s").rename(tmp_path / "a" / "t")
    again = started("a", "t", storage=storage, resume=True)
    again.recall()
    assert (again._search, again._id) == ("digits-100/s", first._id)
    assert again._checkpoints == f"{storage}/s" and not (tmp_path / "storage" / "t").exists()


def test_a_place_that_another_search_has_taken_since_is_not_gone_on_with(started: Started, tmp_path: Path) -> None:
    storage = str(tmp_path / "storage")
    _begun(started("a", storage=storage))
    shutil.rmtree(tmp_path / "storage")
    _begun(started("b", storage=storage))
    with pytest.raises(
        SettingError, match=r"continues from its own checkpoints, and .* belongs to the search in .*b/s"
    ):
        started("a", storage=storage, resume=True).recall()


def test_a_search_that_cannot_begin_leaves_no_mark(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: StudyFolder, description: dict[str, Any]) -> None:
        raise StudyFolderError("the disk is full; make room.")

    run = started("a", storage=str(tmp_path / "storage"), slots=1, compile="off")
    monkeypatch.setattr(StudyFolder, "create", full)
    monkeypatch.setattr("ladder_search.driver.cluster.capacity", lambda share, private: 1)
    monkeypatch.setattr("ladder_search.driver.cluster.has_gpus", lambda private: False)
    monkeypatch.setattr("ladder_search.driver.cluster.check_shared", lambda place: 0)
    with pytest.raises(StudyFolderError, match="the disk is full"):
        run.plan(True, "sqlite:///x", object)  # type: ignore[arg-type]
    assert not (tmp_path / "storage" / "s" / MARKER).exists()
    Place(str(tmp_path / "storage" / "s")).check_free()


def test_what_is_noted_after_the_trials_ends_no_search(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full when the sources and packs of a search that has trained everything are written down."""
    run = started()
    _begun(run)
    with monkeypatch.context() as patch:
        patch.setattr(StudyFolder, "_write_json", staticmethod(_full))
        run._note(packs=[])
    (problem,) = run.problems
    assert "must be writable" in problem and "No space left on device" in problem


def _full(path: Path, content: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
