"""Programs do what their functions did, are kept on disk and found there, and nothing is lost with what is not."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from ladder_search.training import ahead
from ladder_search.training.ahead import compile_ahead, in_time
from ladder_search.training.compiling import compiler_found

needs_a_compiler = pytest.mark.skipif(not compiler_found(), reason="no C++ compiler")
pytestmark = pytest.mark.timeout(400)  # a busy machine's compiler


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "programs"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of this process and of its children: an empty one."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "to be set back")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    return tmp_path / "temporary"


def descend(weights: Tensor, rows: Tensor, places: Tensor, total: Tensor) -> None:
    """Changes weights and total in place; has a gradient, members side by side and a constant."""

    def cost(w: Tensor, x: Tensor) -> Tensor:
        return ((w * x).sum() - OFFSET).square().sum()

    total.add_(vmap(cost)(weights, rows[places]))
    weights.sub_(0.1 * vmap(grad(cost))(weights, rows[places]))


OFFSET = torch.tensor([1.0, 2.0])


def examples(seed: int = 0, column: int = 0) -> list[Tensor]:
    """Arguments of ``descend``; weights and total are columns of tables, and are used as they lie."""
    draw = torch.Generator().manual_seed(seed)
    weights, rows = torch.randn(3, 2, 4, generator=draw), torch.randn(7, 4, generator=draw)
    places, total = torch.randint(0, 7, (3,), generator=draw), torch.zeros(3, 2, dtype=torch.float64)
    return [weights[:, column], rows, places, total[:, column]]


def _names(cache: Path) -> list[str]:
    """What lies in the cache but for the libraries that tell what the processor can do."""
    return sorted(path.name for path in cache.iterdir() if path.name != "processor")


def after(program: Any, seed: int, column: int = 0) -> list[Tensor]:
    tensors = examples(seed, column)
    program(tensors)
    return tensors


def noted(made: list[Path]) -> Any:
    """Return the builder of programs, which also notes their folders in ``made``."""
    build = ahead._build

    def build_and_note(*arguments: Any) -> Path:
        made.append(arguments[-1])
        return build(*arguments)

    return build_and_note


@dataclass(frozen=True)
class Compiled:
    """The program of ``descend`` as the first process made it."""

    program: Any
    path: Path
    built: list[Path]
    left: list[Path]
    """Files in the temporary folder after the build and the load."""
    unchanged: bool
    """Whether the examples are what they were."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    root, given, built = tmp_path_factory.mktemp("compiled"), examples(), list[Path]()
    (root / "temporary").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LADDER_SEARCH_CACHE", str(root / "cache"))
        patch.setenv("TMPDIR", str(root / "temporary"))
        patch.setattr(tempfile, "tempdir", None)
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", "to be set back")
        patch.delenv("TORCHINDUCTOR_CACHE_DIR")
        patch.setattr(ahead, "_build", noted(built))
        program = compile_ahead(descend, given)
    unchanged = all(torch.equal(found, wanted) for found, wanted in zip(given, examples(), strict=True))
    (path,) = (root / "cache" / "programs").glob("program-*")
    return Compiled(program, path, built, list((root / "temporary").iterdir()), unchanged)


