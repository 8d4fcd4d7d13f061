"""A reproduction of one study: the published configuration and the best found ones, trained on the same fresh seeds.

Its folder::

    race.json                   who competes, on which seeds, what each reached: written first and after each block
    published/seeds-1001-1003/  a block: one final training of one contender, all its seeds as one pack
    t0021-1a2b3c4d/ …           a found configuration; the digits name its settings
    lock                        held while it runs

A block that is done is not done again, one that was interrupted goes on from its checkpoint: the same command
continues. More seeds may be asked for later, and a later search brings its own contenders. Every table of other runs is
one more look at the reproduction's data, with a level of its own (``statistics.look_level``): ``race.json`` keeps which
runs each table showed, so that the same runs are judged at the same level whenever they are shown. Runs that no table
has shown yet, because the call that trained them was killed, are not judged until ``reproduce`` counts their table.

Files of format 1 are read, and kept as format 2 from the next call on. Their tables were judged at 5 % / k, which sums
to more than 5 %; how many there were is kept, and said beside every later table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ladder_search.bundles.shelf import Shelf
from ladder_search.bundles.stages import FOLDER as SOURCES
from ladder_search.config import as_mapping, build
from ladder_search.data.dataset import Dataset
from ladder_search.disk.documents import read_document, refused
from ladder_search.disk.files import write_atomically
from ladder_search.disk.folders import unwritable
from ladder_search.disk.lock import LOCK_FILES
from ladder_search.errors import StudyFolderError
from ladder_search.final.folder import held
from ladder_search.final.missing import train_into
from ladder_search.final.training import EpochReport
from ladder_search.record.trial import PUBLISHED
from ladder_search.reproduction import race
from ladder_search.reproduction.contenders import Contender, Outcome, find_contenders, fresh_seeds
from ladder_search.statistics import look_level
from ladder_search.studies import Study, find_study

FORMAT = "ladder-search race 2"
_FORMAT_1 = "ladder-search race 1"
FILE = "race.json"
FOLDER = "reproductions"
"""Where reproductions lie in the root folder, unless told."""

_LIMIT = 1 << 26


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """How far the reproduction of one study has come."""

    study: str
    epochs: int
    """Length of every schedule; shorter than the study's own, the reproduction is a reduced one."""
    seeds: tuple[int, ...]
    """What each contender gets unless it is dropped."""
    device: str
    data_digest: str
    contenders: tuple[Contender, ...]
    """The published configuration first, then the found ones, best validation error first."""
    seconds: float = 0.0
    """Time that the finished blocks took, in all calls together."""
    tables: tuple[dict[str, int], ...] = ()
    """Contender's folder -> its seeds, for every table that was made of this reproduction."""
    overspent_tables: int = 0
    """How many of the tables were judged by an earlier version, at levels that sum to more than 5 %."""

    @property
    def reduced(self) -> bool:
        """Whether the schedule is shorter than the published one: then nothing can be said of the published number."""
        return self.epochs < find_study(self.study).training.epochs

    @property
    def complete(self) -> bool:
        """Whether every contender has its seeds or was dropped."""
        return all(c.dropped or len(c.outcomes) >= len(self.seeds) for c in self.contenders)

    @property
    def shown(self) -> dict[str, int]:
        """What a table of the runs shows: contender's folder -> its seeds."""
        return {contender.folder: len(contender.outcomes) for contender in self.contenders}

    @property
    def table_number(self) -> int | None:
        """Number of the table that shows these runs, from 1; None: no table of them was counted yet."""
        return self.tables.index(self.shown) + 1 if self.shown in self.tables else None

    @property
    def next_level(self) -> float:
        """Level of the next table of other runs."""
        return look_level(len(self.tables) + 1)

    def with_table(self) -> Reproduction:
        """Count a table that is about to be shown, unless an earlier one showed the same runs."""
        return self if self.shown in self.tables else replace(self, tables=(*self.tables, self.shown))

    def after_look(self, look: int, count: int) -> Reproduction:
        """Return the race as it goes on after its ``look``-th look, at ``count`` seeds: with those marked that lost."""
        seen = set(self.seeds[:count])
        errors = {c.name: {s: e for s, e in c.errors.items() if s in seen} for c in self.contenders}
        racing = [c.name for c in self.contenders if not c.dropped]
        beaten = race.dropped(errors, racing, PUBLISHED, look, len(self.contenders) - 1)

        def judged(contender: Contender) -> Contender:
            if contender.name in beaten:
                return replace(contender, dropped=f"worse than {beaten[contender.name]}")
            if contender.name in racing and contender.name != PUBLISHED and not errors[contender.name]:
                return replace(contender, dropped="every seed diverged")
            return contender

        return replace(self, contenders=tuple(judged(contender) for contender in self.contenders))


