"""How much memory do a large table and a search on it take?

The script writes a table of numbers, some of them missing, and of two categories, in batches. It then reads the file,
reads it again from the cache, and searches on it with ``search.py``, each in a process of its own. "PSS" is the memory
of all processes of a command together, in which memory that they share (the mapped cache, the object store) counts
once; it is sampled several times a second, and the table has the peak. The aim is a search on 1,000,000 rows x 100
columns within 4 GB. ``--trials 0`` only reads.

    nice -n 19 python -m benchmarks.large_table
    nice -n 19 python -m benchmarks.large_table --format csv
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.measure import Option, Report, Row, benchmark, say

BATCH = 50_000
SAMPLE_SECONDS = 0.25
LIMIT_GB = 4.0
READ = """
import sys
from ladder_search.data import datasets
from ladder_search.data.config import DataConfig
data = datasets.load(DataConfig(file=sys.argv[1], target="target"))
print(data.train_x.shape, data.train_x.dtype)
"""
STUDY = """\
family: ladder
data: {{file: {file}, target: target, labels: 1000, validation: 0.2}}
model: {{widths: [{inputs}, 50, 2], noise_std: [0.3, 0.3, 0.3], lambda_: [10, 1, 0.1]}}
training: {{epochs: 1, labelled_batch: 100, unlabelled_batch: 1000}}
stop: {{first_rung_steps: 1000, failure_error: 1.0, failure_steps: 1000}}
"""


def write_table(path: Path, rows: int, columns: int, kind: str) -> None:
    """Write a table of ``columns`` inputs and a target of two classes; the first ten numbers determine the class."""
    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, BATCH):
        n = min(BATCH, rows - start)
        x = rng.normal(size=(n, columns - 2)).astype(np.float32)
        target = np.where(x[:, :10].sum(1) + rng.normal(size=n) > 0, "yes", "no")
        x[:, ::7] = np.where(rng.random((n, len(range(0, columns - 2, 7)))) < 0.02, np.nan, x[:, ::7])
        names = [f"number{i}" for i in range(columns - 2)]
        table = pa.table(
            {name: pa.array(x[:, i], from_pandas=True) for i, name in enumerate(names)}
            | {f"category{i}": rng.choice(["a", "b", "c", "d"], n) for i in range(2)}
            | {"target": target}
        )
        if writer is None:
            make = pyarrow.parquet.ParquetWriter if kind == "parquet" else pyarrow.csv.CSVWriter
            writer = make(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def memory(root: int) -> float:
    """Return the proportional set size of a process and its descendants in GB."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    tree, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree |= more
        grown = bool(more)
    total = 0
    for pid in tree:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total * 1024 / 1e9


def measured(name: str, command: Sequence[str], environment: Mapping[str, str]) -> Row:
    """Run a command; return its seconds and the peak of its memory."""
    start, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(SAMPLE_SECONDS)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}:\n{text[-3000:]}")
    say(f"{name}: {text.strip().splitlines()[-1][:200]}")
    return {"what": name, "s": round(time.perf_counter() - start, 1), "peak PSS, GB": round(peak, 2)}


@benchmark(
    "How much memory do a large table and a search on it take?",
    Option("--rows", "rows of the table", 1_000_000, 2_000),
    Option("--columns", "columns of the table", 100, 12),
    Option("--format", "parquet or csv", "parquet", how={"choices": ["parquet", "csv"]}),
    Option("--trials", "trials of the search", 4, 2),
    one_process=False,
)
def main(report: Report, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="ladder-search-") as place:
        folder = Path(place)
        file, study = folder / f"table.{options.format}", folder / "large.yaml"
        say(f"writing {options.rows:,} rows x {options.columns} columns")
        write_table(file, options.rows, options.columns, options.format)
        numbers = options.columns - 2
        inputs = numbers + len(range(0, numbers, 7)) + 2 * 4  # indicators of missing values, and two categories of four
        study.write_text(STUDY.format(file=file, inputs=inputs), encoding="utf-8")
        environment = {"LADDER_SEARCH_CACHE": str(folder / "cache")}
        read = [sys.executable, "-c", READ, str(file)]
        search = [
            sys.executable,
            "search.py",
            str(study),
            "--trials",
            str(options.trials),
            "--root",
            str(folder / "root"),
        ]
        rows = [
            measured("reading the file", read, environment),
            measured("reading the cache", read, environment),
        ]
        if options.trials:
            rows.append(measured(f"a search of {options.trials} trials", search, environment))
        cache = sum(path.stat().st_size for path in (folder / "cache").glob("*.arrow"))
        report.table(f"{options.rows:,} rows x {options.columns} columns, {options.format}", rows)
        report.note(f"The file has {file.stat().st_size / 1e9:.2f} GB, the cache {cache / 1e9:.2f} GB.")
        peak = max(float(str(row["peak PSS, GB"])) for row in rows)
        report.note(f"Peak {peak:.2f} GB, limit {LIMIT_GB:g} GB: {'kept' if peak <= LIMIT_GB else 'exceeded'}.")


if __name__ == "__main__":
    main()
