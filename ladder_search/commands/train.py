"""``ladder-search train``: final training of one configuration over fresh seeds."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import get_args

from ladder_search.commands.command_line import add_curve, add_output, add_tracking, add_training, place
from ladder_search.config import parse_assignments
from ladder_search.console import Console
from ladder_search.errors import UnknownNameError

SECTIONS = ("data", "model", "training", "teacher", "sources")
"""Groups of settings that ``--set`` can change."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "a bundle's folder, or a study or its file: then its own configuration"
    parser.add_argument("bundle", type=place, help=text)
    add_training(parser, epochs="length of the schedule (default: the configuration's own)")
    text = "override a setting, for example model.dropout=0.3"
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=text)
    add_curve(parser)
    add_output(parser, "folder of the result and its bundles (default: final/NAME)")
    add_tracking(parser)


def run(arguments: argparse.Namespace) -> None:
    from ladder_search.bundles.bundle import read_bundle
    from ladder_search.commands.final_runs import record
    from ladder_search.commands.sending import open_store
    from ladder_search.commands.training import find_device, reporting
    from ladder_search.data import datasets
    from ladder_search.final.results import write_result
    from ladder_search.final.training import confirmation_seeds, seeds_of, train_final
    from ladder_search.reproduction.contenders import check_searched_data, seeds_of_searches
    from ladder_search.statistics import LEVEL, Verdict
    from ladder_search.studies import STUDIES, find_study, is_study_file, own_studies

    device = find_device(arguments.device)
    store = open_store(arguments)
    source = Path(arguments.bundle)
    own = own_studies(arguments.root)
    name, study, bundle = source.name, None, None
    if _is_bundle(arguments.bundle) and not is_study_file(arguments.bundle):
        bundle = read_bundle(source)
        spec, study = bundle.spec, STUDIES.get(bundle.study) or own.get(bundle.study)
    elif is_study_file(arguments.bundle) or arguments.bundle in {**STUDIES, **own}:
        study = find_study(arguments.bundle, arguments.root)
        spec, name = study.trial(), study.name
    else:
        raise UnknownNameError("bundle or study", arguments.bundle, {**STUDIES, **own})
    used = seeds_of(spec) if study is None else seeds_of(spec) | seeds_of_searches(study, arguments.root)
    changes = parse_assignments(arguments.set)
    for section in changes:
        if section not in SECTIONS:  # the training sets seeds and label draws, see --seeds
            raise UnknownNameError("group of settings", section, SECTIONS)
    spec = spec.changed(changes, epochs=arguments.epochs)
    dataset = datasets.load(spec.data)
    if bundle is not None and bundle.spec.data.name == dataset.name:
        dataset.check_unchanged(bundle.provenance.get("data_digest"), f"the bundle {source}")
    elif study is not None:
        check_searched_data(study, dataset, arguments.root)
    console = Console()
    output = arguments.output or Path("final") / name
    with reporting(console) as reporter:
        result = train_final(
            spec,
            dataset,
            seeds=confirmation_seeds(arguments.seeds, used),
            study=study,
            device=device,
            report=reporter.epoch,
            folder=output,
            networks=reporter.shelf(arguments.root, device),
            curve_every=arguments.curve,
        )
        write_result(output, result)
    record(result, output, name=name, store=store, console=console)
    for line in result.lines():
        console.say(line)
    if result.verdict in get_args(Verdict):
        console.say(
            f"The verdict is at {100 * LEVEL:g} %, as the only look at these seeds; see `reproduce` for several."
        )
    console.say(f"steps {'compiled' if result.compiled else 'not compiled'}")
    console.say(f"kept in {output}")


def _is_bundle(name: str) -> bool:
    """Return whether ``name`` denotes a bundle, existing or not: a path, or a name as given by `export`."""
    return Path(name).is_dir() or os.sep in name or re.fullmatch(r"\d+-t\d+", name) is not None
