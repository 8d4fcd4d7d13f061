"""A place below --storage belongs to one search, whatever other searches are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ladder_search.driver.storage import MARKER, Place, place_for
from ladder_search.errors import SettingError


@pytest.fixture(params=["folder", "address"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "storage") if request.param == "folder" else (tmp_path / "storage").as_uri()


def test_a_free_place_is_checked_before_anything_is_begun_and_claimed_once(storage: str, tmp_path: Path) -> None:
    """Two searches with one name and one storage, in different roots."""
    first = place_for(storage, tmp_path / "a" / "s", resume=False)
    second = place_for(storage, tmp_path / "b" / "s", resume=False)
    assert first is not None and second is not None and not (tmp_path / "storage" / "s").exists()
    second.claim("id b", tmp_path / "b" / "s")
    second.leave()  # its study folder could not be written
    first.claim("id a", tmp_path / "a" / "s")
    first.claim("id a", tmp_path / "a" / "s")
    with pytest.raises(SettingError, match=r"belongs to the search in .*a/s; start a new search with another --name"):
        second.claim("id b", tmp_path / "b" / "s")
    with pytest.raises(SettingError, match=r"holds the checkpoints of the search in .*a/s; choose another --name or"):
        place_for(storage, tmp_path / "b" / "s", resume=False)
    assert json.loads((tmp_path / "storage" / "s" / MARKER).read_text())["id"] == "id a"


def test_a_resume_goes_on_in_its_own_place_only(storage: str, tmp_path: Path) -> None:
    place = place_for(storage, tmp_path / "a" / "s", resume=True)
    assert place is not None
    place.check_own("id a")  # nothing is there yet, or was deleted
    place.claim("id a", tmp_path / "a" / "s")
    place.check_own("id a")
    with pytest.raises(SettingError, match="continues from its own checkpoints"):
        place.check_own("id b")


def test_what_is_no_search_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "storage" / "s").mkdir(parents=True)
    Place(str(tmp_path / "storage" / "s")).check_free()  # an empty folder is free
    (tmp_path / "storage" / "s" / "notes.txt").touch()
    with pytest.raises(SettingError, match=r"holds 'notes\.txt'; choose another --name or --storage"):
        place_for(str(tmp_path / "storage"), tmp_path / "a" / "s", resume=False)
    (tmp_path / "storage" / "s" / MARKER).write_text("{}")
    with pytest.raises(SettingError, match=r"search\.json must say whose checkpoints these are"):
        place_for(str(tmp_path / "storage"), tmp_path / "a" / "s", resume=False)


def test_a_storage_that_is_the_root_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="must be another folder than --root, both are .*; leave --storage out"):
        place_for(str(tmp_path), tmp_path / "s", resume=False)
    assert place_for(None, tmp_path / "s", resume=False) is None
