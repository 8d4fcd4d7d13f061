"""``ladder-search ordering``: trains the studies of an ordering, and tests its claims over seeds."""

from __future__ import annotations

import argparse
from functools import partial

from ladder_search.commands.command_line import add_curve, add_output, add_tracking, add_training, path
from ladder_search.console import Console
from ladder_search.errors import SettingError

SEEDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ordering", help="an ordering; `ladder-search studies` lists them")
    add_training(parser, epochs="shorter schedules, marked as reduced", seeds=None)
    add_curve(parser)
    text = "folder of finished trainings, one for each study, as `train` leaves them: nothing is trained"
    parser.add_argument("--from", dest="from_", type=path, metavar="FOLDER", help=text)
    add_output(parser, "folder of table and picture (default: ROOT/orderings/NAME)")
    add_tracking(parser)


def run(arguments: argparse.Namespace) -> None:
    from ladder_search.commands.sending import open_store, send_result
    from ladder_search.commands.training import find_device, reporting
    from ladder_search.final.missing import check_same_data
    from ladder_search.final.training import train_final
    from ladder_search.ordering import trainings
    from ladder_search.ordering.claims import find_ordering, trained
    from ladder_search.ordering.judging import FILE, Reached, judged, read_looks
    from ladder_search.provenance import collect
    from ladder_search.report.orderings import print_ordering, verdict, write_ordering

    ordering = find_ordering(arguments.ordering)
    for option in ("seeds", "curve"):
        value = getattr(arguments, option)
        if arguments.from_ is not None and value is not None:
            raise SettingError(
                f"--{option} says how to train and --from trains nothing, got --{option} {value} and --from "
                f"{arguments.from_}; leave one of them out."
            )
    epochs = trainings.shortened_to(ordering, arguments.epochs)
    device = find_device(arguments.device)
    store = open_store(arguments)
    console = Console()
    root = arguments.root
    output = arguments.output or root / trainings.FOLDER / trainings.folder_name(ordering.name, epochs)
    earlier = read_looks(output, ordering, epochs)  # raises before anything is trained
    if arguments.from_ is not None:
        results = trainings.read_all(ordering, epochs, arguments.from_)
    else:
        with reporting(console) as reporter:
            shelf = reporter.shelf(root, device)
            results = trainings.train_all(
                ordering,
                epochs,
                seeds=arguments.seeds or SEEDS,
                root=root,
                train=partial(train_final, device=device, networks=shelf, curve_every=arguments.curve),
                report=reporter.epoch,
                notify=console.say,
            )
    check_same_data([result for of_study in results.values() for result in of_study])
    reached = [
        Reached.of(name, results[trained(name)], ordering.measure_of(name))
        for name in ordering.studies
        if trained(name) in results
    ]
    if not frozenset[int].intersection(*(one.seeds for one in reached)):
        names = ", ".join(f"{one.study} on {min(one.seeds)} to {max(one.seeds)}" for one in reached)
        raise SettingError(f"an ordering is tested on seeds that all studies share, got {names}; train the same ones.")
    tested = judged(ordering, reached, epochs=epochs, earlier=earlier)
    write_ordering(output, tested, trainings.learning_curves(ordering, results))
    print_ordering(console, tested)
    digests = {r.spec.data.name: r.data_digest for of_study in results.values() for r in of_study}
    data_name, data_digest = min(digests.items())
    send_result(
        output / FILE,
        command="ordering",
        kind="ordering",
        name=ordering.name,
        experiment=ordering.name,
        digest=tested.digest,
        settings={"seeds": len(tested.seeds), "epochs": "the studies' own" if epochs is None else epochs},
        tags={
            "ordering": ordering.name,
            "source": ordering.source,
            "measure": ordering.measure,
            "verdict": tested.verdict,
            "summary": verdict(tested),
            **{f"data.sha256.{name}": digest for name, digest in digests.items()},
        },
        provenance=collect(data_name=data_name, data_digest=data_digest),
        values={name: {0: value} for name, value in tested.values.items()},
        store=store,
        console=console,
    )
    console.say(f"kept in {output}")
