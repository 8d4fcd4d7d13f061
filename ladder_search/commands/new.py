"""``ladder-search new``: looks at data and writes a study file for them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladder_search.commands.command_line import address, number
from ladder_search.console import Console
from ladder_search.errors import SettingError, StudyFolderError, command_line

if TYPE_CHECKING:  # these are imported when the command runs
    from ladder_search.data.dataset import Dataset
    from ladder_search.data.files.schema import Column, RowSchema

_SHOWN = 40
"""Columns and classes that are listed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="name of the study; NAME.yaml is written")
    parser.add_argument("--data", type=address, required=True, metavar="FILE", help="file or folder of the examples")
    parser.add_argument(
        "--target", metavar="COLUMN", help="column of the classes (default: one called target or class)"
    )
    parser.add_argument("--test-file", type=address, metavar="FILE", help="examples for testing, with the same columns")
    parser.add_argument("--unlabelled-file", type=address, metavar="FILE", help="further examples without classes")
    parser.add_argument("--labels", type=number(), metavar="N", help="number of labels to use; the others are hidden")
    text = "column that is not read; may be repeated"
    parser.add_argument("--leave-out", action="append", default=[], metavar="COLUMN", help=text)
    text = "column of categories that looks like numbers or like free text; may be repeated"
    parser.add_argument("--categories", action="append", default=[], metavar="COLUMN", help=text)
    parser.add_argument("--image-size", type=number(), metavar="N", help="side in pixels to which images are resized")


def run(arguments: argparse.Namespace) -> None:
    from ladder_search.data import datasets
    from ladder_search.data.config import DataConfig
    from ladder_search.data.files.formats import open_rows
    from ladder_search.disk.files import write_atomically
    from ladder_search.disk.folders import unwritable
    from ladder_search.studies import STUDIES
    from ladder_search.studies.proposal import LEAST_TESTED, TEST, Facts, study_text, target_column
    from ladder_search.studies.study_file import check_name, parse_study_file

    check_name(arguments.name, STUDIES)
    output = Path(f"{arguments.name}.yaml")
    if output.exists() or output.is_symlink():
        raise StudyFolderError(f"a study file is not overwritten, {output} exists; delete it or choose another name.")
    console = Console()
    rows = open_rows(arguments.data, "--data", target=arguments.target)
    target = arguments.target or rows.target or target_column(rows.columns)
    if target is None:
        names = ", ".join(rows.columns[:12]) + (" …" if len(rows.columns) > 12 else "")
        raise SettingError(f"--target must name the column of the classes, none was given; choose one of {names}.")
    given: dict[str, Any] = {
        "file": arguments.data,
        "target": target if target != rows.target else None,
        "test_file": arguments.test_file,
        "unlabelled_file": arguments.unlabelled_file,
        "leave_out": arguments.leave_out or None,
        "categories": arguments.categories or None,
        "image_size": arguments.image_size,
    }
    given = {name: value for name, value in given.items() if value is not None}
    data = DataConfig(**{**given, **_tuples(given)}, labels=arguments.labels)
    dataset = datasets.load(data, notify=console.say)
    if not len(dataset.test_x):
        # A share of the labelled rows, unless it would take away what there is to learn from.
        if int((dataset.train_y >= 0).sum()) >= LEAST_TESTED:
            given["test"] = TEST
            data = DataConfig(**{**given, **_tuples(given)}, labels=arguments.labels)
            dataset = datasets.load(data)
        else:
            console.say(
                f"note: there are no test rows, and fewer than {LEAST_TESTED} labels to take some from: `train` and "
                "`reproduce` need --test-file."
            )
    assert dataset.schema is not None
    _show(console, dataset, dataset.schema)
    text = study_text(arguments.name, data, given, Facts.of(dataset, arguments.labels))
    parse_study_file(text, output, STUDIES).trial().check_fits(dataset)
    try:
        write_atomically(output, text.encode())
    except OSError as error:
        raise unwritable(output, error) from error
    console.say(f"wrote {output}; next: {command_line('search', output, trials=24)}")


def _tuples(given: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) for name, value in given.items() if isinstance(value, list)}


def _show(console: Console, dataset: Dataset, schema: RowSchema) -> None:
    """Print what the data are: rows, classes, and how each column is read."""
    import numpy as np

    from ladder_search.console.tables import Table

    y, tests = dataset.train_y, dataset.test_y
    unlabelled = int((y < 0).sum())
    console.say(
        f"{dataset.name}: {len(y):,} training rows, {unlabelled:,} of them unlabelled, and {len(tests):,} test rows; "
        f"{dataset.numbers:,} inputs, {dataset.n_classes} classes"
    )
    per_class = np.bincount(y[y >= 0], minlength=dataset.n_classes)
    of_tests = np.bincount(tests, minlength=dataset.n_classes)
    classes: list[tuple[str, ...]] = [
        (str(c), f"{n:,}", f"{m:,}") for c, n, m in zip(dataset.classes, per_class, of_tests, strict=True)
    ]
    Table(header=("class", "labelled", "test"), rows=_first(classes, "classes"), left=("class",), plain=True).print(
        console
    )
    columns: list[tuple[str, ...]] = [(column.name, _read_as(column)) for column in schema.columns]
    columns += [(name, f"left out: {reason}") for name, reason in schema.left_out.items()]
    Table(
        header=("column", "read as"), rows=_first(columns, "columns"), left=("column", "read as"), folded=("read as",),
        plain=True,
    ).print(console)  # fmt: skip


def _first(rows: list[tuple[str, ...]], what: str) -> list[tuple[str, ...]]:
    more = len(rows) - _SHOWN
    return rows if more <= 0 else [*rows[:_SHOWN], (f"… {more} more {what}", *[""] * (len(rows[0]) - 1))]


def _read_as(column: Column) -> str:
    if column.image is not None:
        image = column.image
        return f"image, {'colour' if image.channels == 3 else 'grey'}, {image.width} x {image.height}"
    values = column.vocabulary
    text = "number" if column.kind == "number" else f"{len(values)} categories: {', '.join(values[:5])}"
    text += " …" if len(values) > 5 else ""
    return f"{text}; missing values have an input" if column.missing else text
