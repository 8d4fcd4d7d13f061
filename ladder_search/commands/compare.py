"""``ladder-search compare``: learning curves of several studies' configurations over the same seeds."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

from ladder_search.bundles.shelf import Shelf
from ladder_search.bundles.stages import FOLDER
from ladder_search.commands.training import at_least_one, find_device, reporting
from ladder_search.config import merge
from ladder_search.console import Console
from ladder_search.console.tables import Table
from ladder_search.data import datasets
from ladder_search.disk.files import write_atomically
from ladder_search.disk.folders import unwritable
from ladder_search.disk.foreign import read_json
from ladder_search.errors import SettingError
from ladder_search.final.results import write_result
from ladder_search.final.training import confirmation_seeds, seeds_of, train_final, worth_compiling
from ladder_search.metrics import Measure
from ladder_search.pictures import canvas
from ladder_search.pictures.learning import learning_bands
from ladder_search.reproduction.contenders import seeds_of_searches
from ladder_search.reproduction.learning import Learning, as_json, differences, marks, transfer_scores
from ladder_search.studies import find_study
from ladder_search.trial import TrialSpec

FILE = "learning"
PICTURE = "learning-curves"
_LIMIT = 1 << 28


def run(arguments: argparse.Namespace) -> None:
    at_least_one(arguments, "seeds", "epochs")
    studies = [find_study(name) for name in dict.fromkeys(arguments.study)]
    if len(studies) < 2 or len({study.data.dataset for study in studies}) > 1:
        names = ", ".join(f"{study.name} on {study.data.dataset}" for study in studies)
        raise SettingError(f"a comparison is of two studies or more on the same data, got {names}; name others.")
    if len({study.measure for study in studies}) > 1:
        names = ", ".join(f"{study.name} by its {study.measure.title}" for study in studies)
        raise SettingError(f"compared studies must be judged by the same measure, got {names}; name others.")
    device = find_device(arguments.device)
    console = Console()
    dataset = datasets.load(studies[0].data.dataset, notify=console.say)
    used = frozenset[int]().union(*(seeds_of(s.trial()) | seeds_of_searches(s, arguments.root) for s in studies))
    seeds = confirmation_seeds(arguments.seeds, used)
    output: Path = arguments.output or arguments.root / "comparisons" / studies[0].data.dataset
    specs = [_shortened(study.trial(), arguments.epochs) for study in studies]
    for spec in specs:  # all are checked before the first is trained
        spec.check_fits(dataset)
        for stage in spec.stages.values():
            stage.trial(spec.seed).check_fits(datasets.load(stage.data.dataset))
    found = []
    with reporting(console) as reporter:
        shelf = Shelf(arguments.root / FOLDER, device=device, notify=console.say, report=reporter.source_epoch)
        for study, spec in zip(studies, specs, strict=True):
            folder = output / study.name
            result = train_final(
                spec,
                dataset,
                seeds=seeds,
                study=study,
                compiled=worth_compiling(spec, dataset, len(seeds)),
                device=device,
                report=partial(reporter.epoch, what=study.name),
                folder=folder,
                networks=shelf,
                curve_every=1,
            )
            write_result(folder, result)
            found.append(Learning.of(study.name, study.title, result))
    _write(output, found, f"{dataset.name}: learning curves")
    _tell(console, found, dataset.name)
    console.say(f"kept in {output}")


def _shortened(spec: TrialSpec, epochs: int | None) -> TrialSpec:
    if epochs is None:
        return spec
    return TrialSpec.from_mapping(merge(spec.as_mapping(), {"training": {"epochs": epochs}}))


def _write(output: Path, found: list[Learning], title: str) -> None:
    text = json.dumps(as_json(found, found[0].name), indent=1, allow_nan=False) + "\n"
    suffix = _suffix(output, [one.name for one in found])
    try:
        write_atomically(output / f"{FILE}{suffix}.json", lambda file: file.write(text.encode()))
        with canvas.style():
            canvas.save(learning_bands(title, found), output, f"{PICTURE}{suffix}")
    except OSError as error:
        raise unwritable(output, error) from error


def _suffix(output: Path, studies: list[str]) -> str:
    """Return what the names of a comparison's files end with: the folder may hold one of other studies, which stays."""
    try:
        if list(read_json(output / f"{FILE}.json", _LIMIT)["curves"]) == studies:
            return ""
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, LookupError, TypeError):
        pass  # whatever it is, it stays
    return f"-{hashlib.sha256(' '.join(studies).encode()).hexdigest()[:8]}"


def _tell(console: Console, found: list[Learning], dataset: str) -> None:
    seeds = max(len(one.curves) for one in found)
    measure, rises = found[0].measure, found[0].rises
    what = "accuracy in %" if rises else measure.label
    title = f"{dataset}: test {what}, mean ± standard deviation over {seeds} seeds, nothing held out"
    console.say(title)
    epochs = marks(found)
    rows = []
    scores = transfer_scores(found, found[0].name)
    for one in found:
        cells = [_cell(list(one.after(epoch).values()), measure) for epoch in epochs]
        score = f"{scores[one.name]:.3f}" if one.name in scores else "–"
        area = _cell(list(one.area.values()), measure)
        rows.append((one.name, *cells, area, score, str(len(one.diverged) or "–")))
    header = ("study", *(f"epoch {epoch}" for epoch in epochs), "area", "transfer", "lost")
    Table(header=header, rows=rows, left=("study",), plain=True).print(console, columns=110)
    transfer = f"transfer: area over that of {found[0].name}{'' if rises else ', less is better'}"
    console.print(f"{transfer}; lost: seeds that diverged")
    for moment in ("area", *(f"epoch {epoch}" for epoch in dict.fromkeys((epochs[0], epochs[-1])))) if epochs else ():
        pairs = math.comb(len(found), 2)
        console.print(f"Paired tests, {moment} (two-sided t-test over common seeds; p after Holm, over {pairs} pairs):")
        for d in differences(found, moment):
            apart = f"{measure.number(d.mean)} ± {measure.apart(d.deviation)}, n {d.n}, p {d.p:.3g}"
            side = "above" if rises else "below"
            console.say(f"  {d.better} {side} {d.worse}: {apart}")
    if epochs:
        console.print("Each p is of this table and moment: nothing corrects for other studies, moments or more seeds.")


def _cell(values: list[float], measure: Measure) -> str:
    if not values:
        return "–"
    return measure.number(fmean(values)) + (f" ± {measure.number(stdev(values))}" if len(values) > 1 else "")
