"""Location of a search's checkpoints in ``--storage``, marked by a file with the id of the search."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from ladder_search.disk.documents import refused
from ladder_search.disk.foreign import parse_json
from ladder_search.driver.cluster import check_writable
from ladder_search.errors import SettingError
from ladder_search.tracking.address import redacted

MARKER = "search.json"
"""Marker file with ``id`` and ``folder``, the study folder."""
FORMAT = "ladder-search storage 1"

_LIMIT = 1 << 16


def place_for(storage: str | None, folder: Path, *, resume: bool) -> Place | None:
    """Return the location in ``storage`` for the search in the study folder ``folder``; raise ``SettingError`` if it
    cannot be written, is the root folder, or is used by another search."""
    if not storage:
        return None
    check_writable(storage)
    place = Place(f"{storage}/{folder.name}")
    if Path(place.address).absolute() == folder:
        raise SettingError(
            f"--storage must be another folder than --root, both are {storage}; leave --storage out, or name another."
        )
    if not resume:
        place.check_free()
    return place


class Place:
    def __init__(self, address: str) -> None:
        """Args: ``address`` is a folder, possibly in a bucket: ``s3://…/NAME``."""
        self.address = address
        resolved = FileSystem.from_uri(address) if "://" in address else (LocalFileSystem(), address)
        self._filesystem: FileSystem = resolved[0]
        self._path: str = resolved[1]

    def check_free(self) -> None:
        entries = self._attempt(lambda: self._filesystem.get_file_info(FileSelector(self._path, allow_not_found=True)))
        if not entries:
            return
        owner = self._owner()
        what = f"the checkpoints of the search in {owner['folder']}" if owner else repr(entries[0].base_name)
        raise SettingError(
            f"a search needs a place of its own in --storage and {redacted(self.address)} holds {what}; choose another "
            "--name or --storage, or delete it."
        )

    def check_own(self, search: str) -> None:
        """Raise ``SettingError`` if the location belongs to a search with another id than ``search``."""
        owner = self._owner()
        if owner is not None and owner["id"] != search:
            raise SettingError(
                f"a search continues from its own checkpoints, and {redacted(self.address)} belongs to the search in "
                f"{owner['folder']}; start a new search with another --name or --storage."
            )

    def claim(self, search: str, folder: Path) -> None:
        """Mark the location as that of a search; raise ``SettingError`` if another one was faster or it cannot be
        written."""
        if self._owner() is None:
            text = json.dumps({"format": FORMAT, "id": search, "folder": str(folder)}, indent=1).encode()
            self._attempt(lambda: self._write(text))
        self.check_own(search)

    def leave(self) -> None:
        with suppress(OSError):
            self._filesystem.delete_file(f"{self._path}/{MARKER}")

    def _owner(self) -> dict[str, Any] | None:
        marker = f"{self._path}/{MARKER}"
        if self._attempt(lambda: self._filesystem.get_file_info(marker)).type == FileType.NotFound:
            return None
        rule, remedy = "say whose checkpoints these are", "choose another --name or --storage"
        with refused(f"{redacted(self.address)}/{MARKER}", rule, remedy, SettingError):
            with self._filesystem.open_input_stream(marker) as file:
                content = parse_json(file.read(_LIMIT))
            if content["format"] != FORMAT or not all(isinstance(content[name], str) for name in ("id", "folder")):
                raise ValueError(f"its format must be {FORMAT!r}")
        return dict(content)

    def _write(self, text: bytes) -> None:
        self._filesystem.create_dir(self._path, recursive=True)
        marker = f"{self._path}/{MARKER}"
        if isinstance(self._filesystem, LocalFileSystem):
            try:
                with open(marker, "xb") as file:  # fails for the second of two concurrent searches
                    file.write(text)
            except FileExistsError:
                return  # the following check reports the owner
            return
        with self._filesystem.open_output_stream(marker) as file:
            file.write(text)

    def _attempt(self, call: Any) -> Any:
        try:
            return call()
        except OSError as error:
            raise SettingError(
                f"checkpoints need a place that can be read and written, {redacted(self.address)} is not: "
                f"{str(error).splitlines()[0][:200]}; choose another --storage."
            ) from error


def lasting(place: str) -> str:
    """Return an address unchanged, and a folder as an absolute path that outlives the search.

    ``ray job submit --working-dir`` runs a search in a copy that Ray removes, so results go below the home directory,
    as with ``ray submit``.
    """
    if "://" in place:
        return place
    in_a_copy = "runtime_resources" in Path.cwd().parts
    return str((Path.home() if in_a_copy else Path.cwd()) / place)
