"""``ladder-search analyse``: analyses a bundle's network, by the analysis of its family."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from ladder_search.commands.command_line import add_device, add_output, add_root, add_tracking, number, place
from ladder_search.console import Console

_OPTION = "settings."
"""Prefix of arguments that are settings of an analysis."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=place, help="a bundle's folder")
    text = "analyse the test set, not the validation rows; for bundles of a final training"
    parser.add_argument("--test", action="store_true", help=text)
    group = _Group(parser, "all analyses")
    group.add("rows", "examples to classify (default: 1000); sequences (6), grouped images (4) or pieces (1) to draw")
    group.add("seed", "seed of the choice of rows, and of noise (default: 1)", type=number(least=None))
    group = _Group(parser, "analysis of the columns of a progressive network")
    group.add("draws", "passes with fresh noise that are averaged (default: 5)")
    text = "scaled by each unit's deviation, or absolute (default: scaled)"
    group.add("noise", text, type=str, metavar="KIND")
    group.add("half", "half of the accuracy, or half way to chance (default: accuracy)", type=str, metavar="KIND")
    group = _Group(parser, "analysis of a recurrent network for video, or of a network that groups pixels")
    group.add("judged", "sequences or images of the measurements (default: 1000)")
    group.add("probe-steps", "training steps of the probe (default: 300)")
    group = _Group(parser, "analysis of a network that groups pixels of videos")
    group.add("beyond", "frames to generate after the last one seen (default: 5)", type=number(least=0))
    group = _Group(parser, "analysis of a network for music")
    group.add("steps", "steps of a piece to draw (default: 128)")
    add_device(parser)
    add_output(parser, "folder of the result (default: analyses/NAME)")
    add_tracking(parser)
    add_root(parser)


class _Group:
    """Options that are settings of an analysis; their arguments start with ``_OPTION``."""

    def __init__(self, parser: argparse.ArgumentParser, title: str) -> None:
        self._group = parser.add_argument_group(title)

    def add(self, name: str, text: str, **settings: Any) -> None:
        settings = {"type": number(), "metavar": "N", **settings}
        self._group.add_argument(f"--{name}", dest=_OPTION + name.replace("-", "_"), help=text, **settings)


def run(arguments: argparse.Namespace) -> None:
    from ladder_search import wording
    from ladder_search.analysis import result
    from ladder_search.bundles.bundle import read_bundle
    from ladder_search.commands.sending import open_store, send_result
    from ladder_search.commands.training import find_device
    from ladder_search.config import as_mapping, flat
    from ladder_search.data import datasets
    from ladder_search.pictures import canvas
    from ladder_search.report.analyses import find_analysis

    device = find_device(arguments.device)
    store = open_store(arguments)
    source = Path(arguments.bundle)
    bundle = read_bundle(source)
    family = find_analysis(bundle)
    options = {name.removeprefix(_OPTION): value for name, value in vars(arguments).items() if _OPTION in name}
    settings = family.read_settings(bundle, {name: value for name, value in options.items() if value is not None})
    part = result.part_of(bundle, test=arguments.test)
    console = Console()
    dataset = datasets.load(bundle.spec.data, notify=console.say)
    trained_on = bundle.provenance.get("data_digest")
    if trained_on not in (None, dataset.digest):
        console.say(f"note: the bundle was trained on other data called {dataset.name}: {str(trained_on)[:16]}…")
    settings, selection = family.choose(bundle, dataset, part, settings, options["rows"])
    output = arguments.output or Path("analyses") / source.resolve().name
    name = result.name_of(bundle.digest, dataset.digest, part, settings)
    analysis = result.kept_analysis(output, name, settings=family.settings, found=family.found)

    def report(done: int, places: int, what: str) -> None:
        """Print a line per place; a terminal redraws it."""
        (console.update if console.redraws else console.say)(f"{done}/{places} done, next {what}")

    if analysis is None:
        started = time.perf_counter()
        findings = family.run(bundle, dataset, selection, settings, device, report)
        seconds = time.perf_counter() - started
        analysis = result.Analysis.of(bundle, dataset, part, settings, findings, device=str(device), seconds=seconds)
        with canvas.style():
            pictures = family.draw(family.title(analysis), findings)
            files = {
                file: content
                for name, picture in pictures.items()
                for file, content in canvas.contents(picture, name).items()
            }
        result.write_analysis(output, analysis, files)
    family.show(console, analysis)
    send_result(
        output / result.ANALYSIS,
        command="analyse",
        kind="analysis",
        name=output.name,
        experiment=analysis.study or output.name,
        digest=analysis.asked,
        settings=flat(as_mapping(analysis.settings)),
        tags={
            "study": analysis.study,
            "family": analysis.family,
            "bundle": analysis.bundle,
            "part": analysis.part,
            "data.sha256": analysis.data_digest,
        },
        provenance=analysis.provenance,
        values={**family.values(analysis.found), "seconds": {0: analysis.seconds}},
        store=store,
        console=console,
    )
    console.say(f"analysed in {wording.duration(analysis.seconds)} on {analysis.device}; kept in {output}")
