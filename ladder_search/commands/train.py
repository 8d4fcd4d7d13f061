"""``ladder-search train``: final training of one configuration over fresh seeds."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ladder_search.bundles.bundle import read_bundle
from ladder_search.bundles.shelf import Shelf
from ladder_search.bundles.stages import FOLDER
from ladder_search.commands.final_runs import record
from ladder_search.commands.sending import say_if_busy
from ladder_search.commands.training import at_least_one, find_device, reporting
from ladder_search.config import merge, parse_assignments
from ladder_search.console import Console
from ladder_search.data import datasets
from ladder_search.errors import UnknownNameError
from ladder_search.final.results import write_result
from ladder_search.final.training import confirmation_seeds, seeds_of, train_final, worth_compiling
from ladder_search.reproduction.contenders import seeds_of_searches
from ladder_search.statistics import LEVEL, Verdict
from ladder_search.studies import STUDIES, Study, find_study
from ladder_search.tracking.address import default_store, normal_store
from ladder_search.trial import TrialSpec

SECTIONS = ("data", "model", "training", "teacher", "sources")
"""Groups of settings that ``--set`` reaches."""


def run(arguments: argparse.Namespace) -> None:
    at_least_one(arguments, "seeds", "epochs", "curve")
    device = find_device(arguments.device)
    store = normal_store(arguments.tracking or default_store(arguments.root))
    say_if_busy(store)
    source = Path(arguments.bundle)
    study: Study | None
    if _is_bundle(arguments.bundle):
        bundle = read_bundle(source)
        spec, study = bundle.spec, STUDIES.get(bundle.study)
    else:
        study = find_study(arguments.bundle)
        spec = study.trial()
    used = seeds_of(spec) if study is None else seeds_of(spec) | seeds_of_searches(study, arguments.root)
    spec = _changed(spec, arguments.set or [], arguments.epochs)
    dataset = datasets.load(spec.data.dataset)
    console = Console()
    output = arguments.output or Path("final") / source.name
    seeds = confirmation_seeds(arguments.seeds, used)
    with reporting(console) as reporter:
        result = train_final(
            spec,
            dataset,
            seeds=seeds,
            study=study,
            compiled=worth_compiling(spec, dataset, len(seeds)),
            device=device,
            report=reporter.epoch,
            folder=output,
            networks=Shelf(arguments.root / FOLDER, device=device, notify=console.say, report=reporter.source_epoch),
            curve_every=arguments.curve,
        )
        write_result(output, result)
    record(result, output, name=source.name, store=store, console=console)
    for line in result.lines():
        console.say(line)
    if result.verdict in get_args(Verdict):
        console.say(
            f"The verdict is at {100 * LEVEL:g} %, as the only look at these seeds; see `reproduce` for several."
        )
    console.say(f"steps {'compiled' if result.compiled else 'not compiled'}")
    console.say(f"kept in {output}")


def _changed(spec: TrialSpec, assignments: Sequence[str], epochs: int | None) -> TrialSpec:
    changes = parse_assignments(assignments)
    for section in changes:
        if section not in SECTIONS:  # seeds and label draws are the training's own, see --seeds
            raise UnknownNameError("group of settings", section, SECTIONS)
    length = {} if epochs is None else {"training": {"epochs": epochs}}
    return TrialSpec.from_mapping(merge(merge(spec.as_mapping(), changes), length))


def _is_bundle(name: str) -> bool:
    """Whether a bundle is meant, there or not, and no study: a path, or a name like those that `export` gives."""
    return Path(name).is_dir() or os.sep in name or re.fullmatch(r"\d+-t\d+", name) is not None