@needs_a_compiler
def test_a_program_does_what_its_function_did(compiled: Compiled) -> None:
    assert compiled.unchanged
    for seed, column in ((0, 0), (1, 0), (1, 1)):
        done, expected = after(compiled.program, seed, column), after(lambda t: descend(*t), seed, column)
        for found, wanted in zip(done, expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    assert compiled.built == [compiled.path] and _names(compiled.path.parent) == [compiled.path.name]
    assert {path.suffix for path in compiled.path.iterdir()} == {".so", ".json"}, "no package and no sources of it"
    assert compiled.left == [], "neither the build nor the load leaves anything in the temporary folder"


@needs_a_compiler
def test_a_program_is_found_again_and_built_again_if_it_is_damaged(
    compiled: Compiled, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(compiled.path, cache / compiled.path.name)
    built = list[Path]()

    def build(graph: Any, tensors: Any, path: Path) -> Path:
        built.append(path)
        shutil.rmtree(path)
        return Path(shutil.copytree(compiled.path, path))

    monkeypatch.setattr(ahead, "_build", build)
    again = compile_ahead(descend, examples(2))
    assert not built, "other numbers, the same program"
    assert all(torch.equal(a, b) for a, b in zip(after(again, 1), after(compiled.program, 1), strict=True))

    (library,) = (cache / compiled.path.name).glob("*.so")
    content = library.read_bytes()
    library.unlink()  # this process has the file itself in its memory
    library.write_bytes(content[:-100])
    mended = compile_ahead(descend, examples())
    assert built == [library.parent] and torch.equal(after(mended, 1)[0], after(compiled.program, 1)[0])


def test_who_comes_while_another_compiles_waits_for_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    built = list[Path]()
    monkeypatch.setattr(ahead, "_build", noted(built))
    monkeypatch.setattr(ahead, "_load", lambda path: path)
    graph = make_fx(descend, tracing_mode="real")(*examples())
    path = cache / f"program-{ahead._digest(graph, examples())}"
    with ThreadPoolExecutor() as pool:
        lock = ahead._lock_of(path)
        assert lock.acquire()
        second = pool.submit(compile_ahead, descend, examples())
        with pytest.raises(TimeoutError):
            second.result(1.0)
        path.mkdir()
        (path / "library.so").write_bytes(b"compiled")
        (path / ahead._SUMS).write_text(json.dumps({"library.so": hashlib.sha256(b"compiled").hexdigest()}))
        lock.release(remove=True)
        assert second.result(60.0) == path and not built, "the second has found what the first has made"
    assert _names(cache) == [path.name]


@needs_a_compiler
def test_without_a_folder_a_program_is_made_all_the_same(
    compiled: Compiled, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = list[Path]()

    def build(graph: Any, tensors: Any, path: Path) -> Path:
        built.append(path)
        return Path(shutil.copytree(compiled.path, path))

    monkeypatch.setattr(ahead, "_build", build)
    monkeypatch.setenv("LADDER_SEARCH_CACHE", "/proc/nowhere")
    program = compile_ahead(descend, examples())
    torch.testing.assert_close(after(program, 1)[0], after(lambda t: descend(*t), 1)[0])
    assert len(built) == 1 and not built[0].exists() and not cache.exists()


def test_a_program_that_cannot_be_made_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(*_: Any, package_path: str, **__: Any) -> None:
        Path(package_path).write_bytes(b"half of it")
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", half)
    with pytest.raises(RuntimeError, match="the disk is full"):
        compile_ahead(descend, examples())
    assert not _names(cache), "neither a program nor a lock nor a folder of the build"


def test_a_build_keeps_its_files_and_those_of_the_compiler_in_a_folder_that_goes(
    cache: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, ...]] = []

    def half(*_: Any, package_path: str, **__: Any) -> None:
        seen.append(
            (Path(package_path).parent, Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]), Path(os.environ["TMPDIR"]))
        )
        raise RuntimeError("the disk is full")

    looked: list[Path] = []
    ahead.prepare()  # before the next line imports the compiler
    # The real one compiles ten libraries; the programs of this file have used it.
    monkeypatch.setattr(
        ahead, "find_instruction_sets", lambda: looked.append(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
    )
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", half)
    with pytest.raises(RuntimeError, match="the disk is full"):
        compile_ahead(descend, examples())
    ((work, inductor, compiler),) = seen
    assert looked == [cache / "processor"]
    assert work.parent == cache and inductor.parent == work and compiler == work and not work.exists()
    assert (os.environ["TORCHINDUCTOR_CACHE_DIR"], os.environ["TMPDIR"]) == (str(cache), str(temporary))
    assert tempfile.gettempdir() == str(temporary)


_KILLED = """
import time
import torch
from torch._inductor import cpu_vec_isa
from ladder_search.training import ahead

def stuck(*_, package_path, **__):
    open(package_path, "wb").close()
    print("building", flush=True)
    time.sleep(600)

cpu_vec_isa.valid_vec_isa_list = lambda: []
torch._inductor.aoti_compile_and_package = stuck
ahead.compile_ahead(lambda a: a.mul_(2), [torch.ones(2)])
"""


def test_what_a_killed_build_left_is_removed_and_what_another_still_builds_is_not(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", _KILLED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "building\n"
        (work,) = cache.glob("*.building")
        ahead.remove_leftovers(cache)
        assert {Path(name).suffix for name in _names(cache)} == {".building", ".lock"} and list(work.glob("*.pt2"))
        process.kill()
    assert list(work.glob("*.pt2")), "as the kill left it"
    ahead.remove_leftovers(cache)
    assert _names(cache) == []


def test_a_process_that_trains_prepares_the_folder_whether_or_not_it_compiles(
    cache: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = ("program-1.abcd.building", "trial-abcd", "trial-efgh")
    for name in left:
        (cache / name).mkdir(parents=True)
    os.utime(cache / "trial-abcd", (0, 0))
    ahead.prepare()
    assert _names(cache) == ["trial-efgh"], "a trial of the compiler that another process may have begun just now"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(cache) and list(temporary.iterdir()) == []


def test_of_many_programs_those_that_were_loaded_lately_stay(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_KEPT", 2)
    for number in (3, 1, 2):
        (cache / f"program-{number}").mkdir(parents=True)
        os.utime(cache / f"program-{number}", (number, number))
    ahead.remove_leftovers(cache)
    assert sorted(path.name for path in cache.iterdir()) == ["program-2", "program-3"]


def test_all_that_machine_code_depends_on_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(function: Any = descend, tensors: list[Tensor] | None = None) -> str:
        given = tensors or examples()
        return ahead._digest(make_fx(function, tracing_mode="real")(*given), given)

    first = name()
    assert name() == first
    weights, rows, places, total = examples()
    assert name(tensors=[weights.double(), rows.double(), places, total]) != first
    assert name(tensors=[weights.t().contiguous().t(), rows, places, total]) != first
    assert name(tensors=[weights, torch.cat([rows, rows]), places, total]) != first
    assert name(lambda *t: descend(*t[:3], t[3].mul_(2.0))) != first
    with monkeypatch.context() as other:
        other.setattr("tests.unit.training.test_ahead.OFFSET", torch.tensor([1.0, 3.0]))
        assert name() != first
    with monkeypatch.context() as other:
        other.setattr(ahead, "_processor", lambda: "another")
        assert name() != first
    with monkeypatch.context() as other:
        other.setattr(torch, "get_num_threads", lambda: 61)
        assert name() != first
    assert name() == first


def test_on_other_devices_every_program_is_compiled_whole_and_for_its_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Torch gives up on a function after a number of programs, 8 unless told, and runs it uncompiled from then on.
    symbolic: list[bool] = []
    compile_ = torch.compile

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        values = [node.meta.get("example_value") for node in graph.graph.nodes if node.op == "placeholder"]
        symbolic.append(any(isinstance(value, torch.SymInt) for value in values))
        return graph

    def traced_only(graph: Any, *, dynamic: bool, options: dict[str, Any]) -> Any:
        return compile_(graph, dynamic=dynamic, backend=backend)

    monkeypatch.setattr(torch, "compile", traced_only)
    with torch._dynamo.config.patch(recompile_limit=2):
        for number, members in enumerate((1, 2, 3, 2)):
            weights, rows, places, total = examples()
            given = [weights[:members], rows, places[:members], total[:members]]
            program = in_time(make_fx(descend, tracing_mode="real")(*(tensor.clone() for tensor in given)))
            wanted = [tensor.clone() for tensor in given]
            descend(*wanted)
            program(given)
            assert len(symbolic) == number + 1
            torch.testing.assert_close(given, wanted)
    assert not any(symbolic), "a program for any number of members is slower than one for its own"
