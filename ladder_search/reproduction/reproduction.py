"""A reproduction of one study: the published configuration and the best found ones, trained on the same fresh seeds.

Its folder::

    race.json                   contenders, seeds and results; written first and after each block
    published/seeds-1001-1003/  a block: one final training of one contender, all its seeds as one pack
    t0021-1a2b3c4d/ …           a found configuration; the digits are a digest of its settings
    lock                        held while it runs

The same command continues a reproduction: complete blocks are kept, an interrupted one continues from its checkpoint.
More seeds can be requested later, and a later search adds its own contenders. Each table of other runs is one more look
at the data, with its own level (``statistics.look_level``); ``race.json`` records the runs of each table, so that the
same runs are always tested at the same level. Runs without a table (of a killed call) are not tested.

Files of format 1 are read and converted to format 2. Their tables were tested at 5 % / k, which sums to more than 5 %;
later tables mention this.
"""

from __future__ import annotations

import json
import time
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
from ladder_search.errors import SettingError, StudyFolderError
from ladder_search.final.folder import held
from ladder_search.final.results import write_result
from ladder_search.final.training import EpochReport, check_has_tests, train_final
from ladder_search.provenance import collect
from ladder_search.record.trial import OWN
from ladder_search.reproduction import race
from ladder_search.reproduction.contenders import Contender, Outcome, check_searched_data, find_contenders, fresh_seeds
from ladder_search.statistics import look_level
from ladder_search.studies import Study, as_definition, study_of

FORMAT = "ladder-search race 2"
_FORMAT_1 = "ladder-search race 1"
FILE = "race.json"
FOLDER = "reproductions"
"""Default folder of reproductions in the root folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """State of the reproduction of one study."""

    study: str
    epochs: int
    """Length of every schedule; below the study's own, the reproduction is reduced."""
    seeds: tuple[int, ...]
    """Seeds of each contender unless it is dropped."""
    device: str
    data_digest: str
    contenders: tuple[Contender, ...]
    """The published configuration, then the found ones in the order of their validation values, best first."""
    precision: str = ""
    """``training.precision`` of all trainings; "": that of each configuration."""
    seconds: float = 0.0
    """Duration of the finished blocks, in all calls together."""
    cpu_seconds: float | None = None
    """Processor time of all calls; None if an earlier version, which did not measure it, trained a part."""
    commits: tuple[str, ...] = ()
    """Commits of the code that trained, oldest first; "+" marks a changed working tree."""
    definition: dict[str, Any] | None = None
    """The study as its file defines it; None for a study of the table."""
    tables: tuple[dict[str, int], ...] = ()
    """Contender's folder -> its seeds, for every table of this reproduction."""
    overspent_tables: int = 0
    """Number of tables tested by an earlier version, at levels that sum to more than 5 %."""

    @property
    def of(self) -> Study:
        """The reproduced study."""
        return study_of({"study": self.study, "definition": self.definition})

    @property
    def reduced(self) -> bool:
        """Whether the schedule is shorter than the published one, which precludes a verdict on the published number."""
        return self.epochs < self.of.training.epochs

    @property
    def complete(self) -> bool:
        """Whether every contender has its seeds or was dropped."""
        return all(c.dropped or len(c.outcomes) >= len(self.seeds) for c in self.contenders)

    @property
    def shown(self) -> dict[str, int]:
        """Contender's folder -> its seeds, the runs of a table."""
        return {contender.folder: len(contender.outcomes) for contender in self.contenders}

    @property
    def table_number(self) -> int | None:
        """Number of the table with these runs, from 1; None if there is none."""
        return self.tables.index(self.shown) + 1 if self.shown in self.tables else None

    @property
    def next_level(self) -> float:
        """Level of the next table of other runs."""
        return look_level(len(self.tables) + 1)

    def with_table(self) -> Reproduction:
        """Add a table, unless an earlier one has the same runs."""
        return self if self.shown in self.tables else replace(self, tables=(*self.tables, self.shown))

    def after_look(self, look: int, count: int) -> Reproduction:
        """Return the race after its ``look``-th look, at ``count`` seeds, with dropped contenders marked."""
        seeds = set(self.seeds[:count])
        loss = self.of.measure.loss
        errors = {c.name: {s: loss(e) for s, e in c.errors.items() if s in seeds} for c in self.contenders}
        racing = [c.name for c in self.contenders if not c.dropped]
        beaten = race.dropped(errors, racing, self.contenders[0].name, look, len(self.contenders) - 1)

        def judged(contender: Contender) -> Contender:
            if contender.name in beaten:
                return replace(contender, dropped=f"worse than {beaten[contender.name]}")
            if contender.name in racing and contender.name not in OWN and not errors[contender.name]:
                return replace(contender, dropped="every seed diverged")
            return contender

        return replace(self, contenders=tuple(judged(contender) for contender in self.contenders))


