"""Two thousand damaged and hostile files, each read or refused in one sentence: no crash, no hang, bounded memory.

More of them, other ones each time: ``LADDER_SEARCH_FUZZ=50 pytest tests/properties/test_fuzz.py`` tries fifty times as
many. A failure names its case, ``bundle/17``; ``LADDER_SEARCH_FUZZ_CASE=17`` with ``-k bundle`` tries that one alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from ladder_search.bundles import load
from ladder_search.bundles.bundle import BundleMetrics, write_bundle
from ladder_search.commands.search import parse_arguments
from ladder_search.config import as_mapping
from ladder_search.data import cache
from ladder_search.data.arrays import Arrays, content_digest, quiet
from ladder_search.data.config import DataConfig
from ladder_search.errors import DataError, LadderSearchError
from ladder_search.final.checkpoints import TrainingState, read_progress, write_progress
from ladder_search.final.results import FinalResult, SeedResult, read_result, write_result
from ladder_search.models.ladder import LadderConfig
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import TrialRecord
from ladder_search.reproduction.contenders import Contender, Outcome
from ladder_search.reproduction.reproduction import Reproduction, read_reproduction
from ladder_search.studies import find_study
from ladder_search.training.checkpoint import read_member, write_member
from ladder_search.training.pack import MemberState
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import TrialSpec
from tests.properties.mutations import ANY, Mutation, kind_of_file, structure, tensors, yaml_lines

TIMES = int(os.environ.get("LADDER_SEARCH_FUZZ", "1"))
ONE = os.environ.get("LADDER_SEARCH_FUZZ_CASE")
ROOM = 1 << 30
"""Bytes that reading a file of some kilobytes may use; PyTorch's own are not counted."""

SPEC = TrialSpec(
    family="ladder",
    data=DataConfig(dataset="digits", labels=50, validation=97),
    model=LadderConfig(widths=(4, 3, 2), noise_std=(0.3, 0.2, 0.1), lambda_=(100.0, 1.0, 0.1)),
    training=TrainingConfig(epochs=4, unlabelled_batch=200),
)
NETWORK = SPEC.empty_module()
HISTORY = ({"epoch": 1, "step": 6, "cost": 2.5}, {"epoch": 2, "step": 12, "cost": None})
ARRAYS = Arrays(
    np.arange(60, dtype=np.uint8).reshape(5, 4, 3), np.arange(5, dtype=np.uint8),
    np.arange(24, dtype=np.uint8).reshape(2, 4, 3), np.arange(2, dtype=np.uint8),
)  # fmt: skip


