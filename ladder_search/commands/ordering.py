"""``ladder-search ordering``: trains what an ordering is about, and tests its claims over seeds."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import torch

from ladder_search.bundles.shelf import Shelf
from ladder_search.bundles.stages import FOLDER as SOURCES
from ladder_search.commands.ordering_runs import record
from ladder_search.commands.sending import say_if_busy
from ladder_search.commands.training import at_least_one, find_device, reporting
from ladder_search.console import Console
from ladder_search.data import datasets
from ladder_search.data.dataset import Dataset
from ladder_search.disk.files import write_atomically
from ladder_search.disk.folders import unwritable
from ladder_search.errors import SettingError, StudyFolderError
from ladder_search.final.missing import check_same_data, read_trained, shortened, train_missing
from ladder_search.final.results import FinalResult
from ladder_search.final.training import confirmation_seeds, seeds_of
from ladder_search.ordering.claims import Ordering, find_ordering
from ladder_search.ordering.judging import FILE, JudgedOrdering, Reached, judged, read_looks
from ladder_search.pictures import canvas
from ladder_search.pictures.intervals import differences
from ladder_search.pictures.learning import learning_bands
from ladder_search.report.orderings import as_markdown, print_ordering
from ladder_search.reproduction.contenders import seeds_of_searches
from ladder_search.reproduction.learning import Learning
from ladder_search.tracking.address import default_store, normal_store

FOLDER = "orderings"
"""Where orderings lie in the root folder, unless told."""
TRAINED = "trained"
"""Folder of the trainings beside them, which orderings share."""
MARKDOWN, PICTURE, CURVES = "ordering.md", "ordering", "learning-curves"
SEEDS = 5


def run(arguments: argparse.Namespace) -> None:
    at_least_one(arguments, "seeds", "epochs", "curve")
    ordering = find_ordering(arguments.ordering)
    for option in ("seeds", "curve"):
        given = getattr(arguments, option)
        if arguments.from_ is not None and given is not None:
            raise SettingError(
                f"--{option} says how to train and --from trains nothing, got --{option} {given} and --from "
                f"{arguments.from_}; leave one of them out."
            )
    epochs = _epochs(ordering, arguments.epochs)
    device = find_device(arguments.device)
    store = normal_store(arguments.tracking or default_store(arguments.root))
    say_if_busy(store)
    console = Console()
    output: Path = arguments.output or arguments.root / FOLDER / _named(ordering.name, epochs)
    earlier = read_looks(output, ordering, epochs)  # refused before anything is trained
    results = (
        _trained(ordering, epochs, arguments, device, console)
        if arguments.from_ is None
        else _read(ordering, epochs, arguments.from_)
    )
    check_same_data([result for of_study in results.values() for result in of_study])
    reached = [Reached.of(name, of_study, ordering.measure) for name, of_study in results.items()]
    if not frozenset[int].intersection(*(one.seeds for one in reached)):
        names = ", ".join(f"{one.study} on {min(one.seeds)} to {max(one.seeds)}" for one in reached)
        raise SettingError(f"an ordering is tested on seeds that all studies share, got {names}; train the same ones.")
    found = judged(ordering, reached, epochs=epochs, earlier=earlier)
    digests = {r.spec.data.dataset: r.data_digest for of_study in results.values() for r in of_study}
    _write(output, found, _learning(ordering, results))
    print_ordering(console, found)
    record(found, output, digests=digests, store=store, console=console)
    console.say(f"kept in {output}")


def _epochs(ordering: Ordering, asked: int | None) -> int | None:
    """The length that cuts schedules; None where all are the studies' own."""
    own = {study.training.epochs for study in ordering.found}
    if asked is not None and asked > min(own):
        raise SettingError(
            f"--epochs shortens an ordering's schedules, those of {ordering.name} have {min(own)} epochs, got {asked}; "
            "give fewer or none."
        )
    return None if own == {asked} else asked


def _trained(
    ordering: Ordering, epochs: int | None, arguments: argparse.Namespace, device: torch.device, console: Console
) -> dict[str, list[FinalResult]]:
    """Train what is not trained yet: every study on the same seeds."""
    studies = ordering.found
    specs = {study.name: shortened(study, epochs) for study in studies}
    data: dict[str, Dataset] = {}
    for study in studies:  # all are checked before the first is trained
        name = study.data.dataset
        data[name] = data.get(name) or datasets.load(name, notify=console.say)
        specs[study.name].check_fits(data[name])
    used = frozenset[int]().union(*(seeds_of(s.trial()) | seeds_of_searches(s, arguments.root) for s in studies))
    seeds = confirmation_seeds(arguments.seeds or SEEDS, used)
    found = {}
    with reporting(console) as reporter:
        shelf = Shelf(arguments.root / SOURCES, device=device, notify=console.say, report=reporter.source_epoch)
        for study in studies:
            found[study.name] = train_missing(
                study,
                specs[study.name],
                data[study.data.dataset],
                seeds=seeds,
                place=arguments.root / FOLDER / TRAINED / _named(study.name, epochs),
                device=device,
                shelf=shelf,
                report=partial(reporter.epoch, what=study.name),
                curve_every=arguments.curve,
            )
    return found


def _read(ordering: Ordering, epochs: int | None, folder: Path) -> dict[str, list[FinalResult]]:
    """Read what ``ladder-search train`` has finished, a folder for each study; those that are not there yet are not."""
    found = {}
    for study in ordering.found:
        result = read_trained(study, shortened(study, epochs), folder / study.name)
        if result is not None:
            found[study.name] = [result]
    if not found:
        raise StudyFolderError(
            f"--from names a folder with finished trainings of the ordering's studies, {folder} has none of "
            f"{', '.join(ordering.studies)}; name another, or leave --from out to train them."
        )
    return found


def _named(name: str, epochs: int | None) -> str:
    return name if epochs is None else f"{name}-{epochs}-epochs"


def _learning(ordering: Ordering, results: dict[str, list[FinalResult]]) -> list[Learning]:
    """Curves of the studies that were trained with any, and are judged by the ordering's measure."""
    curves = [
        Learning.where_told(study.name, study.title, results[study.name])
        for study in ordering.found
        if results.get(study.name) and study.measure.name == ordering.measure
    ]
    return [one for one in curves if one is not None]


def _write(output: Path, found: JudgedOrdering, learning: list[Learning]) -> None:
    content = (json.dumps(found.as_json(), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
    try:
        if (output / FILE).is_file() and (output / FILE).read_bytes() == content:
            return  # its time is that of what the tracking store has
        with canvas.style():
            canvas.save(differences(found), output, PICTURE)
            if learning:
                canvas.save(learning_bands(f"{found.ordering.name}: learning curves", learning), output, CURVES)
        write_atomically(output / MARKDOWN, lambda file: file.write(as_markdown(found).encode()))
        write_atomically(output / FILE, lambda file: file.write(content))
    except OSError as error:
        raise unwritable(output, error) from error
