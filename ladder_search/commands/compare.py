"""``ladder-search compare``: learning curves of several studies' configurations over the same seeds."""

from __future__ import annotations

import argparse
from functools import partial

from ladder_search.commands.command_line import add_output, add_training, place
from ladder_search.console import Console
from ladder_search.errors import SettingError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "studies or study files on one data set; transfer is measured against the first"
    parser.add_argument("study", nargs="+", type=place, help=text)
    add_training(parser, epochs="length of the schedules (default: the studies' own)")
    add_output(parser, "folder of curves and results (default: ROOT/comparisons/DATA)")


def run(arguments: argparse.Namespace) -> None:
    from ladder_search.commands.training import find_device, reporting
    from ladder_search.data import datasets
    from ladder_search.final.results import write_result
    from ladder_search.final.training import train_final
    from ladder_search.report.comparison import print_comparison, write_comparison
    from ladder_search.reproduction.contenders import fresh_seeds
    from ladder_search.reproduction.learning import Learning
    from ladder_search.studies import find_study

    studies = [find_study(name, arguments.root) for name in dict.fromkeys(arguments.study)]
    if len(studies) < 2 or len({study.data.name for study in studies}) > 1:
        names = ", ".join(f"{study.name} on {study.data.name}" for study in studies)
        raise SettingError(f"a comparison is of two studies or more on the same data, got {names}; name others.")
    if len({study.measure for study in studies}) > 1:
        names = ", ".join(f"{study.name} by its {study.measure.title}" for study in studies)
        raise SettingError(f"compared studies must be judged by the same measure, got {names}; name others.")
    device = find_device(arguments.device)
    console = Console()
    dataset = datasets.load(studies[0].data, notify=console.say)
    seeds = fresh_seeds(arguments.seeds, studies, arguments.root)
    output = arguments.output or arguments.root / "comparisons" / studies[0].data.title
    specs = [study.trial().changed({}, epochs=arguments.epochs) for study in studies]
    for spec in specs:  # check all before the first is trained
        spec.check_fits(dataset)
        for stage in spec.stages.values():
            stage.trial(spec.seed).check_fits(datasets.load(stage.data))
    curves = []
    with reporting(console) as reporter:
        for study, spec in zip(studies, specs, strict=True):
            result = train_final(
                spec,
                dataset,
                seeds=seeds,
                study=study,
                device=device,
                report=partial(reporter.epoch, what=study.name),
                folder=output / study.name,
                networks=reporter.shelf(arguments.root, device),
                curve_every=1,
            )
            write_result(output / study.name, result)
            curves.append(Learning.of(study.name, study.title, result))
    write_comparison(output, curves, f"{dataset.name}: learning curves")
    print_comparison(console, curves, dataset.name)
    console.say(f"kept in {output}")