def seal_bundle(folder: Path) -> None:
    """Make a manifest for whatever is in the folder, as an attacker would."""
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
    digest = hashlib.sha256("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()).hexdigest()
    (folder / "MANIFEST.json").write_text(json.dumps({**manifest, "files": sums, "digest": digest}))


def seal_member(folder: Path) -> None:
    sha256 = hashlib.sha256((folder / "tensors.safetensors").read_bytes()).hexdigest()
    description = json.loads((folder / "member.json").read_bytes())
    (folder / "member.json").write_text(json.dumps({**description, "sha256": sha256}))


def a_member() -> MemberState:
    params, first, second = ({n: v.detach().clone() for n, v in NETWORK.named_parameters()} for _ in range(3))
    return MemberState(step=12, params=params, first=first, second=second)


def make_bundle(folder: Path) -> None:
    metrics = BundleMetrics(trial="t0007", state="COMPLETE", validation_error=0.125, epochs=HISTORY)
    write_bundle(folder, study="x", spec=SPEC, module=NETWORK, metrics=metrics, provenance={"git_sha": "a", "cores": 2})


def use_bundle(folder: Path) -> None:
    network = load(folder)
    assert network(torch.zeros(3, 4, dtype=next(network.parameters()).dtype)).shape == (3, 2)


def make_result(folder: Path) -> None:
    outcomes = (
        SeedResult(seed=1001, test_error=0.1, epochs=HISTORY),
        SeedResult(seed=1002, test_error=None, diverged_epoch=2),
    )
    result = FinalResult(
        study="mnist-100-full", spec=SPEC, target=find_study("mnist-100-full").target, outcomes=outcomes,
        data_digest="d" * 64, settings_digest="5" * 64, compiled=False, device="cpu", seconds=12.5,
        modules={1001: NETWORK},
    )  # fmt: skip
    write_result(folder, result, provenance={})


def make_reproduction(folder: Path) -> None:
    published = Contender(
        name="published", settings=SPEC.as_mapping(), outcomes=(Outcome(seed=1001, test_error=0.1),), folders=("a",)
    )
    found = Reproduction(
        study="digits-100", epochs=4, seeds=(1001, 1002), device="cpu", data_digest="d" * 64,
        contenders=(published, replace(published, name="t0007", search="s", validation_error=0.1)),
    ).with_table()  # fmt: skip
    folder.mkdir()
    (folder / "race.json").write_text(json.dumps({"format": "ladder-search race 2", **as_mapping(found)}))


def use_reproduction(folder: Path) -> None:
    found = read_reproduction(folder)
    assert found.contenders[0].name == "published" and isinstance(found.complete and found.reduced, bool)


def make_search(folder: Path) -> None:
    study = StudyFolder(folder)
    study.create({"settings": {"study": "digits-100", "overrides": {}}, "store": "sqlite:///x.db", "provenance": {}})
    study.write_trial(
        TrialRecord(
            key="t0007", number=7, name="", state="COMPLETE", reason="trained", params={"model/lambda_0": 1000.0},
            settings=SPEC.as_mapping(), epochs=HISTORY, validation_error=0.25, seconds=1.5, checkpoint="checkpoints/x",
        )
    )  # fmt: skip


CONFIG = """
study: digits-100
trials: 12
sampler: tpe
time-budget: 1e3
name: mine
root: results
set:
  training:
    lr: 0.002
    epochs: 30
  model:
    combinator: vanilla
    noise_std: [0.3, 0.2, 0.2, 0.1]
    widths: [64, 100, 50, 10]
    lambda_: [1000, 10, 0.1, 0.1]
  space:
    lambda_: per-layer
"""


def make_config(folder: Path) -> None:
    folder.mkdir()
    (folder / "search.yaml").write_text(CONFIG)


def make_assignments(folder: Path) -> None:
    folder.mkdir()
    (folder / "set").write_text("training.lr: 0.002\nmodel.combinator: vanilla\nspace.combinators: gauss,vanilla\n")


def use_assignments(folder: Path) -> None:
    lines = (folder / "set").read_text(errors="surrogateescape").splitlines()
    given = [argument for line in lines for argument in ("--set", line.replace(": ", "=", 1))]
    parse_arguments(["digits-100", *given])


def use_cache(folder: Path) -> None:
    """A damaged file is built again; here there is nothing to build it from."""

    def gone() -> Arrays:
        raise DataError("nothing to build it from.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LADDER_SEARCH_CACHE", str(folder))
        found, _ = cache.load_or_build("toy", content_digest(ARRAYS), gone, quiet)
    assert all(np.array_equal(one, other) for one, other in zip(found, ARRAYS, strict=True))


def make_cache(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LADDER_SEARCH_CACHE", str(folder))
        cache.load_or_build("toy", content_digest(ARRAYS), lambda: ARRAYS, quiet)
    (folder / "toy.v1.arrow.lock").unlink()


@dataclass(frozen=True)
class Target:
    """Something that is read: how it is made, how it is read, and what is done to which of its files."""

    cases: int
    make: Callable[[Path], object]
    use: Callable[[Path], object]
    files: dict[str, Mutation | None]
    """Path -> a mutation that knows the file's format."""
    seal: Callable[[Path], None] | None = None
    """Mends the digests after a mutation."""


TARGETS = {
    "bundle": Target(
        500,
        make_bundle,
        use_bundle,
        {
            "settings.yaml": yaml_lines,
            "weights.safetensors": tensors,
            "metrics.json": structure,
            "provenance.json": structure,
            "MANIFEST.json": structure,
        },
        seal_bundle,
    ),
    "checkpoint": Target(
        350,
        lambda folder: write_member(folder, a_member(), SPEC.as_mapping()),
        read_member,
        {"member.json": structure, "tensors.safetensors": tensors},
        seal_member,
    ),
    "config": Target(
        300, make_config, lambda f: parse_arguments(["--config", str(f / "search.yaml")]), {"search.yaml": yaml_lines}
    ),
    "set": Target(150, make_assignments, use_assignments, {"set": yaml_lines}),
    "result": Target(150, make_result, lambda folder: str(read_result(folder)), {"result.json": structure}),
    "reproduction": Target(150, make_reproduction, use_reproduction, {"race.json": structure}),
    "progress": Target(
        100,
        lambda f: write_progress(f, TrainingState(settings_digest="5", epoch=2, histories={"1": HISTORY}), {}, SPEC),
        lambda folder: read_progress(folder, "5"),
        {"progress/progress.json": structure},
    ),
    "study": Target(50, make_search, lambda folder: StudyFolder(folder).description(), {"study.json": structure}),
    "trial": Target(
        100, make_search, lambda folder: StudyFolder(folder).read_trials(), {"trials/t0007.json": structure}
    ),
    "cache": Target(150, make_cache, use_cache, {"toy.v1.arrow": None}),
}


def test_there_are_two_thousand_cases() -> None:
    assert sum(target.cases for target in TARGETS.values()) == 2000


@pytest.mark.timeout(120 + 60 * TIMES)
@pytest.mark.parametrize("name", TARGETS)
def test_whatever_is_read_is_taken_or_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    target.make(tmp_path / "whole")
    target.use(tmp_path / "whole")
    cases = [int(ONE)] if ONE else range(TIMES * target.cases)
    told: dict[int, str] = {}
    with memory_limited():
        for case in cases:
            folder = tmp_path / "mutated"
            mutate(Random(f"{name}/{case}"), target, tmp_path / "whole", folder)
            try:
                target.use(folder)
            except LadderSearchError as error:
                told[case] = str(error)
            except Exception as error:
                raise AssertionError(f"{name}/{case} ended in {type(error).__name__}: {error!s:.300}") from error
            shutil.rmtree(folder)
    long = {case: text[:300] for case, text in told.items() if len(text) > 2000 or not text.endswith(".")}
    assert not long
    refused = len(told)
    assert ONE or 0 < refused < len(cases), f"{refused} of {len(cases)} refused: the mutations show nothing"
    print(f"{name}: {len(cases)} tried, {refused} refused")


def mutate(random: Random, target: Target, whole: Path, folder: Path) -> None:
    """Make a copy of ``whole`` with one mutated file."""
    shutil.copytree(whole, folder)
    name, own = random.choice(list(target.files.items()))
    path = folder / name
    if name != "set" and random.random() < 0.06:  # arguments are no file
        kind_of_file(random, path)
        return
    before = path.read_bytes()
    mutation = own if own and random.random() < 0.6 else random.choice(ANY)
    after = mutation(random, before)
    path.write_bytes(after)
    if target.seal and random.random() < 0.8:
        # What would be sealed may not be there any more.
        with suppress(ValueError, TypeError, LookupError, RecursionError, OSError):
            target.seal(folder)


@contextmanager
def memory_limited() -> Iterator[None]:
    """Let this process have ``ROOM`` more than it has; beyond that, an allocation fails."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
