"""The console script ``ladder-search``: everything around a search; the search itself is ``search.py``."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

from ladder_search.console import Console, run_command
from ladder_search.errors import LadderSearchError, SettingError
from ladder_search.paths import check_working_directory, expanded, expanded_address, expanded_path
from ladder_search.record.folder import absolute_place, find_folder

_STORE = "MLflow store (that of MLFLOW_TRACKING_URI, else the SQLite file in the root folder)"


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run_command(_main))


def _main() -> int | None:
    parser = argparse.ArgumentParser(
        prog="ladder-search", description="Find, track and confirm hyper-parameters of ladder networks."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=text)
        found.set_defaults(run=run)
        return found

    def with_root(found: argparse.ArgumentParser) -> None:
        found.add_argument("--root", type=Path, default=Path("results"), help="folder of the study folders (results)")

    def with_training(found: argparse.ArgumentParser, each: str) -> None:
        found.add_argument("--seeds", type=int, default=10, help=f"how many fresh seeds {each} (10)")
        found.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
        with_root(found)

    studies = command("studies", _studies, "List the studies: targets, state of their data, what was done with them.")
    with_root(studies)
    search = command("search", _search, "Run a search; the same as `python search.py`.")
    search.add_argument("arguments", nargs=argparse.REMAINDER, help="as for search.py")
    export = command("export", _export, "Write the best configurations of a search as bundles.")
    export.add_argument("study", help="study folder, its name, or a study: then its latest search")
    export.add_argument("--top", type=int, default=1, help="how many (1)")
    export.add_argument("-o", "--output", type=Path, default=Path("configs"), help="folder for the bundles (configs)")
    with_root(export)
    train = command("train", _train, "Final training: all training data, several seeds as one pack, test error.")
    train.add_argument("bundle", help="a bundle's folder, or a study: then its published configuration")
    train.add_argument("--epochs", type=int, help="length of the schedule (the bundle's own)")
    train.add_argument("--set", action="append", metavar="NAME=VALUE", help="override a setting: model.dropout=0.3")
    train.add_argument("--curve", type=int, metavar="EPOCHS", help="epochs between test errors to look at (none)")
    train.add_argument("-o", "--output", type=Path, help="folder for result and bundles (final/NAME)")
    train.add_argument("--tracking", help=_STORE)
    with_training(train, "to train on")
    analyse = command("analyse", _analyse, "What goes on in a bundle's network: columns, frames of a video, or music.")
    analyse.add_argument("bundle", help="a bundle's folder")
    analyse.add_argument("--test", action="store_true", help="the test set; for bundles of a final training")
    analyse.add_argument("--rows", type=int, help="examples to classify (1000), sequences (6) or pieces (1) to draw")
    analyse.add_argument("--seed", type=int, help="of what is looked at, and of noise (1)")
    analyse.add_argument("--draws", type=int, help="of columns: passes with fresh noise that are averaged (5)")
    analyse.add_argument("--noise", help="of columns: scaled by each unit's deviation, or absolute (scaled)")
    analyse.add_argument("--half", help="of columns: of the accuracy, or half way to chance (accuracy)")
    analyse.add_argument("--judged", type=int, help="of videos: sequences that numbers are taken of (1000)")
    analyse.add_argument("--probe-steps", type=int, help="of videos: steps that the probe is trained for (300)")
    analyse.add_argument("--steps", type=int, help="of music: steps of a piece to draw (128)")
    analyse.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    analyse.add_argument("-o", "--output", type=Path, help="folder for the result (analyses/NAME)")
    analyse.add_argument("--tracking", help=_STORE)
    with_root(analyse)
    reproduce = command("reproduce", _reproduce, "Published against found configurations, on the same fresh seeds.")
    reproduce.add_argument("study", nargs="+", help="studies; each is a group of rows of the table")
    reproduce.add_argument("--contenders", type=int, default=3, help="how many found configurations compete (3)")
    reproduce.add_argument("--epochs", type=int, help="a shorter schedule: named reduced, no verdict on the target")
    reproduce.add_argument("--time-budget", type=float, help="seconds; the same command goes on later")
    reproduce.add_argument("-o", "--output", type=Path, help="folder of the reproductions (ROOT/reproductions)")
    with_training(reproduce, "for each configuration")
    compare = command("compare", _compare, "Learning curves of several studies' own configurations, on the same seeds.")
    compare.add_argument("study", nargs="+", help="studies on one data set; transfer is measured against the first")
    compare.add_argument("--epochs", type=int, help="length of the schedules (the studies' own)")
    compare.add_argument("-o", "--output", type=Path, help="folder for curves and results (ROOT/comparisons/DATA)")
    with_training(compare, "for each study")
    ordering = command("ordering", _ordering, "Test what a table says of its rows together, over seeds of all of them.")
    ordering.add_argument("ordering", help="an ordering; `ladder-search studies` lists them")
    ordering.add_argument("--seeds", type=int, help="how many fresh seeds for each study (5)")
    ordering.add_argument("--epochs", type=int, help="shorter schedules: named reduced")
    ordering.add_argument("--curve", type=int, metavar="EPOCHS", help="epochs between test errors to look at (none)")
    from_ = "folder of finished trainings, one for each study, as `train` leaves them: nothing is trained"
    ordering.add_argument("--from", dest="from_", type=Path, metavar="FOLDER", help=from_)
    ordering.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    ordering.add_argument("-o", "--output", type=Path, help="folder for table and picture (ROOT/orderings/NAME)")
    ordering.add_argument("--tracking", help=_STORE)
    with_root(ordering)
    report = command("report", _report, "Write what was searched and reproduced as Markdown and HTML with pictures.")
    report.add_argument("name", nargs="*", help="searches, reproductions, or studies: their latest (all in the root)")
    report.add_argument("-o", "--output", type=Path, default=Path("report"), help="folder of the report (report)")
    with_root(report)
    ui = command("ui", _ui, "Open the MLflow pages of a store on this machine.")
    ui.add_argument("--tracking", help=_STORE)
    ui.add_argument("--port", type=int, default=5000)
    with_root(ui)
    sync = command("sync", _sync, "Send what searches recorded and the tracking store has not got yet.")
    sync.add_argument("study", nargs="*", help="study folders or names (all in the root folder)")
    sync.add_argument("--tracking", help="another store than the one of the search")
    with_root(sync)
    with_root(command("doctor", _doctor, "Say what works here, what does not, and what to do."))
    arguments = parser.parse_args()
    check_working_directory()
    _expand_paths(arguments)
    _take_store(arguments)
    run: Callable[[argparse.Namespace], int | None] = arguments.run
    return run(arguments)


def _expand_paths(arguments: argparse.Namespace) -> None:
    """Expand ``~`` and variables in every path among the arguments of a command."""
    for name, value in vars(arguments).items():
        if name in ("bundle", "study", "name"):  # the name of something or a path to it
            paths = value if isinstance(value, list) else [value]
            found = [expanded(path, name) for path in paths]
            setattr(arguments, name, found if isinstance(value, list) else found[0])
        elif name == "tracking" and value:
            arguments.tracking = expanded_address(value, "--tracking")
        elif isinstance(value, Path):
            setattr(arguments, name, expanded_path(value, f"--{name.rstrip('_')}"))


def _take_store(arguments: argparse.Namespace) -> None:
    """Let MLflow's variable name the store of a command with ``--tracking``; ``sync`` has those of the searches."""
    if "tracking" not in arguments:
        return
    from ladder_search.tracking.address import of_variable, variable_store, with_login

    if arguments.tracking:
        arguments.tracking = with_login(arguments.tracking)
    elif arguments.command != "sync":
        arguments.tracking = variable_store()
        if arguments.tracking:
            print(of_variable(arguments.tracking))


