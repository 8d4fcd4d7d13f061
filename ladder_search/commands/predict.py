"""``ladder-search predict``: classes and probabilities of raw rows by a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ladder_search.commands.command_line import address, path
from ladder_search.console import Console

if TYPE_CHECKING:  # these are imported when the command runs
    import numpy as np
    from numpy.typing import NDArray

    from ladder_search.bundles.rows import RowClassifier
    from ladder_search.data.files.rows import Rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=path, help="a bundle's folder, of data from files")
    parser.add_argument("file", type=address, help="file or folder of rows with the columns of the training rows")
    text = "file of the predictions: Parquet, Arrow or CSV by its name"
    parser.add_argument("-o", "--output", type=path, default=Path("predictions.parquet"), metavar="FILE", help=text)


def run(arguments: argparse.Namespace) -> None:
    import torch

    from ladder_search.bundles.bundle import read_bundle
    from ladder_search.bundles.rows import RowClassifier
    from ladder_search.cores import usable_cores
    from ladder_search.data.files.formats import open_rows
    from ladder_search.data.files.predictions import check_output, write_predictions

    check_output(arguments.output)
    torch.set_num_threads(usable_cores())
    classifier = RowClassifier(read_bundle(arguments.bundle))
    rows = open_rows(arguments.file, "FILE")
    count = write_predictions(arguments.output, classifier.columns, classifier.classes, _parts(classifier, rows))
    Console().say(f"{count:,} rows classified, kept in {arguments.output}")


def _parts(classifier: RowClassifier, rows: Rows) -> Iterator[NDArray[np.float32]]:
    """Yield the probabilities of the rows, batch by batch."""
    start = 0
    wanted = [name for name in classifier.schema.names if name in rows.columns]  # encoding reports a missing one
    for batch in rows.batches(wanted):
        yield classifier.probabilities(batch, start=start)
        start += len(batch)
