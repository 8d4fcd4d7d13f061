"""``ladder-search analyse``: what the columns of a bundle's network contribute, by noise and by Fisher information."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ladder_search.commands.analysis_runs import record
from ladder_search.commands.training import at_least_one, find_device
from ladder_search.config import build
from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.data.whitening import Prepared
from ladder_search.driver import wording
from ladder_search.driver.pictures import canvas
from ladder_search.driver.pictures.sensitivity import column_shares
from ladder_search.driver.wording import NOTHING, percent, value
from ladder_search.errors import SettingError
from ladder_search.export.analysis import Analysis, Examples, examples, kept_analysis, name_of, part_of, write_analysis
from ladder_search.export.bundle import Bundle, read_bundle
from ladder_search.export.provenance import collect
from ladder_search.export.sensitivity import Sensitivity, SensitivityConfig, sensitivities
from ladder_search.tracking.address import check, default_store, normal_store

Report = Callable[[int, int, str], None]
"""Is told how much is done, of how much, and what is next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyAnalysis:
    """How a family is analysed and how that is shown; a row of ``ANALYSES``."""

    settings: type[Any]
    """A frozen dataclass with ``rows`` and ``seed``; its other fields are options of the command."""
    found: type[Any]
    """The frozen dataclass that ``run`` returns."""
    run: Callable[[Bundle, torch.nn.Module, torch.Tensor, torch.Tensor, Any, Report], Any]
    """(bundle, network, what it is handed, classes, settings, report) -> what was found."""
    show: Callable[[Console, Analysis], None]
    """Prints the table and its sentences."""
    pictures: Mapping[str, Callable[[str, Any], canvas.Picture]]
    """File name -> how it is drawn from a title and what was found."""
    values: Callable[[Any], Mapping[str, Mapping[int, float]]]
    """Metric -> step -> value, for the tracking store."""


def run(arguments: argparse.Namespace) -> None:
    at_least_one(arguments, "rows", "draws")
    device = find_device(arguments.device)
    store = normal_store(arguments.tracking or default_store(arguments.root))
    check(store)
    source = Path(arguments.bundle)
    bundle = read_bundle(source)
    family = find_analysis(bundle)
    options = {name: getattr(arguments, name) for name in ("draws", "seed", "noise", "half")}
    settings = build(family.settings, options)
    part = part_of(bundle, test=arguments.test)
    console = Console()
    dataset = datasets.load(bundle.spec.data.dataset, notify=lambda line: _say(console, line))
    trained_on = bundle.provenance.get("data_digest")
    if trained_on not in (None, dataset.digest):
        _say(console, f"note: the bundle was trained on other data called {dataset.name}: {str(trained_on)[:16]}…")
    shown = examples(bundle, dataset, part, rows=arguments.rows, seed=settings.seed, usual=settings.rows)
    settings = replace(settings, rows=len(shown.y))
    output: Path = arguments.output or Path("analyses") / source.resolve().name
    asked = name_of(bundle.digest, dataset.digest, part, settings)
    analysis = kept_analysis(output, asked, settings=family.settings, found=family.found)
    if analysis is None:
        analysis = _analyse(family, bundle, dataset, shown, settings, device, console)
        with canvas.style():
            drawn = {name: draw(_title(analysis), analysis.found) for name, draw in family.pictures.items()}
            pictures = [canvas.contents(picture, name) for name, picture in drawn.items()]
        write_analysis(output, analysis, {name: content for files in pictures for name, content in files.items()})
    family.show(console, analysis)
    record(analysis, output, values=family.values(analysis.found), name=output.name, store=store, console=console)
    _say(console, f"analysed in {wording.duration(analysis.seconds)} on {analysis.device}; kept in {output}")


def find_analysis(bundle: Bundle) -> FamilyAnalysis:
    """Return how the bundle's family is analysed.

    Raises:
        SettingError: it is not.
    """
    family = bundle.spec.family
    if family not in ANALYSES:
        raise SettingError(
            f"there is an analysis of the family {', '.join(sorted(ANALYSES))} and {bundle.folder} is of the family "
            f"{family}; name another bundle."
        )
    return ANALYSES[family]


def _analyse(
    family: FamilyAnalysis,
    bundle: Bundle,
    dataset: Dataset,
    shown: Examples,
    settings: Any,
    device: torch.device,
    console: Console,
) -> Analysis:
    network = bundle.module().to(device)
    dtype = next(network.parameters()).dtype
    x = torch.from_numpy(shown.x).to(device, dtype) / dataset.full_scale
    y = torch.from_numpy(shown.y).to(device).long()
    if isinstance(network, Prepared):
        x = network.prepared(x)
        network = network.network
    started = time.perf_counter()
    found = family.run(bundle, network, x, y, settings, lambda *where: _progress(console, *where))
    return Analysis(
        family=bundle.spec.family,
        study=bundle.study,
        bundle=bundle.digest,
        dataset=dataset.name,
        data_digest=dataset.digest,
        part=shown.part,
        settings=settings,
        found=found,
        device=str(device),
        seconds=time.perf_counter() - started,
        provenance=collect(data_name=dataset.name, data_digest=dataset.digest),
    )


