"""A final training is compiled or not as it began, and its result says what became of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ladder_search.data.dataset import Dataset
from ladder_search.errors import StudyFolderError
from ladder_search.final import training as final
from ladder_search.final.training import EpochReport, train_final
from ladder_search.training import stepping
from ladder_search.trial import TrialSpec

pytestmark = pytest.mark.timeout(400)  # a busy machine's compiler

SEEDS = (1001, 1002, 1003)


class GoneError(Exception):
    """A machine that went away."""


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_goes_on_compiled_or_not_as_it_began(
    spec: TrialSpec, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    programs: list[int] = []

    def as_it_is(function: Any, tensors: Any) -> Any:
        programs.append(len(tensors))
        return lambda given: function(*given)

    def report(progress: EpochReport) -> None:
        if progress.epoch == 2:
            raise GoneError

    monkeypatch.setattr(stepping, "compile_ahead", as_it_is)
    monkeypatch.setattr(final, "compiler_found", lambda: True)
    with pytest.raises(GoneError):
        train_final(spec, dataset, seeds=SEEDS, folder=tmp_path, report=report, compiled=begun)
    assert bool(programs) is begun
    # Now the decision would be another one: a compiler was removed, or installed.
    monkeypatch.setattr(final, "compiler_found", lambda: not begun)
    if begun:
        with pytest.raises(StudyFolderError, match=r"began with compiled steps, .* install g\+\+ .* another folder"):
            train_final(spec, dataset, seeds=SEEDS, folder=tmp_path, compiled=False)
        monkeypatch.setattr(final, "compiler_found", lambda: True)
    found = train_final(spec, dataset, seeds=SEEDS, folder=tmp_path, compiled=not begun)
    assert found.compiled is begun and bool(programs) is begun


def test_a_step_that_cannot_be_compiled_is_called_as_it_is_and_the_result_says_so(
    spec: TrialSpec, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(function: Any, tensors: Any) -> Any:
        raise OSError("failed to map segment from shared object: Operation not permitted")

    whole = train_final(spec, dataset, seeds=SEEDS)
    monkeypatch.setattr(stepping, "compile_ahead", fail)
    with pytest.warns(RuntimeWarning, match="steps are not compiled, which failed: failed to map segment"):
        found = train_final(spec, dataset, seeds=SEEDS, compiled=True)
    assert not found.compiled and found.n == whole.n
    assert [o.test_error for o in found.outcomes] == pytest.approx([o.test_error for o in whole.outcomes], abs=0.02)