class BudgetSpentError(Exception):
    """The time budget ended in the middle of a block; its checkpoint is kept."""


def folder_name(study: Study, epochs: int, precision: str = "") -> str:
    """Return the name of a reproduction's folder; reduced schedules and other precisions have folders of their own."""
    name = study.name if epochs == study.training.epochs else f"{study.name}-reduced-to-{epochs}-epochs"
    return f"{name}-{precision}" if precision else name


def schedule(study: Study, epochs: int | None) -> int:
    """Return the length of a reproduction's schedules, the study's own for None; raise ``SettingError`` if it would be
    longer."""
    full = study.training.epochs
    if epochs is not None and epochs > full:
        raise SettingError(
            f"--epochs shortens a reproduction, {study.name} has {full} epochs, got {epochs}; give fewer or none."
        )
    return epochs or full


class Race:
    """One call of ``reproduce`` for one study.

    ``__init__`` checks the settings without writing, ``run`` trains what seeds and budget allow, and ``found`` is the
    ``Reproduction`` as on disk.
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
        precision: str = "",
    ) -> None:
        """Raise ``StudyFolderError`` if ``folder`` has another reproduction or other content; ``precision`` replaces
        ``training.precision`` of every contender unless empty."""
        self.study, self.folder = study, folder
        self._dataset, self._device = dataset, device
        study.trial().check_fits(dataset)
        check_has_tests(dataset)
        check_searched_data(study, dataset, root)
        earlier = _earlier(folder)
        reproduction = Reproduction(
            study=study.name,
            epochs=epochs,
            seeds=fresh_seeds(seeds, [study], root),
            device=device.type,
            data_digest=dataset.digest,
            contenders=find_contenders(study, root, contenders, epochs, precision),
            precision=precision,
            cpu_seconds=0.0,
            definition=as_definition(study) if study.proposed else None,
        )
        self.reproduction = reproduction if earlier is None else _continued(earlier, reproduction, folder)

    def run(
        self,
        report: Callable[[str, EpochReport], None],
        *,
        out_of_time: Callable[[], bool] = lambda: False,
        source_report: Callable[[int, int], None] = lambda epoch, epochs: None,
    ) -> Reproduction:
        """Train block by block; return early when the budget ends.

        Args:
            report: called after every epoch with a text of contender and seeds; an exception ends the race, with a
                checkpoint of its block.
            out_of_time: called after every epoch.
            source_report: called after every epoch of a source.

        Raises:
            StudyFolderError: the folder is in use, has other content, or cannot be written.
            CheckpointError: its content is damaged.
        """
        self._source_report = source_report
        self._spent = time.process_time()
        with held(self.folder):
            self._save()
            try:
                for look, count in enumerate(race.looks(len(self.reproduction.seeds)), start=1):
                    for contender in self.reproduction.contenders:
                        if not contender.dropped:
                            self._bring(contender.name, count, report, out_of_time)
                    if count < len(self.reproduction.seeds):
                        self.reproduction = self.reproduction.after_look(look, count)
                        self._save()
            except BudgetSpentError:
                pass
            self.reproduction = self.reproduction.with_table()
            self._save()
        return self.reproduction

    def _bring(
        self, name: str, count: int, report: Callable[[str, EpochReport], None], out_of_time: Callable[[], bool]
    ) -> None:
        """Train one contender on its first ``count`` seeds."""
        contender = next(c for c in self.reproduction.contenders if c.name == name)
        place = self.folder / contender.folder
        seeds = self.reproduction.seeds[len(contender.outcomes) : count]
        if not seeds:
            return
        block = place / f"seeds-{seeds[0]}-{seeds[-1]}"

        def told(progress: EpochReport) -> None:
            report(f"{name}, seeds {seeds[0]} to {seeds[-1]}", progress)
            if out_of_time() and progress.epoch < progress.epochs:
                raise BudgetSpentError

        if out_of_time():
            raise BudgetSpentError
        self.reproduction = replace(self.reproduction, commits=_with_commit(self.reproduction.commits))
        try:
            result = train_final(
                contender.spec,
                self._dataset,
                seeds=seeds,
                study=self.study,
                device=self._device,
                report=told,
                folder=block,
                networks=Shelf(self.folder.parent / SOURCES, device=self._device, report=self._source_report),
            )
        finally:
            self._count_time()
        write_result(block, result)
        outcomes = (Outcome(seed=o.seed, test_error=o.test_error) for o in result.outcomes)
        trained = replace(
            contender,
            outcomes=(*contender.outcomes, *outcomes),
            folders=(*contender.folders, str(block.relative_to(self.folder))),
        )
        contenders = tuple(trained if c.name == name else c for c in self.reproduction.contenders)
        seconds = self.reproduction.seconds + result.seconds
        self.reproduction = replace(self.reproduction, contenders=contenders, seconds=seconds)
        self._save()

    def _count_time(self) -> None:
        """Add the processor time since the last call, and store it."""
        before, self._spent = self._spent, time.process_time()
        total = self.reproduction.cpu_seconds
        if total is not None:
            self.reproduction = replace(self.reproduction, cpu_seconds=total + self._spent - before)
        self._save()

    def _save(self) -> None:
        text = json.dumps(
            {"format": FORMAT, **as_mapping(self.reproduction)}, indent=1, allow_nan=False, ensure_ascii=False
        )
        try:
            write_atomically(self.folder / FILE, f"{text}\n".encode())
        except OSError as error:
            raise unwritable(self.folder, error) from error


def read_reproduction(folder: Path) -> Reproduction:
    """Return the reproduction in ``folder``; raise ``CheckpointError`` if it is missing or damaged."""
    return read_reproduction_file(folder / FILE)


def read_reproduction_file(path: Path) -> Reproduction:
    """Return the reproduction in a file of any name, see ``read_reproduction``."""
    remedy = "name another folder or delete this one to reproduce the study anew"
    with refused(path, "be a reproduction", remedy):
        raw = read_document(path, FORMAT, _FORMAT_1)
        reproduction = build(Reproduction, raw) if raw.pop("format") == FORMAT else _of_format_1(raw)
        reproduction.of  # noqa: B018  # an unknown study is found now
        if not reproduction.contenders or reproduction.contenders[0].name not in OWN:
            raise ValueError("its first contender must be the study's own configuration")
        for contender in reproduction.contenders:
            contender.spec  # noqa: B018  # settings that are none are found now
    return reproduction


def _of_format_1(raw: dict[str, Any]) -> Reproduction:
    """Convert a reproduction whose tables contain only the seeds of its contenders, in their order."""
    counts = [[int(count) for count in table] for table in raw.pop("tables", ())]
    reproduction = build(Reproduction, raw)
    folders = [contender.folder for contender in reproduction.contenders]
    # The file does not list contenders of an earlier search; such a table showed runs that are not those of today.
    tables = tuple(dict(zip(folders, table, strict=True)) if len(table) == len(folders) else {} for table in counts)
    return replace(reproduction, tables=tables, overspent_tables=len(tables))


def _earlier(folder: Path) -> Reproduction | None:
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
    """Return ``given`` with the existing results of its contenders."""
    common = min(len(earlier.seeds), len(given.seeds))
    rules = {
        "study": (earlier.study, given.study),
        "epochs": (earlier.epochs, given.epochs),
        "precision": (earlier.precision or "own", given.precision or "own"),
        "kind of device": (earlier.device, given.device),
        "data": (earlier.data_digest[:12], given.data_digest[:12]),
        "seeds": (list(earlier.seeds[:common]), list(given.seeds[:common])),
        f"{given.contenders[0].name} settings": (earlier.contenders[0].settings, given.contenders[0].settings),
    }
    for what, (old, new) in rules.items():
        if old != new:
            raise StudyFolderError(
                f"a reproduction goes on with the {what} that it began with, {_short(old)} in {folder}, and is asked "
                f"for {_short(new)}; give the same or choose another -o."
            )
    by_folder = {contender.folder: contender for contender in earlier.contenders}
    contenders = []
    for contender in given.contenders:
        known = by_folder.get(contender.folder, contender)
        contenders.append(replace(contender, outcomes=known.outcomes, folders=known.folders, dropped=known.dropped))
    return replace(
        given,
        contenders=tuple(contenders),
        seconds=earlier.seconds,
        cpu_seconds=0.0 if earlier.seconds == 0.0 and earlier.cpu_seconds is None else earlier.cpu_seconds,
        commits=earlier.commits,
        tables=earlier.tables,
        overspent_tables=earlier.overspent_tables,
    )


def _with_commit(commits: tuple[str, ...]) -> tuple[str, ...]:
    """Return the commits with that of this code, if it is known and not the last one already."""
    facts = collect()
    sha = facts["git_sha"]
    commit = f"{sha}+" if facts["git_dirty"] else str(sha)
    return commits if sha is None or commits[-1:] == (commit,) else (*commits, commit)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