def _columns(
    bundle: Bundle,
    network: torch.nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    settings: SensitivityConfig,
    report: Report,
) -> Sensitivity:
    spec = bundle.spec
    sources = [f"source {name}" for name in spec.stages] if spec.model.approach == "progressive" else []
    return sensitivities(network, x, y, settings, columns=(*sources, "target"), report=report)  # type: ignore[arg-type]


_HEADER = ("layer", "column", "units", "critical σ", "1/σ²", "APS", "Fisher", "AFS")


def _show_columns(console: Console, analysis: Analysis) -> None:
    found: Sensitivity = analysis.found
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for header in _HEADER:
        side = "left" if header == "column" else "right"
        table.add_column(
            wording.printable(console, header),
            justify=side,  # type: ignore[arg-type]
            no_wrap=header != "column",
            overflow="fold",  # a name is shown whole
        )
    for one in found.layers:
        insensitive = one.sigma is None
        cells = (
            str(one.layer) if one.column == found.layer(one.layer)[0].column else "",
            one.column,
            str(one.units),
            f"> {value(found.cap)}" if one.sigma is None else value(one.sigma),
            f"{'< ' if insensitive else ''}{value(one.precision)}",
            NOTHING if one.aps is None else f"{'< ' if insensitive else ''}{percent(one.aps, 1)}",
            value(one.fisher),
            percent(one.afs, 1),
        )
        table.add_row(*(Text(wording.printable(console, cell)) for cell in cells), style="dim" if insensitive else "")
    console.print("", Text(wording.printable(console, _title(analysis))), table, sep="\n", highlight=False)
    for line in _sentences(analysis):
        console.print(wording.printable(console, line), highlight=False, markup=False)


def _sentences(analysis: Analysis) -> list[str]:
    found, settings = analysis.found, analysis.settings
    unit = "standard deviations of each unit" if settings.noise == "scaled" else "units of the activations, for all"
    said = [
        f"Accuracy: {percent(found.accuracy)} on {found.rows} {analysis.part} rows; halved is {percent(found.halved)}, "
        f"over {settings.draws} draws of noise. σ is in {unit}.",
    ]
    if len(found.columns) == 1:
        said.append("One column: its shares are all 1, there is nothing to compare.")
    constant = [one for one in found.layers if one.constant]
    if constant:
        names = ", ".join(f"{one.constant} in layer {one.layer} of {one.column}" for one in constant)
        said.append(f"Units that never change, which take no scaled noise and carry no information: {names}.")
    if found.insensitive:
        names = ", ".join(f"layer {one.layer} of {one.column}" for one in found.insensitive)
        said.append(
            f"Insensitive: {names}. The greatest noise, σ = {value(found.cap)}, does not halve the accuracy; its "
            "precision enters the shares as the bound that it is."
        )
    return said


def _column_values(found: Sensitivity) -> dict[str, dict[int, float]]:
    values: dict[str, dict[int, float]] = {"accuracy": {0: found.accuracy}}
    for one in found.layers:
        for name, number in (("aps", one.aps), ("afs", one.afs), ("sigma", one.sigma), ("fisher", one.fisher)):
            if number is not None:
                values.setdefault(f"{name}/{one.column}", {})[one.layer] = number
    return values


ANALYSES: dict[str, FamilyAnalysis] = {
    "progressive": FamilyAnalysis(
        settings=SensitivityConfig,
        found=Sensitivity,
        run=_columns,
        show=_show_columns,
        pictures={"column-shares": column_shares},
        values=_column_values,
    ),
}
"""Family -> its analysis; a family that is not here has none."""


def _title(analysis: Analysis) -> str:
    name = analysis.study or "a bundle of no study"
    return f"{name}: {analysis.part} rows of {analysis.dataset}, {analysis.settings.noise} noise"


def _progress(console: Console, done: int, places: int, what: str) -> None:
    """One line that renews itself on a terminal, a line for each place in a file."""
    line = f"{done}/{places} done, next {what}"
    if console.is_terminal:
        console.print(f"{line:<{console.width - 1}}", end="\r", highlight=False, markup=False)
    else:
        _say(console, line)


def _say(console: Console, line: str) -> None:
    console.print(wording.printable(console, line), highlight=False, markup=False, soft_wrap=True)
