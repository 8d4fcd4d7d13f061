"""Fetching from an address, reading idx files and wheels, and a pickle reader that runs nothing."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladder_search.data import sources
from ladder_search.errors import DataError


class Handler(http.server.BaseHTTPRequestHandler):
    release = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/silent":
            self.release.wait(10)
            return
        found = self.path in ("/file", "/cut")
        self.send_response(200 if found else 403)
        self.send_header("Content-Length", "20" if self.path == "/cut" else "10")
        self.end_headers()
        self.wfile.write(b"0123456789")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        Handler.release.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_fetch_returns_the_content(server: str) -> None:
    assert sources.fetch(f"{server}/file", at_most=10) == b"0123456789"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("file", "must have at most 9 bytes, found more"),
        ("absent", "cannot be fetched .*403"),
        ("cut", "must have 20 bytes as it says, the connection broke off after 10"),
        ("silent", "did not answer within 0.2 s|cannot be fetched .*timed out"),
    ],
)
def test_fetch_says_why_it_failed(server: str, path: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        sources.fetch(f"{server}/{path}", at_most=9 if path == "file" else 100, seconds=0.2 if path == "silent" else 10)


def test_fetch_from_nowhere() -> None:
    with pytest.raises(DataError, match="cannot be fetched"):
        sources.fetch("http://127.0.0.1:9/file", at_most=10)


def test_a_lookup_that_hangs_does_not_hang_the_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: hang.wait(10))
    with pytest.raises(DataError, match=r"did not answer within 0.05 s"):
        sources.fetch("https://example.org/file", at_most=10, seconds=0.05)
    hang.set()


def test_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for unset in (None, ""):
        if unset is None:
            monkeypatch.delenv("LADDER_SEARCH_DATA", raising=False)
        else:
            monkeypatch.setenv("LADDER_SEARCH_DATA", unset)
        assert sources.data_folder() is None
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    assert sources.data_folder() == tmp_path
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path / "tpyo"))
    with pytest.raises(
        DataError, match=r"LADDER_SEARCH_DATA must name a folder, '.*tpyo' is none; correct it or unset"
    ):
        sources.data_folder()


def test_idx_files_are_read_as_their_format_says() -> None:
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])
    np.testing.assert_array_equal(sources.read_idx(content), np.array([[1, 2, 3], [4, 5, 255]], np.uint8))
    assert sources.write_idx(sources.read_idx(content)) == content


def test_a_cut_gzip_file_is_refused() -> None:
    packed = gzip.compress(os.urandom(1000))
    for content in (packed[:500], packed[:-1], b"no gzip", packed[:200] + b"\0" + packed[201:]):
        with pytest.raises(DataError, match="must be a whole gzip file"):
            sources.gunzip("x", content)


def test_a_member_is_read_and_verified(tmp_path: Path) -> None:
    wheel = tmp_path / "thing.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("a/b", b"content")
    right = hashlib.sha256(b"content").hexdigest()
    assert sources.read_member(wheel, "a/b", sha256=right) == b"content"
    with pytest.raises(DataError, match=f"must have the sha256 {'0' * 64}, found {right}"):
        sources.read_member(wheel, "a/b", sha256="0" * 64)
    with pytest.raises(DataError, match=r"thing.whl must hold a/c, it does not"):
        sources.read_member(wheel, "a/c", sha256=right)
    wheel.write_bytes(wheel.read_bytes()[:40])
    with pytest.raises(DataError, match="must be a whole wheel"):
        sources.read_member(wheel, "a/b", sha256=right)
    with pytest.raises(DataError, match="must be a whole wheel"):
        sources.read_member(tmp_path / "absent.whl", "a/b", sha256=right)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i8", "u1"])
def test_pickled_arrays_are_read(dtype: str) -> None:
    arrays = (
        [np.arange(6).reshape(2, 3).astype(dtype)],
        (np.asfortranarray(np.arange(6).reshape(2, 3)).astype(dtype),),
    )
    found = sources.unpickle_arrays("x", pickle.dumps(arrays, protocol=4))
    native = arrays[0][0].astype(arrays[0][0].dtype.newbyteorder("="))
    np.testing.assert_array_equal(found[0][0], native, strict=True)
    np.testing.assert_array_equal(found[1][0], arrays[1][0])


def test_a_pickle_of_python_2_is_read() -> None:
    # As the wheel's is: protocol 2, the bytes in a BINSTRING. Two float32, 0.0 and 1.0.
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\n"
        b"U\x02f4K\0K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T\x08\0\0\0\0\0\0\0\0\0\x80?tb."
    )
    np.testing.assert_array_equal(sources.unpickle_arrays("x", content), np.array([0, 1], np.float32), strict=True)


class Hostile:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "victim"
    content = pickle.dumps(([np.zeros(3)], Hostile(os.system, f"touch {victim}")), protocol=protocol)
    with pytest.raises(DataError, match=r"must hold plain arrays only, found a reference to .*do not use this file"):
        sources.unpickle_arrays("x", content)
    assert not victim.exists()


@pytest.mark.parametrize(
    "call", [(eval, "1"), (getattr, 1, "real"), (np.load, "x"), (bytearray, b"x"), (np.ndarray, (3,))]
)
def test_every_other_name_is_refused(call: tuple[Any, ...]) -> None:
    with pytest.raises(DataError, match=r"must hold plain arrays only|must be a pickle of plain arrays"):
        sources.unpickle_arrays("x", pickle.dumps(Hostile(*call), protocol=4))


def test_arrays_of_objects_are_refused() -> None:
    with pytest.raises(DataError, match="must hold arrays of plain numbers, found type 'O8'"):
        sources.unpickle_arrays("x", pickle.dumps(np.array([{}, []], dtype=object), protocol=4))


def test_what_is_no_pickle_is_refused() -> None:
    whole = pickle.dumps(np.zeros(3), protocol=4)
    for content in (b"", b"no pickle", whole[:-5], whole[:20]):
        with pytest.raises(DataError, match="must be a pickle of plain arrays"):
            sources.unpickle_arrays("x", content)


def test_a_python_without_pip_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "python"
    bare.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(DataError, match=r"thing==1 cannot be fetched by pip \(.*No module named pip\)"):
        sources.fetch_wheel("thing==1", tmp_path)


def test_fetching_leaves_this_process_fit_to_compile(tmp_path: Path) -> None:
    """A look for pip inside the process would make setuptools, which torch's compiler imports, fail in it."""
    code = (
        "import pathlib, sys\n"
        "from ladder_search.data import sources\n"
        "try:\n    sources.fetch_wheel('thing==1', pathlib.Path(sys.argv[1]))\n"
        "except sources.DataError:\n    import setuptools\n"
        "else:\n    raise SystemExit('there is no such wheel')\n"
    )
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pips_reason_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match=r"cannot be fetched by pip .*No matching distribution found for thing==1"):
        sources.fetch_wheel("thing==1", tmp_path)
