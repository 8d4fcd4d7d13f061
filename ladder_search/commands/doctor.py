"""``ladder-search doctor``: checks of this machine, with remedies."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ladder_search import environment
from ladder_search.commands.command_line import add_root, place
from ladder_search.console import Console
from ladder_search.cores import usable_cores
from ladder_search.disk.features import CONSEQUENCES, lacking
from ladder_search.driver import ray_address
from ladder_search.driver.ray_folder import ray_folder
from ladder_search.errors import LadderSearchError, installation
from ladder_search.tracking.address import check, default_store, redacted, variable_store
from ladder_search.training.compiling import compiler_problem

PACKAGES = (
    "torch", "numpy", "pyarrow", "safetensors", "pyyaml", "ray", "optuna", "cmaes", "mlflow", "scipy", "scikit-learn",
    "matplotlib", "pillow", "rich", "markdown-it-py",
)  # fmt: skip
WORKS, LACKS, FAILS = ("works", "green"), ("lacks", "yellow"), ("fails", "red")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "studies or study files whose settings and data are checked too"
    parser.add_argument("study", nargs="*", type=place, help=text)
    add_root(parser)


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    text: str
    remedy: str = ""
    works: bool = True
    optional: bool = False
    """Missing, but needed by some studies only: reported, but not counted as a failure of the machine."""


def run(arguments: argparse.Namespace) -> int:
    return examine(Console(), arguments.root, arguments.study)


def examine(console: Console, root: Path, studies: Sequence[str] = ()) -> int:
    """Print all findings; return 0 if everything that a search needs works, else 1."""
    broken = 0
    checks = (lambda: _studies(root, studies), lambda: _root(root), lambda: _file_system(root), lambda: _store(root))
    for look in (_python, _packages, _devices, _compiler, _variables, _data, *checks, _cluster, _launcher):
        for finding in look():
            broken += not finding.works
            mark = LACKS if finding.optional else WORKS if finding.works else FAILS
            tail = f" → {finding.remedy}" if finding.remedy else ""
            console.say(f"  {finding.name:<34} {finding.text}{tail}", mark=mark)
    return 1 if broken else 0


def _python() -> Iterator[Finding]:
    yield Finding("Python", sys.version.split()[0])


def _packages() -> Iterator[Finding]:
    for package in PACKAGES:
        try:
            yield Finding(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(package, "not installed", installation(), works=False)


def _devices() -> Iterator[Finding]:
    import torch

    cores = usable_cores()
    yield Finding("CPU", f"{cores} core{'s'[: cores != 1]} usable")
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    yield Finding("GPU", names if torch.cuda.is_available() else "none that PyTorch can use: trials run on the CPU")


def _compiler() -> Iterator[Finding]:
    from ladder_search.data.cache import CACHE_VARIABLE

    problem = compiler_problem()
    remedy = (
        "for about 1.7 times the speed on MNIST install g++, keep PyTorch in a folder without spaces, and let "
        f"{CACHE_VARIABLE} name a folder from which programs can be loaded"
    )
    if problem:
        yield Finding("C++ compiler", f"not usable, every search runs uncompiled: {problem}", remedy)
    else:
        yield Finding("C++ compiler", "usable: long searches compile their step")


def _data() -> Iterator[Finding]:
    from ladder_search.data import datasets
    from ladder_search.data.dataset import ABSENT

    for name, row in datasets.DATASETS.items():
        try:
            state = datasets.state(name)
            absent = state == ABSENT
            remedy = f"only needed for its own studies; get it from {' or '.join(row.sources)}" if absent else ""
            yield Finding(f"data {name}", state, remedy, optional=absent)
        except LadderSearchError as error:
            yield Finding(f"data {name}", str(error), works=False)


def _studies(root: Path, names: Sequence[str]) -> Iterator[Finding]:
    """Check the named studies, and those of files that were searched in ``root``."""
    from ladder_search.data import datasets
    from ladder_search.data.dataset import ABSENT
    from ladder_search.studies import definitions, find_study

    for name in dict.fromkeys((*names, *definitions(root))):
        try:
            study = find_study(name, root)
            state = datasets.state(study.data)
            remedy = f"data of the study must be there before it is searched: {study.data.name}"
            yield Finding(f"study {study.name}", f"its data are {state}", remedy * (state == ABSENT), state != ABSENT)
        except LadderSearchError as error:
            yield Finding(f"study {name}", str(error), works=False)


def _variables() -> Iterator[Finding]:
    names = environment.ignored()
    yield Finding("environment", environment.in_words(names) if names else "no variable that a search ignores")


def _existing(folder: Path) -> Path:
    """Return the folder, or its nearest existing parent."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def _root(root: Path) -> Iterator[Finding]:
    place = _existing(root)
    try:
        free = shutil.disk_usage(place).free / 2**30
        room = f"{free:.0f} GiB free"
    except OSError:  # a file system that does not report its size
        free, room = math.inf, "its free space is unknown"
    remedy = "free some space" if free < 1 else ""
    if not os.access(place, os.W_OK):
        remedy = "choose a folder that can be written with --root"
    yield Finding("results folder", f"{root} ({room})", remedy, works=not remedy)


def _file_system(root: Path) -> Iterator[Finding]:
    try:
        missing = lacking(_existing(root))
    except OSError:
        return  # reported by the line above
    text = "; ".join(f"it has no {name}: {CONSEQUENCES[name]}" for name in missing)
    yield Finding("its file system", text or "has locks, links and fsync of folders")


def _store(root: Path) -> Iterator[Finding]:
    try:
        store = variable_store()
    except LadderSearchError as error:
        yield Finding("tracking store", str(error), works=False)
        return
    text = redacted(store) + " (MLFLOW_TRACKING_URI)" if store else default_store(root)
    yield _tried("tracking store", text, lambda: check(store or default_store(root)))


def _cluster() -> Iterator[Finding]:
    def join() -> None:
        address = ray_address.find_address(None)
        if address:
            ray_address.check(address)

    variable = os.environ.get(ray_address.VARIABLE)
    yield _tried("Ray cluster", variable or "RAY_ADDRESS is not set: every search starts a private one", join)
    if not variable or variable == "local":
        notes = list[str]()

        def make() -> None:
            with ray_folder(notes.append):
                pass

        finding = _tried("folder of a private Ray", "has a short path and room", make)
        yield replace(finding, text="; ".join(notes) or finding.text)


def _launcher() -> Iterator[Finding]:
    missing = " and ".join(tool for tool in ("ssh", "rsync") if shutil.which(tool) is None)
    if missing:
        text = f"{missing} not found: no cluster can be started from here"
        yield Finding("cluster launcher", text, f"for `ray up` install {missing}")
    else:
        yield Finding("cluster launcher", "ssh and rsync found")


def _tried(name: str, text: str, attempt: Callable[[], None]) -> Finding:
    try:
        attempt()
    except LadderSearchError as error:
        return Finding(name, str(error), works=False)
    return Finding(name, text)
