"""Private names of other packages stand in ``ladder_search/internals``, each with the version it was read in."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = ("ladder_search", "trainables", "spaces", "benchmarks", "search", "tests")
INTERNALS = ROOT / "ladder_search" / "internals"
DOCUMENTED = {"_asdict", "_replace", "_fields", "_exit"}
"""Underscored names that the documentation of Python describes: those of named tuples, and ``os._exit``."""


def sources() -> list[Path]:
    folders = ("ladder_search", "trainables", "spaces", "benchmarks")
    return [ROOT / "search.py", *(path for name in folders for path in sorted((ROOT / name).rglob("*.py")))]


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def defined(tree: ast.AST) -> set[str]:
    """Names that a file defines: functions, classes, variables, and attributes of ``self`` and ``cls``."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return names


def root_of(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def foreign_private_names(tree: ast.AST, everywhere: set[str]) -> Iterator[str]:
    """Yield the private names of other packages that a file imports or reads.

    Args:
        everywhere: names that any of our files defines: a subclass reads those of its base class through ``self``.
    """
    here, imported = defined(tree), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [(alias.name, alias.asname or alias.name.partition(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [(f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names]
        else:
            continue
        for path, name in modules:
            if path.partition(".")[0] not in OWN:
                imported.add(name)
                if any(map(is_private, path.split("."))):
                    yield path
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root = root_of(node)
            known = here | everywhere if root in ("self", "cls") else here
            if root in imported or node.attr not in known:
                yield ast.unparse(node)


@pytest.fixture(scope="module")
def everywhere() -> set[str]:
    return set().union(*(defined(tree_of(path)) for path in sources()))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_of_others_stand_in_internals(path: Path, everywhere: set[str]) -> None:
    found = sorted(set(foreign_private_names(tree_of(path), everywhere)))
    assert path.parent == INTERNALS or not found, f"move {found} to ladder_search/internals"


@pytest.mark.parametrize(
    "text",
    [
        "import torch._dynamo",
        "from ray._private import services",
        "from optuna.samplers import _tpe",
        "import torch\nx = torch._C._aoti",
        "import torch as t\nx = t._fused_adam_",
        "def f(study):\n    return study._storage",
        "class A(B):\n    def f(self):\n        return self._brackets[0]",
        "from ray.job_config import JobConfig\njob = JobConfig()\njob._py_driver_sys_path = []",
    ],
)
def test_a_planted_name_is_found(text: str) -> None:
    assert list(foreign_private_names(ast.parse(text), set()))


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n    def __init__(self):\n        self._x = 1\n    def f(self, other):\n        return other._x",
        "import os\nos._exit(1)",
        "x = point._asdict()",
        "from ladder_search.nn import _helper",
    ],
)
def test_our_own_names_are_not(text: str) -> None:
    assert not list(foreign_private_names(ast.parse(text), set()))


def test_nothing_overrides_a_private_name_elsewhere() -> None:
    """A method that replaces a private one of a base class of another package."""
    overrides: list[str] = []
    for package in ("ladder_search", "trainables"):
        for info in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if info.name.startswith("ladder_search.internals"):
                continue
            module = importlib.import_module(info.name)
            for _, cls in inspect.getmembers(module, inspect.isclass):
                if cls.__module__ == info.name:
                    foreign = [base for base in cls.__mro__[1:] if base.__module__.partition(".")[0] not in OWN]
                    names = [name for name, value in vars(cls).items() if is_private(name) and inspect.isroutine(value)]
                    overrides += [
                        f"{info.name}.{cls.__name__}.{name}"
                        for name in names
                        if any(name in vars(base) and base.__module__ != "typing" for base in foreign)
                    ]
    assert not overrides, "move them to ladder_search/internals"


@pytest.mark.parametrize("name", sorted(path.stem for path in INTERNALS.glob("[!_]*.py")))
def test_a_file_of_private_names_was_read_in_the_pinned_version(name: str) -> None:
    read_in = importlib.import_module(f"ladder_search.internals.{name}").VERSION
    pinned = re.search(rf"(?m)^{name}(?:\[\w+\])?==([\d.]+)", (ROOT / "constraints.txt").read_text())
    assert pinned is not None and pinned[1].startswith(f"{read_in}.")
    assert version(name).startswith(f"{read_in}.")


@pytest.mark.parametrize("name", ["ray", "optuna", "torch", "mlflow"])
def test_packages_with_private_names_have_an_upper_bound(name: str) -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (line,) = (line for line in dependencies if re.match(rf"{name}\b", line))
    assert ",<" in line
