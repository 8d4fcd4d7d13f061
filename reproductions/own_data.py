"""Public data sets, read from files: ``LadderClassifier`` as proposed, beside scikit-learn's classifiers.

``python reproductions/own_data.py --output own-data.jsonl`` writes one line per data set, number of labels, draw and
method, and goes on where it was; ``--table own-data.jsonl`` prints the table. Every draw labels other rows of the
training part (in the shares of the classes) and hides the rest; the test part, 30 % of the rows or the own one, is
the same in all draws. All methods see the same rows. Settings are the libraries' defaults; nothing was tuned.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray
from sklearn import datasets as of_scikit_learn
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from ladder_search.classifier import LadderClassifier
from ladder_search.console.tables import Table
from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
from ladder_search.statistics import LEVEL, Summary, holm, paired

LABELS, DRAWS = (10, 30, 100), 10
LADDER = "LadderClassifier"
TABLES = ("iris", "wine", "breast_cancer", "digits")
"""Tables of scikit-learn, written to CSV files."""
IMAGES = ("usps", "chars74k", "meter-digits")
"""Rows of ``data.table.DATASETS``, written to NPZ files with every second pixel of each axis, 14 x 14."""


def methods(seed: int) -> dict[str, Any]:
    """Return the classifiers of one draw, by name."""

    def logistic() -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))

    return {
        LADDER: LadderClassifier(random_state=seed),
        "self-training": SelfTrainingClassifier(logistic()),
        "label spreading": make_pipeline(StandardScaler(), LabelSpreading(kernel="knn", n_neighbors=7)),
        "logistic regression": logistic(),
        "gradient boosting": HistGradientBoostingClassifier(random_state=seed),
        "random forest": RandomForestClassifier(500, random_state=seed),
    }


SEMI_SUPERVISED = (LADDER, "self-training", "label spreading")
"""Methods that also get the rows without labels."""


def write_files(name: str, folder: Path) -> DataConfig:
    """Write a data set as a user would have it; return the settings that read it."""
    if name in TABLES:
        bunch = getattr(of_scikit_learn, f"load_{name}")()
        columns = {f"column_{i}": bunch.data[:, i] for i in range(bunch.data.shape[1])}
        table = pa.table({**columns, "class": [f"class {target}" for target in bunch.target]})
        path = folder / f"{name}.csv"
        pyarrow.csv.write_csv(table, path)
        return DataConfig(file=str(path), target="class", test=0.3, labels=None, validation=0)
    dataset = datasets.load(name)
    paths = {}
    for part in ("train", "test"):
        x, y = getattr(dataset, f"{part}_x"), getattr(dataset, f"{part}_y")
        side = round(x[0].size ** 0.5)
        paths[part] = folder / f"{name}-{part}.npz"
        np.savez(paths[part], x=x.reshape(-1, side, side)[:, ::2, ::2], y=y)
    return DataConfig(file=str(paths["train"]), test_file=str(paths["test"]), labels=None, validation=0)


def cells(data: DataConfig, name: str, done: set[tuple[str, int, int, str]]) -> Iterator[dict[str, Any]]:
    """Yield one result per number of labels, draw and method that is not ``done``."""
    dataset = datasets.load(data)
    x, test_x = (np.nan_to_num(a.reshape(len(a), -1).astype(np.float64)) for a in (dataset.train_x, dataset.test_x))
    y, test_y = dataset.train_y.astype(int), dataset.test_y.astype(int)
    for labels in LABELS:
        if labels < dataset.n_classes or labels > len(y) - dataset.n_classes:
            continue
        for draw in range(DRAWS):
            labelled, _ = train_test_split(np.arange(len(y)), train_size=labels, stratify=y, random_state=draw)
            hidden = np.full_like(y, -1)
            hidden[labelled] = y[labelled]
            for method, classifier in methods(1000 + draw).items():
                if (name, labels, draw, method) in done:
                    continue
                rows = (x, hidden) if method in SEMI_SUPERVISED else (x[labelled], y[labelled])
                started = time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of solvers that stop early, and of absent pseudo-labels
                    predicted: NDArray[Any] = classifier.fit(*rows).predict(test_x)
                yield {
                    "data": name,
                    "rows": len(x),
                    "columns": x.shape[1],
                    "test_rows": len(test_y),
                    "labels": labels,
                    "draw": draw,
                    "method": method,
                    "test_error": float(np.mean(predicted != test_y)),
                    "cpu_seconds": round(time.process_time() - started, 2),
                }


def table(results: list[dict[str, Any]]) -> Table:
    """Return the test errors, mean ± sd over the draws, and the ladder's paired tests against the best other method."""
    names = list(dict.fromkeys(one["method"] for one in results))
    rows, differences, p_values = [], [], []
    for name, labels in dict.fromkeys((one["data"], one["labels"]) for one in results):
        errors: dict[str, list[float]] = {method: [] for method in names}
        for one in sorted(results, key=lambda one: one["draw"]):
            if (one["data"], one["labels"]) == (name, labels):
                errors[one["method"]].append(one["test_error"])
        n = min(map(len, errors.values()))
        if n < 2:
            continue
        summaries = {method: Summary.of(own[:n]) for method, own in errors.items()}
        best = min((method for method in names if method != LADDER), key=lambda method: summaries[method].mean)
        p_values.append(paired(errors[LADDER][:n], errors[best][:n]))
        differences.append(
            100 * statistics.fmean(a - b for a, b in zip(errors[LADDER][:n], errors[best][:n], strict=True))
        )
        shown = [f"{100 * summaries[method].mean:.1f} ± {100 * summaries[method].deviation:.1f}" for method in names]
        rows.append([name, str(labels), str(n), *shown, best, f"{differences[-1]:+.1f}"])
    for row, difference, p in zip(rows, differences, holm(p_values), strict=True):
        better = "better" if difference < 0 else "worse"
        row.append(f"{better}, p {p:.2g}" if p < LEVEL else f"no difference shown, p {p:.2g}")
    header = ("data", "labels", "n", *names, "best other", "difference", "LadderClassifier is")
    return Table(header=header, rows=rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file of results, one JSON object per line")
    parser.add_argument("--data", nargs="+", default=[*TABLES, *IMAGES], choices=[*TABLES, *IMAGES])
    parser.add_argument("--table", type=Path, help="print the table of a file of results")
    arguments = parser.parse_args()
    if arguments.table:
        results = [json.loads(line) for line in arguments.table.read_text(encoding="utf-8").splitlines()]
        print("\n".join(table(results).markdown()))
        return
    earlier = arguments.output.read_text(encoding="utf-8").splitlines() if arguments.output.exists() else []
    done = {(one["data"], one["labels"], one["draw"], one["method"]) for one in map(json.loads, earlier)}
    with tempfile.TemporaryDirectory() as folder, arguments.output.open("a", encoding="utf-8") as file:
        for name in arguments.data:
            for cell in cells(write_files(name, Path(folder)), name, done):
                file.write(json.dumps(cell) + "\n")
                file.flush()


if __name__ == "__main__":
    main()