class BudgetSpentError(Exception):
    """The time budget ended in the middle of a block; what the block had checkpointed is kept."""


def folder_name(study: Study, epochs: int) -> str:
    """Return the name of a reproduction's folder: a reduced schedule is never taken for a full one."""
    return study.name if epochs == study.training.epochs else f"{study.name}-reduced-to-{epochs}-epochs"


class Race:
    """One call of ``reproduce`` for one study.

    States::

        race = Race(study, dataset, root=…, folder=…, seeds=10, contenders=3, …)  -> checked, nothing is written
        race.run(report)   -> all that the seeds and the budget allow is trained and kept in the folder
        race.found         -> the Reproduction, as it is on disk
    """

    def __init__(
        self,
        study: Study,
        dataset: Dataset,
        *,
        root: Path,
        folder: Path,
        seeds: int,
        contenders: int,
        epochs: int,
        device: torch.device,
    ) -> None:
        """Raises ``StudyFolderError`` where ``folder`` holds another reproduction or something else."""
        self.study, self.folder = study, folder
        self._dataset, self._device = dataset, device
        study.trial().check_fits(dataset)
        earlier = _earlier(folder)
        given = Reproduction(
            study=study.name,
            epochs=epochs,
            seeds=fresh_seeds(seeds, [study], root),
            device=device.type,
            data_digest=dataset.digest,
            contenders=find_contenders(study, root, contenders, epochs),
        )
        self.found = given if earlier is None else _continued(earlier, given, folder)

    def run(
        self,
        report: Callable[[str, EpochReport], None],
        *,
        out_of_time: Callable[[], bool] = lambda: False,
        source_report: Callable[[int, int], None] = lambda epoch, epochs: None,
    ) -> Reproduction:
        """Train block by block; return early where the budget ends.

        Args:
            report: called after every epoch, with the contender and its seeds in words; an exception of it ends the
                race, and its block leaves a checkpoint.
            out_of_time: asked after every epoch.
            source_report: called after every epoch of a source.

        Raises:
            StudyFolderError: the folder is in use, belongs to something else, or cannot be written.
            CheckpointError: what it holds is damaged.
        """
        self._source_report = source_report
        with held(self.folder):
            self._save()
            try:
                for look, count in enumerate(race.looks(len(self.found.seeds)), start=1):
                    for contender in self.found.contenders:
                        if not contender.dropped:
                            self._bring(contender.name, count, report, out_of_time)
                    if count < len(self.found.seeds):
                        self.found = self.found.after_look(look, count)
                        self._save()
            except BudgetSpentError:
                pass
            self.found = self.found.with_table()
            self._save()
        return self.found

    def _bring(
        self, name: str, count: int, report: Callable[[str, EpochReport], None], out_of_time: Callable[[], bool]
    ) -> None:
        """Bring one contender to ``count`` seeds."""
        contender = next(c for c in self.found.contenders if c.name == name)
        place = self.folder / contender.folder
        seeds = self.found.seeds[len(contender.outcomes) : count]
        if not seeds:
            return
        block = place / f"seeds-{seeds[0]}-{seeds[-1]}"

        def told(progress: EpochReport) -> None:
            report(f"{name}, seeds {seeds[0]} to {seeds[-1]}", progress)
            if out_of_time() and progress.epoch < progress.epochs:
                raise BudgetSpentError

        if out_of_time():
            raise BudgetSpentError
        result = train_into(
            block,
            contender.spec,
            self._dataset,
            seeds=seeds,
            study=self.study,
            device=self._device,
            report=told,
            networks=Shelf(self.folder.parent / SOURCES, device=self._device, report=self._source_report),
        )
        outcomes = tuple(Outcome(seed=o.seed, test_error=o.test_error) for o in result.outcomes)
        contender = replace(
            contender,
            outcomes=(*contender.outcomes, *outcomes),
            folders=(*contender.folders, str(block.relative_to(self.folder))),
        )
        self._put(contender, result.seconds)

    def _put(self, contender: Contender, seconds: float = 0.0) -> None:
        contenders = tuple(contender if c.name == contender.name else c for c in self.found.contenders)
        self.found = replace(self.found, contenders=contenders, seconds=self.found.seconds + seconds)
        self._save()

    def _save(self) -> None:
        text = json.dumps({"format": FORMAT, **as_mapping(self.found)}, indent=1, allow_nan=False, ensure_ascii=False)
        try:
            write_atomically(self.folder / FILE, f"{text}\n".encode())
        except OSError as error:
            raise unwritable(self.folder, error) from error


