"""``ladder-search doctor``: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ladder_search import environment
from ladder_search.console import Console
from ladder_search.cores import usable_cores
from ladder_search.data import datasets
from ladder_search.data.cache import CACHE_VARIABLE
from ladder_search.data.dataset import ABSENT
from ladder_search.data.datasets import DATASETS
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
_COMPILER_REMEDY = (
    "for about 1.7 times the speed on MNIST install g++, keep PyTorch in a folder without spaces, and let "
    f"{CACHE_VARIABLE} name a folder from which programs can be loaded"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    works: bool
    found: str
    remedy: str = ""
    optional: bool = False
    """Not here, and only a few studies need it: told as lacking, and no failure of the machine."""


def examine(console: Console, root: Path) -> int:
    """Print all findings; return 0 when everything that a search needs works, else 1."""
    broken = 0
    here = (lambda: _root(root), lambda: _file_system(root), lambda: _store(root))
    for look in (_python, _packages, _devices, _compiler, _variables, _data, *here, _cluster, _launcher):
        for finding in look():
            broken += not finding.works
            mark = LACKS if finding.optional else WORKS if finding.works else FAILS
            tail = f" → {finding.remedy}" if finding.remedy else ""
            console.say(f"  {finding.name:<34} {finding.found}{tail}", mark=mark)
    return 1 if broken else 0


def _python() -> Iterator[Finding]:
    version = sys.version.split()[0]
    yield Finding(
        name="Python",
        works=sys.version_info >= (3, 11),
        found=version,
        remedy="" if sys.version_info >= (3, 11) else "install Python 3.11 or later",
    )


def _packages() -> Iterator[Finding]:
    for package in PACKAGES:
        try:
            yield Finding(name=package, works=True, found=importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name=package, works=False, found="not installed", remedy=installation())


def _devices() -> Iterator[Finding]:
    import torch

    cores = usable_cores()
    yield Finding(name="CPU", works=True, found=f"{cores} core{'s'[: cores != 1]} usable")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding(name="GPU", works=True, found=names)
    else:
        yield Finding(name="GPU", works=True, found="none that PyTorch can use: trials run on the CPU")


def _compiler() -> Iterator[Finding]:
    problem = compiler_problem()
    yield Finding(
        name="C++ compiler",
        works=True,
        found=f"not usable, every search runs uncompiled: {problem}"
        if problem
        else "usable: long searches compile their step",
        remedy=_COMPILER_REMEDY if problem else "",
    )


def _data() -> Iterator[Finding]:
    for name, row in DATASETS.items():
        try:
            found = datasets.state(name)
            absent = found == ABSENT
            remedy = f"its own studies alone need it, from {' or '.join(row.sources)}" if absent else ""
            yield Finding(name=f"data {name}", works=True, found=found, remedy=remedy, optional=absent)
        except LadderSearchError as error:
            yield Finding(name=f"data {name}", works=False, found=str(error))


def _variables() -> Iterator[Finding]:
    names = environment.ignored()
    found = environment.in_words(names) if names else "nothing in it that a search would ignore"
    yield Finding(name="environment", works=True, found=found)


def _root(root: Path) -> Iterator[Finding]:
    place = root.absolute()
    while not place.exists():
        place = place.parent
    try:
        free = shutil.disk_usage(place).free / 2**30
        room = f"{free:.0f} GiB free"
    except OSError:  # a file system that does not report its size
        free, room = math.inf, "its free space is unknown"
    writable = os.access(place, os.W_OK)
    remedy = (
        "choose a folder that can be written with --root" if not writable else "free some space" if free < 1 else ""
    )
    yield Finding(name="results folder", works=writable and free >= 1, found=f"{root} ({room})", remedy=remedy)


def _file_system(root: Path) -> Iterator[Finding]:
    place = root.absolute()
    while not place.exists():
        place = place.parent
    try:
        missing = lacking(place)
    except OSError:
        return  # the line above says that the folder cannot be written
    told = "; ".join(f"it has no {name}: {CONSEQUENCES[name]}" for name in missing)
    yield Finding(name="its file system", works=True, found=told or "has locks, links and fsync of folders")


def _store(root: Path) -> Iterator[Finding]:
    try:
        store = variable_store()
    except LadderSearchError as error:
        yield Finding(name="tracking store", works=False, found=str(error))
        return
    found = redacted(store) + " (MLFLOW_TRACKING_URI)" if store else default_store(root)
    yield _tried("tracking store", found, lambda: check(store or default_store(root)))


def _cluster() -> Iterator[Finding]:
    def join() -> None:
        address = ray_address.find_address(None)
        if address:
            ray_address.check(address)

    found = os.environ.get(ray_address.VARIABLE)
    yield _tried("Ray cluster", found or "RAY_ADDRESS is not set: every search starts a private one", join)
    if not found or found == "local":
        notes = list[str]()

        def make() -> None:
            with ray_folder(notes.append):
                pass

        finding = _tried("folder of a private Ray", "has a short path and room", make)
        yield replace(finding, found="; ".join(notes) or finding.found)


def _launcher() -> Iterator[Finding]:
    missing = " and ".join(tool for tool in ("ssh", "rsync") if shutil.which(tool) is None)
    found = f"{missing} not found: no cluster can be started from here" if missing else "ssh and rsync found"
    remedy = f"for `ray up` install {missing}" if missing else ""
    yield Finding(name="cluster launcher", works=True, found=found, remedy=remedy)


def _tried(name: str, found: str, attempt: Callable[[], None]) -> Finding:
    try:
        attempt()
    except LadderSearchError as error:
        return Finding(name=name, works=False, found=str(error))
    return Finding(name=name, works=True, found=found)
