"""The console script ``ladder-search``: everything around a search; the search itself is ``search.py``."""

from __future__ import annotations

import argparse
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from ladder_search.errors import LadderSearchError, ResourceError, SettingError, StudyFolderError, run_command
from ladder_search.record import find_folder


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

    command("studies", _studies, "List the studies with their targets and the state of their data.")
    search = command("search", _search, "Run a search; the same as `python search.py`.")
    search.add_argument("arguments", nargs=argparse.REMAINDER, help="as for search.py")
    export = command("export", _export, "Write the best configurations of a search as bundles.")
    export.add_argument("study", help="study folder, its name, or a study: then its latest search")
    export.add_argument("--top", type=int, default=1, help="how many (1)")
    export.add_argument("-o", "--output", type=Path, default=Path("configs"), help="folder for the bundles (configs)")
    with_root(export)
    train = command("train", _train, "Final training: all training data, several seeds as one pack, test error.")
    train.add_argument("bundle", help="a bundle's folder, or a study: then its published configuration")
    train.add_argument("--seeds", type=int, default=10, help="how many fresh seeds (10)")
    train.add_argument("--epochs", type=int, help="length of the schedule (the bundle's own)")
    train.add_argument("-o", "--output", type=Path, help="folder for result and bundles (final/NAME)")
    train.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    ui = command("ui", _ui, "Open the MLflow pages of a store on this machine.")
    ui.add_argument("--tracking", help="MLflow store (the SQLite file in the root folder)")
    ui.add_argument("--port", type=int, default=5000)
    with_root(ui)
    sync = command("sync", _sync, "Send what searches recorded and the tracking store has not got yet.")
    sync.add_argument("study", nargs="*", help="study folders or names (all in the root folder)")
    sync.add_argument("--tracking", help="another store than the one of the search")
    with_root(sync)
    with_root(command("doctor", _doctor, "Say what works here, what does not, and what to do."))
    arguments = parser.parse_args()
    run: Callable[[argparse.Namespace], int | None] = arguments.run
    return run(arguments)


def _studies(arguments: argparse.Namespace) -> None:
    from ladder_search.data.datasets import state
    from ladder_search.studies import STUDIES

    console = Console()
    groups = {
        study.name: (study.target.source if study.target else "no published result", study.data.dataset)
        for study in STUDIES.values()
    }
    for source, dataset in dict.fromkeys(groups.values()):
        title = f"{source}; {dataset}: {state(dataset)}"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for header, width in (("study", 27), ("target (test error)", 28), ("what", None)):
            table.add_column(header, no_wrap=width is not None, min_width=width)
        for study in STUDIES.values():
            if groups[study.name] == (source, dataset):
                table.add_row(study.name, str(study.target or "none published"), study.title)
        console.print(table, "", highlight=False)


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
    from ladder_search.data import datasets
    from ladder_search.export.top import export_top
    from ladder_search.studies import find_study

    if arguments.top < 1:
        raise SettingError(f"--top must be at least 1, got {arguments.top}; give a positive whole number.")
    folder = find_folder(arguments.root, arguments.study)
    study = find_study(folder.description()["settings"]["study"])
    dataset = datasets.load(study.data.dataset)
    console = Console()
    for path in export_top(folder, top=arguments.top, output=arguments.output, dataset=dataset):
        console.print(f"{path}", highlight=False, soft_wrap=True)


def _train(arguments: argparse.Namespace) -> None:
    import torch

    from ladder_search.config import merge
    from ladder_search.data import datasets
    from ladder_search.export.bundle import read_bundle
    from ladder_search.export.final import FinalProgress, confirmation_seeds, seeds_of, train_final, worth_compiling
    from ladder_search.export.results import write_result
    from ladder_search.studies import STUDIES, Study, find_study
    from ladder_search.trial import TrialSpec

    if arguments.seeds < 1:
        raise SettingError(f"--seeds must be at least 1, got {arguments.seeds}; give a positive whole number.")
    if arguments.device not in ("cpu", "cuda"):
        raise SettingError(f"--device must be cpu or cuda, got {arguments.device!r}; choose one of them.")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("--device cuda needs a GPU that PyTorch can use, and there is none; choose --device cpu.")
    source = Path(arguments.bundle)
    study: Study | None
    if source.is_dir() or source.parent != Path("."):
        bundle = read_bundle(source)
        spec, study, used = bundle.spec, STUDIES.get(bundle.study), seeds_of(bundle.spec)
    else:
        study = find_study(arguments.bundle)
        spec, used = study.trial(), frozenset[int]()
    if arguments.epochs is not None:
        spec = TrialSpec.from_mapping(merge(spec.as_mapping(), {"training": {"epochs": arguments.epochs}}))
    dataset = datasets.load(spec.data.dataset)
    torch.set_num_threads(1)
    console = Console()
    output = arguments.output or Path("final") / source.name

    def report(progress: FinalProgress) -> None:
        left = progress.seconds_left / 60
        cost = fmean(terms["cost"] for terms in progress.costs.values()) if progress.costs else math.nan
        line = f"epoch {progress.epoch}/{progress.epochs}  cost {cost:.4g}  {left:.1f} min left"
        if console.is_terminal:
            console.print(line, end="\r")
        elif progress.epoch % max(1, progress.epochs // 10) == 0:
            console.print(line)

    seeds = confirmation_seeds(arguments.seeds, used)
    result = train_final(
        spec,
        dataset,
        seeds=seeds,
        study=study,
        compiled=worth_compiling(spec, dataset, len(seeds)),
        device=torch.device(arguments.device),
        report=report,
        folder=output,
    )
    write_result(output, result)
    console.print(f"{result}", highlight=False, soft_wrap=True)
    console.print(f"kept in {output}", highlight=False, soft_wrap=True)


def _ui(arguments: argparse.Namespace) -> int:
    from ladder_search.tracking.address import default_store, sqlite_path, ui_command, ui_environment

    store = arguments.tracking or default_store(arguments.root)
    path = sqlite_path(store)
    if path is not None and not path.exists():
        raise StudyFolderError(
            f"the store {path} does not exist yet; run `python search.py STUDY` first or name another --root."
        )
    print(f"MLflow on http://127.0.0.1:{arguments.port} (Ctrl-C ends it)", flush=True)
    return subprocess.call(ui_command(store, port=arguments.port), env={**os.environ, **ui_environment(store)})


def _sync(arguments: argparse.Namespace) -> int:
    from ladder_search.record import StudyFolder
    from ladder_search.tracking.writer import sync

    folders = [find_folder(arguments.root, name) for name in arguments.study]
    if not folders:
        folders = [StudyFolder(path.parent) for path in sorted(arguments.root.glob("*/study.json"))]
    failed = 0
    for folder in folders:
        try:
            description = folder.description()
            report = sync(folder.spool, arguments.tracking or description["store"], description["settings"]["study"])
            failed += not report.complete
            print(f"{folder.path.name}: {report}")
        except LadderSearchError as error:
            failed += 1
            print(f"{folder.path.name}: {error}", file=sys.stderr)
    if not folders:
        print(f"nothing to send: there is no study folder in {arguments.root}")
    return 2 if failed else 0


def _doctor(arguments: argparse.Namespace) -> int:
    from ladder_search.driver.doctor import examine

    return examine(Console(), arguments.root)


if __name__ == "__main__":
    main()
