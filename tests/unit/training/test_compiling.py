"""The rule is arithmetic: values by hand from the table in the module."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder_search.models.ladder import LadderConfig
from ladder_search.training import compiling
from ladder_search.training.compiling import compile_pays, compiler_found, keep_programs

MNIST = (784, 1000, 500, 250, 250, 250, 10)
DIGITS = (64, 200, 100, 50, 50, 50, 10)


def flops(widths: tuple[int, ...], labelled: int, unlabelled: int, decoder: Any = "full") -> float:
    zeros = (0.0,) * len(widths)
    return LadderConfig(widths=widths, noise_std=zeros, lambda_=zeros, decoder=decoder).flops(labelled, unlabelled)


def test_products_of_a_step_by_hand() -> None:
    # 3-2 units, 4 labelled and 5 unlabelled rows. One product is 2 * 3 * 2 = 12 operations a row; the encoder's rows
    # are 4 + 5 + 5, forward and the weights' gradient; the decoder's 5 rows have the input's gradient, too.
    assert flops((3, 2), 4, 5) == 14 * 2 * 12 + 5 * 3 * 12
    assert flops((3, 2), 4, 5, "gamma") == 14 * 2 * 12
    assert flops((3, 2), 4, 5, "none") == 4 * 2 * 12
    # A second layer, 2 * 2 * 7 = 28 operations a row, has all three products in the encoder as well.
    assert flops((3, 2, 7), 4, 5, "none") == 4 * (2 * 12 + 3 * 28)
    assert flops(MNIST, 100, 100) == pytest.approx(3.2e9, rel=0.01)


def test_what_was_measured_is_decided_as_measured() -> None:
    # 25.5 ms saved a step: 60 s of compiling come back after 2,353 steps; 6.9 ms: after 8,696.
    assert not compile_pays(3.2e9, 2_300) and compile_pays(3.2e9, 2_400)
    assert not compile_pays(0.1e9, 8_600) and compile_pays(0.1e9, 8_800)
    # Four members save 2.6 times as much: 18.2 ms a step, 3,297 steps; eight 4.3 times, 29.6 ms, 2,028 steps.
    assert not compile_pays(0.1e9, 3_250, members=4) and compile_pays(0.1e9, 3_350, members=4)
    assert not compile_pays(0.1e9, 2_000, members=8) and compile_pays(0.1e9, 2_060, members=8)


def test_the_studies() -> None:
    assert compile_pays(flops(MNIST, 100, 100), 600 * 150), "150 epochs of MNIST"
    assert not compile_pays(flops(DIGITS, 100, 100), 12 * 100), "100 epochs of the digits"


def torch_lies_in(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SimpleNamespace(origin=f"{folder}/torch/__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "torch" else None)


def test_nothing_compiles_with_torch_in_a_folder_with_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "g++").write_text("#!/bin/sh\n")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiling, "_build_problem", lambda compiler, folder: None)
    torch_lies_in("/home/someone/a folder", monkeypatch)
    assert not compiler_found() and "/home/someone/a folder/torch" in str(compiling.compiler_problem())
    torch_lies_in("/home/someone/folder", monkeypatch)
    assert compiler_found()


def test_a_compiler_is_looked_for_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_lies_in("/home/someone/folder", monkeypatch)
    used = list[str]()
    monkeypatch.setattr(compiling, "_build_problem", lambda compiler, folder: used.append(compiler))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not compiler_found()
    for name, environment in (("clang++", None), ("g++", None), ("my-compiler", "my-compiler")):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        if environment:
            monkeypatch.setenv("CXX", environment)
        assert compiler_found() and used[-1] == str(tmp_path / name)
        (tmp_path / name).unlink()


@pytest.fixture
def compiler() -> Iterator[str]:
    """The path of a compiler that works, with nothing remembered of earlier trials."""
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        pytest.skip("no C++ compiler is installed")
    compiling._build_problem.cache_clear()
    yield found
    compiling._build_problem.cache_clear()


def test_a_library_is_built_and_loaded_where_programs_are_kept(compiler: str, tmp_path: Path) -> None:
    assert compiling._build_problem(compiler, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_builds_nothing_is_none(compiler: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'fatal error: cstddef: no such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    assert "fatal error: cstddef: no such file" in str(compiling._build_problem(str(broken), tmp_path))
    broken.write_text("#!/bin/sh\n")
    compiling._build_problem.cache_clear()
    assert "builds no shared library: exit code 0" in str(compiling._build_problem(str(broken), tmp_path))
    assert f"no program can be built in {tmp_path / 'nowhere'}" in str(
        compiling._build_problem(compiler, tmp_path / "nowhere")
    )


def test_nothing_is_compiled_where_no_program_can_be_executed(compiler: str, tmp_path: Path) -> None:
    """On a real file system that is mounted ``noexec``, in a mount namespace of its own."""
    script = f"""
        mount -t tmpfs -o noexec tmpfs {shlex.quote(str(tmp_path))} || exit 77
        LADDER_SEARCH_CACHE={shlex.quote(str(tmp_path / "cache"))} {shlex.quote(sys.executable)} -c '
from ladder_search.training.compiling import compiler_found, compiler_problem
assert not compiler_found()
print(compiler_problem())'
    """
    try:
        command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"no program can be built in {tmp_path / 'cache' / 'programs'} and loaded from there")


def test_programs_of_torch_itself_are_kept_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    keep_programs()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "programs")