def read_reproduction(folder: Path) -> Reproduction:
    """Return the reproduction in ``folder``; raises ``CheckpointError`` if there is none, or its file is damaged."""
    remedy = "name another folder or delete this one to reproduce the study anew"
    with refused(folder / FILE, "be a reproduction", remedy):
        raw = read_document(folder / FILE, FORMAT, _FORMAT_1)
        found = build(Reproduction, raw) if raw.pop("format") == FORMAT else _of_format_1(raw)
        find_study(found.study)
        if not found.contenders or found.contenders[0].name != PUBLISHED:
            raise ValueError("its first contender must be the published configuration")
        for contender in found.contenders:
            contender.spec  # noqa: B018  # settings that are none are found now
    return found


def _of_format_1(raw: dict[str, Any]) -> Reproduction:
    """Return a reproduction whose tables are told by the seeds of its contenders alone, in their order."""
    counts = [[int(count) for count in table] for table in raw.pop("tables", ())]
    found = build(Reproduction, raw)
    folders = [contender.folder for contender in found.contenders]
    # Contenders of an earlier search are not told by the file: such a table showed runs that are not those of today.
    tables = tuple(dict(zip(folders, table, strict=True)) if len(table) == len(folders) else {} for table in counts)
    return replace(found, tables=tables, overspent_tables=len(tables))


def _earlier(folder: Path) -> Reproduction | None:
    """Return what an earlier call left in ``folder``; None where it is free."""
    try:
        names = {entry.name for entry in folder.iterdir()} - LOCK_FILES if folder.exists() else set()
    except OSError as error:
        raise unwritable(folder, error) from error
    if names and FILE not in names:
        raise StudyFolderError(
            f"a reproduction needs a folder of its own and {folder} holds {min(names)!r}; choose another -o."
        )
    return read_reproduction(folder) if names else None


def _continued(earlier: Reproduction, given: Reproduction, folder: Path) -> Reproduction:
    """Return ``given`` with what its contenders have reached already."""
    common = min(len(earlier.seeds), len(given.seeds))
    rules = {
        "study": (earlier.study, given.study),
        "epochs": (earlier.epochs, given.epochs),
        "kind of device": (earlier.device, given.device),
        "data": (earlier.data_digest[:12], given.data_digest[:12]),
        "seeds": (list(earlier.seeds[:common]), list(given.seeds[:common])),
        "published settings": (earlier.contenders[0].settings, given.contenders[0].settings),
    }
    for what, (found, asked) in rules.items():
        if found != asked:
            raise StudyFolderError(
                f"a reproduction goes on with the {what} that it began with, {_short(found)} in {folder}, and is asked "
                f"for {_short(asked)}; give the same or choose another -o."
            )
    done = {contender.folder: contender for contender in earlier.contenders}
    contenders = tuple(
        replace(
            contender,
            outcomes=done[contender.folder].outcomes,
            folders=done[contender.folder].folders,
            dropped=done[contender.folder].dropped,
        )
        if contender.folder in done
        else contender
        for contender in given.contenders
    )
    return replace(
        given,
        contenders=contenders,
        seconds=earlier.seconds,
        tables=earlier.tables,
        overspent_tables=earlier.overspent_tables,
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