def _studies(arguments: argparse.Namespace) -> None:
    from ladder_search.commands.studies import run

    run(arguments)


def _train(arguments: argparse.Namespace) -> None:
    from ladder_search.commands.train import run  # imports torch, as some others do: seconds that only they need

    run(arguments)


def _analyse(arguments: argparse.Namespace) -> None:
    from ladder_search.commands.analyse import run

    run(arguments)


def _reproduce(arguments: argparse.Namespace) -> None:
    from ladder_search.commands.reproduce import run

    run(arguments)


def _compare(arguments: argparse.Namespace) -> None:
    from ladder_search.commands.compare import run

    run(arguments)


def _ordering(arguments: argparse.Namespace) -> None:
    from ladder_search.commands.ordering import run

    run(arguments)


def _report(arguments: argparse.Namespace) -> None:
    from ladder_search.commands.report import run

    run(arguments)


def _search(arguments: argparse.Namespace) -> None:
    script = Path(__file__).resolve().parent.parent / "search.py"
    if not script.is_file():
        raise SettingError(
            f"`ladder-search search` runs the checkout's search.py and {script} does not exist; run it from a checkout."
        )
    sys.argv = [str(script), *arguments.arguments]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


def _export(arguments: argparse.Namespace) -> None:
    from ladder_search.bundles.top import export_top
    from ladder_search.data import datasets
    from ladder_search.studies import find_study

    if arguments.top < 1:
        raise SettingError(f"--top must be at least 1, got {arguments.top}; give a positive whole number.")
    folder = find_folder(arguments.root, arguments.study)
    description = folder.description()
    begun = description.get("study", {}).get("data", {})  # with what was put over the study's own
    dataset = datasets.load(begun.get("dataset") or find_study(description["settings"]["study"]).data.dataset)
    console = Console()
    for path in export_top(folder, top=arguments.top, output=arguments.output, dataset=dataset):
        console.say(f"{path}")


def _ui(arguments: argparse.Namespace) -> int:
    from ladder_search.commands.ui import run

    return run(arguments)


def _sync(arguments: argparse.Namespace) -> int:
    from ladder_search.record.folder import StudyFolder
    from ladder_search.tracking.address import with_login
    from ladder_search.tracking.writer import sync

    folders = [find_folder(arguments.root, name) for name in arguments.study]
    if not folders:
        folders = [StudyFolder(path.parent) for path in sorted(arguments.root.glob("*/study.json"))]
    failed = 0
    for folder in folders:
        try:
            description = folder.description()
            store = arguments.tracking or with_login(absolute_place(description["store"], folder.path.parent))
            report = sync(folder.spool, store, description["settings"]["study"])
            failed += not report.complete
            print(f"{folder.path.name}: {report}")
        except LadderSearchError as error:
            failed += 1
            print(f"{folder.path.name}: {error}", file=sys.stderr)
    if not folders:
        print(f"nothing to send: there is no study folder in {arguments.root}")
    return 2 if failed else 0


def _doctor(arguments: argparse.Namespace) -> int:
    from ladder_search.commands.doctor import examine

    return examine(Console(), arguments.root)


if __name__ == "__main__":
    main()
