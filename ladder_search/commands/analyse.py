"""``ladder-search analyse``: what a bundle's network has in it, by the analysis of its family."""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import torch

from ladder_search import wording
from ladder_search.analysis.result import Analysis, Part, kept_analysis, name_of, part_of, write_analysis
from ladder_search.bundles.bundle import Bundle, read_bundle
from ladder_search.commands.analysis_runs import record
from ladder_search.commands.column_analysis import COLUMNS
from ladder_search.commands.family_analysis import FamilyAnalysis
from ladder_search.commands.music_analysis import MUSIC
from ladder_search.commands.sending import say_if_busy
from ladder_search.commands.training import at_least_one, find_device
from ladder_search.commands.video_analysis import VIDEO
from ladder_search.config import build
from ladder_search.console import Console
from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.errors import SettingError
from ladder_search.metrics import NLL
from ladder_search.pictures import canvas
from ladder_search.provenance import collect
from ladder_search.tracking.address import default_store, normal_store

ANALYSES: dict[str, FamilyAnalysis] = {"progressive": COLUMNS, "recurrent": VIDEO, "sequence": MUSIC}
"""Family -> its analysis; a family that is not here has none. A recurrent network for music is analysed as all that are
for music."""

OPTIONS = ("rows", "seed", "draws", "noise", "half", "judged", "probe_steps", "steps")
"""Of the command that are settings of some analysis; the others do not take them."""


def run(arguments: argparse.Namespace) -> None:
    at_least_one(arguments, "rows", "draws", "judged", "probe_steps", "steps")
    device = find_device(arguments.device)
    store = normal_store(arguments.tracking or default_store(arguments.root))
    say_if_busy(store)
    source = Path(arguments.bundle)
    bundle = read_bundle(source)
    family = find_analysis(bundle)
    settings = _settings(family, bundle, arguments)
    part = part_of(bundle, test=arguments.test)
    console = Console()
    dataset = datasets.load(bundle.spec.data.dataset, notify=console.say)
    trained_on = bundle.provenance.get("data_digest")
    if trained_on not in (None, dataset.digest):
        console.say(f"note: the bundle was trained on other data called {dataset.name}: {str(trained_on)[:16]}…")
    settings, shown = family.choose(bundle, dataset, part, settings, arguments.rows)
    output: Path = arguments.output or Path("analyses") / source.resolve().name
    asked = name_of(bundle.digest, dataset.digest, part, settings)
    analysis = kept_analysis(output, asked, settings=family.settings, found=family.found)
    if analysis is None:
        analysis = _analyse(family, bundle, dataset, part, shown, settings, device, console)
        with canvas.style():
            drawn = family.draw(family.title(analysis), analysis.found)
            pictures = [canvas.contents(picture, name) for name, picture in drawn.items()]
        write_analysis(output, analysis, {name: content for files in pictures for name, content in files.items()})
    family.show(console, analysis)
    record(analysis, output, values=family.values(analysis.found), name=output.name, store=store, console=console)
    console.say(f"analysed in {wording.duration(analysis.seconds)} on {analysis.device}; kept in {output}")


def find_analysis(bundle: Bundle) -> FamilyAnalysis:
    """Return how the bundle's family is analysed.

    Raises:
        SettingError: it is not.
    """
    family = bundle.spec.family
    if family not in ANALYSES:
        raise SettingError(
            f"there are analyses of the families {', '.join(sorted(ANALYSES))} and {bundle.folder} is of the family "
            f"{family}; name another bundle."
        )
    return MUSIC if bundle.spec.measure == NLL else ANALYSES[family]


def _settings(family: FamilyAnalysis, bundle: Bundle, arguments: argparse.Namespace) -> Any:
    """Settings by the options that were given.

    Raises:
        SettingError: one of them is another analysis's, or breaks its rule.
    """
    given = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    known = {field.name for field in dataclasses.fields(family.settings)}
    foreign = [name for name in given if name not in known]
    if foreign:
        options = ", ".join(_option(name) for name in OPTIONS if name in known)
        raise SettingError(
            f"the analysis of {bundle.folder} has the options {options}, got {_option(foreign[0])}; leave it out."
        )
    return build(family.settings, given)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _analyse(
    family: FamilyAnalysis,
    bundle: Bundle,
    dataset: Dataset,
    part: Part,
    shown: Any,
    settings: Any,
    device: torch.device,
    console: Console,
) -> Analysis:
    started = time.perf_counter()
    found = family.run(bundle, dataset, shown, settings, device, lambda *where: _progress(console, *where))
    return Analysis(
        family=bundle.spec.family,
        study=bundle.study,
        bundle=bundle.digest,
        dataset=dataset.name,
        data_digest=dataset.digest,
        part=part,
        settings=settings,
        found=found,
        device=str(device),
        seconds=time.perf_counter() - started,
        provenance=collect(data_name=dataset.name, data_digest=dataset.digest),
    )


def _progress(console: Console, done: int, places: int, what: str) -> None:
    """One line that renews itself on a terminal, a line for each place in a file."""
    line = f"{done}/{places} done, next {what}"
    if console.redraws:
        console.update(line)
    else:
        console.say(line)
