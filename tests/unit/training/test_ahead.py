"""Programs do what their functions did, are kept on disk and found there, and nothing is lost with what is not."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LADDER_SEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "programs"


def descend(weights: Tensor, rows: Tensor, places: Tensor, total: Tensor) -> None:
    """Changes weights and total in place; has a gradient, members side by side and a constant."""

    def cost(w: Tensor, x: Tensor) -> Tensor:
        return ((w * x).sum() - OFFSET).square().sum()

    total.add_(vmap(cost)(weights, rows[places]))
    weights.sub_(0.1 * vmap(grad(cost))(weights, rows[places]))


OFFSET = torch.tensor([1.0, 2.0])


def examples(seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    weights, rows = torch.randn(3, 4, generator=draw), torch.randn(7, 4, generator=draw)
    return [weights, rows, torch.randint(0, 7, (3,), generator=draw), torch.zeros(3, dtype=torch.float64)]


def after(program: Any, seed: int) -> list[Tensor]:
    tensors = examples(seed)
    program(tensors)
    return tensors


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Files of the programs that are made."""
    made: list[Path] = []
    build = ahead._build

    def noted(*arguments: Any) -> Path:
        made.append(arguments[-1])
        return build(*arguments)

    monkeypatch.setattr(ahead, "_build", noted)
    yield made


@needs_a_compiler
def test_a_program_does_what_its_function_did_and_is_found_again(cache: Path, built: list[Path]) -> None:
    given = examples()
    program = compile_ahead(descend, given)
    assert all(torch.equal(found, wanted) for found, wanted in zip(given, examples(), strict=True))
    for seed in (0, 1):
        for found, wanted in zip(after(program, seed), after(lambda t: descend(*t), seed), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    assert [path.parent for path in built] == [cache] and [p.name for p in cache.iterdir()] == [built[0].name]

    again = compile_ahead(descend, examples(2))
    assert len(built) == 1, "other numbers, the same program"
    assert all(torch.equal(a, b) for a, b in zip(after(again, 1), after(program, 1), strict=True))

    built[0].write_bytes(b"no program")
    mended = compile_ahead(descend, examples())
    assert len(built) == 2 and torch.equal(after(mended, 1)[0], after(program, 1)[0])


@needs_a_compiler
def test_who_comes_while_another_compiles_waits_for_it(cache: Path, built: list[Path]) -> None:
    cache.mkdir(parents=True)
    graph = make_fx(descend, tracing_mode="real")(*examples())
    path = cache / f"program-{ahead._digest(graph, examples())}.pt2"
    with ThreadPoolExecutor() as pool:
        with ahead._no_other(path.with_suffix(".lock")):
            second = pool.submit(compile_ahead, descend, examples())
            with pytest.raises(TimeoutError):
                second.result(1.0)
            ahead._build(graph, examples(), path)
        assert second.result(60.0) and built == [path], "the second has found what the first has made"
    assert list(cache.iterdir()) == [path]


@needs_a_compiler
def test_rows_of_a_table_are_taken_as_they_lie(built: list[Path]) -> None:
    def count(column: Tensor, total: Tensor) -> None:
        total.add_(column.sum(0))

    table, total = torch.arange(24.0).view(4, 3, 2), torch.zeros(1, 2)
    program = compile_ahead(count, [table[:, 0:1], total])
    for k in range(3):
        program([table[:, k : k + 1], total])
    assert torch.equal(total[0], table.sum((0, 1)))


@needs_a_compiler
def test_without_a_folder_a_program_is_made_all_the_same(
    built: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LADDER_SEARCH_CACHE", "/proc/nowhere")
    program = compile_ahead(descend, examples())
    torch.testing.assert_close(after(program, 1)[0], after(lambda t: descend(*t), 1)[0])
    assert not built[0].exists() and not cache.exists()


def test_a_program_that_cannot_be_made_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(*_: Any, package_path: str, **__: Any) -> None:
        Path(package_path).write_bytes(b"half of it")
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", half)
    with pytest.raises(RuntimeError, match="the disk is full"):
        compile_ahead(descend, examples())
    assert not list(cache.glob("*.pt2"))


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
