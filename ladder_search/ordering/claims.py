"""Orderings: claims about the rows of a table, tested over seeds.

The claims are those of the papers, whose numbers are quoted from memory (see ``recurrent`` and ``music``): the
recurrent ladder is as good as a classifier of optimal reconstructions; without decoder, feedback or prediction its
error rises almost to that of a network without recurrence below its top; unlabelled sequences help it with and without
a teacher; and it is the best model among those that assume independent notes. Tagger groups better with layer than with
batch normalisation, and better with every iteration (Greff et al. 2016). Numerical margins and bounds are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ladder_search.config import in_range
from ladder_search.data import datasets
from ladder_search.errors import SettingError, UnknownNameError
from ladder_search.metrics import MEASURES, Measure, after
from ladder_search.studies import Study, find_study
from ladder_search.studies.grouping import published
from ladder_search.studies.study import Target

PAPER = "Prémont-Schwarz et al. 2017"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim about two studies, and by how much the first one is better, whatever the direction of the measure."""

    kind: Literal["below", "alike"] = "below"
    """below: the first study is better (above, if the measure rises); alike: both are as good as each other."""
    first: str
    second: str
    bound: float = 0.0
    """Difference in the unit of the measure: the required one of "below", the largest allowed one of "alike"."""
    text: str

    def __post_init__(self) -> None:
        if self.kind == "below":
            in_range("the margin of a claim", self.bound, 0.0, math.inf, remedy="turn the claim round")
        elif not 0.0 < self.bound < math.inf:
            raise SettingError(
                f"studies as good as each other differ by a bound above 0 at most, got {self.bound}; give one."
            )


def trained(name: str) -> str:
    """Return the study whose training is judged in an ordering as STUDY or STUDY@ITERATION."""
    return name.partition("@")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A row of a paper's table whose method is not part of this project."""

    method: str
    target: Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Ordering:
    """Claims about studies that are trained on the same seeds and compared by the same measure."""

    name: str
    title: str
    source: str
    measure: str
    """Row of ``metrics.MEASURES`` that all networks report."""
    studies: tuple[str, ...]
    """Names of studies, in the order of the table. STUDY@I is the same training, judged after iteration I, for networks
    that report the measure after every iteration."""
    claims: tuple[Claim, ...]
    references: tuple[Reference, ...] = ()
    """Rows that are quoted beside the studies; no claim is about them."""

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UnknownNameError("measure", self.measure, MEASURES)
        studies = self.rows
        for name in (name for claim in self.claims for name in (claim.first, claim.second)):
            if name not in self.studies:
                raise UnknownNameError(f"study of the ordering {self.name}", name, self.studies)
        if len({datasets.source_of(study.data).examples for study in studies}) > 1:
            names = ", ".join(f"{study.name} on {study.data.name}" for study in studies)
            raise SettingError(f"an ordering is of studies on the same examples, got {names}; name others.")
        for name in self.studies:
            judged_by = find_study(trained(name)).model.measures
            if self.measure_of(name) not in judged_by:
                raise SettingError(
                    f"the ordering {self.name} is by the measure {self.measure_of(name)}, and {name} is judged by "
                    f"{', '.join(judged_by)}; name another study or measure."
                )

    @property
    def rows(self) -> tuple[Study, ...]:
        """The studies that are trained."""
        return tuple(find_study(name) for name in dict.fromkeys(map(trained, self.studies)))

    def measure_of(self, name: str) -> str:
        """Return the measure of one of ``studies``: after an iteration, if it names one."""
        _, _, iteration = name.partition("@")
        return after(self.measure, int(iteration)) if iteration else self.measure

    @property
    def unit(self) -> Measure:
        return MEASURES[self.measure]

    @property
    def short(self) -> dict[str, str]:
        """Study -> its name without the common prefix."""
        words = [name.split("-") for name in self.studies]
        common = 0
        while all(len(parts) > common + 1 and parts[common] == words[0][common] for parts in words):
            common += 1
        return {name: "-".join(parts[common:]) for name, parts in zip(self.studies, words, strict=True)}


_ABLATIONS = {
    "hierarchical": "the decoder",
    "no-feedback": "the feedback from decoder to encoder",
    "no-prediction": "the prediction task",
}
# Bound of "as good as" the gold standard; it grows with the errors of a size, to about the same share of them.
_WITHIN = {"occluded-mnist": 0.0025, "occluded-mnist-half": 0.005, "occluded-mnist-mini": 0.01}


def _table_1(data: str) -> Ordering:
    ladder, gold, temporal = (f"{data}-{kind}" for kind in ("rladder", "static", "temporal"))
    helps = [
        Claim(first=ladder, second=f"{data}-{kind}", text=f"{what} helps the recurrent ladder")
        for kind, what in _ABLATIONS.items()
    ]
    below = [
        Claim(first=f"{data}-{kind}", second=temporal, text=f"without {what} it is still below the temporal baseline")
        for kind, what in _ABLATIONS.items()
    ]
    gold_too = Claim(
        kind="alike",
        first=ladder,
        second=gold,
        bound=_WITHIN[data],
        text="the recurrent ladder is as good as with optimal reconstructions",
    )
    return Ordering(
        name=f"{data}-table-1",
        title="gold standard and recurrent ladder, then its three ablations, then the temporal baseline",
        source=f"{PAPER}, occluded moving digits, table 1",
        measure="error",
        studies=(gold, ladder, *(f"{data}-{kind}" for kind in _ABLATIONS), temporal),
        claims=(gold_too, *helps, *below),
    )


def _table_1_prediction(data: str) -> Ordering:
    ladder, others = f"{data}-rladder", {"no-classes": "the classification task", "no-feedback": "the feedback"}
    return Ordering(
        name=f"{data}-table-1-prediction",
        title="prediction error: recurrent ladder below itself without classes and without feedback",
        source=f"{PAPER}, occluded moving digits, table 1",
        measure="prediction_error",
        studies=(ladder, *(f"{data}-{kind}" for kind in others)),
        claims=tuple(
            Claim(first=ladder, second=f"{data}-{kind}", text=f"{what} helps the prediction")
            for kind, what in others.items()
        ),
    )


def _table_2(data: str) -> Ordering:
    ladder, temporal = f"{data}-1000-rladder", f"{data}-1000-temporal"
    claims = (
        Claim(
            first=f"{ladder}-unlabelled",
            second=ladder,
            text="unlabelled sequences help the recurrent ladder on its own",
        ),
        Claim(first=f"{ladder}-mt", second=f"{ladder}-unlabelled", text="a teacher helps the recurrent ladder on top"),
        Claim(first=f"{temporal}-mt", second=temporal, text="a teacher helps the temporal baseline"),
        Claim(first=f"{ladder}-mt", second=f"{temporal}-mt", text="which stays worse with it"),
    )
    return Ordering(
        name=f"{data}-table-2",
        title="1,000 labels: unlabelled sequences help the recurrent ladder, with a teacher and without",
        source=f"{PAPER}, occluded moving digits, table 2",
        measure="error",
        studies=(ladder, f"{ladder}-unlabelled", f"{ladder}-mt", temporal, f"{temporal}-mt"),
        claims=claims,
    )


def _table_3(corpus: str, margin: float) -> Ordering:
    ladders, others = (f"{corpus}-rladder", f"{corpus}-rladder-small"), ("lstm", "gru", "tcn", "rnn")
    sizes = ("the recurrent ladder", "one as large as the LSTM")
    return Ordering(
        name=f"{corpus}-table-3",
        title="the recurrent ladder, of the paper's size and of the LSTM's, below every other network for music",
        source=f"{PAPER}, polyphonic music, table 3",
        measure="nll",
        studies=(*ladders, *(f"{corpus}-{other}" for other in others)),
        claims=tuple(
            Claim(
                first=ladder,
                second=f"{corpus}-{other}",
                bound=margin if other == "lstm" else 0.0,
                text=f"{size} is below the {other.upper()}",
            )
            for ladder, size in zip(ladders, sizes, strict=True)
            for other in others
        ),
    )


def _shapes(data: str, ladder: str, batch: str) -> Ordering:
    last, first = f"{ladder}@5", f"{ladder}@1"
    return Ordering(
        name=data,
        title="Tagger with layer normalisation above batch normalisation, and better with every iteration",
        source="Greff et al. 2016, Shapes",
        measure="ami",
        studies=(ladder, first, f"{ladder}@3", last, batch),
        claims=(
            Claim(
                first=ladder,
                second=batch,
                bound=0.2 if data.endswith("small") else 0.0,
                text="layer normalisation groups better than batch normalisation",
            ),
            Claim(first=last, second=first, text="iterations improve the groups"),
        ),
        references=() if data.endswith("small") else (_EARLIER,),
    )


_EARLIER = Reference(
    method="reconstruction clustering", target=published(0.61, 0.005, source="Greff et al. 2016, Shapes")
)


def _table_4(name: str, recurrent: str, tagger: str, convnet: str) -> Ordering:
    last, first = f"{recurrent}@3", f"{recurrent}@1"
    return Ordering(
        name=name,
        title="textured digits: RTagger below Tagger below the convolutional classifier, and better with iterations",
        source=f"{PAPER}, textured digits, table 4",
        measure="error",
        studies=(recurrent, first, last, tagger, convnet),
        claims=(
            Claim(first=recurrent, second=tagger, text="recurrent ladders classify better than feed-forward ones"),
            Claim(first=tagger, second=convnet, text="grouping classifies better than a plain classifier"),
            Claim(first=last, second=first, text="iterations improve the classes"),
        ),
    )


def _table_4_groups(name: str, recurrent: str, tagger: str) -> Ordering:
    last, first = f"{recurrent}@3", f"{recurrent}@1"
    return Ordering(
        name=f"{name}-groups",
        title="textured digits: RTagger groups better than Tagger, and better with iterations",
        source=f"{PAPER}, textured digits, table 4",
        measure="ami",
        studies=(recurrent, first, last, tagger),
        claims=(
            Claim(first=recurrent, second=tagger, text="recurrent ladders group better than feed-forward ones"),
            Claim(first=last, second=first, text="iterations improve the groups"),
        ),
    )


_BRODATZ = ("brodatz-mnist-rtagger-error", "brodatz-mnist-tagger-error")
_TWO_TEXTURES = ("two-textures-small", "two-textures-small-tagger")

ORDERINGS: dict[str, Ordering] = {
    ordering.name: ordering
    for ordering in (
        *(_table_1(data) for data in _WITHIN),
        *(_table_1_prediction(data) for data in _WITHIN),
        *(_table_2(data) for data in ("occluded-mnist", "occluded-mnist-half")),
        _table_3("jsb", 0.2),
        _table_3("nottingham", 0.1),
        _shapes("shapes", "shapes-ln", "shapes-bn"),
        _shapes("shapes-small", "shapes-small", "shapes-small-bn"),
        _table_4("brodatz-mnist-table-4", *_BRODATZ, "brodatz-mnist-convnet"),
        _table_4_groups("brodatz-mnist-table-4", *_BRODATZ),
        _table_4("two-textures-small", *_TWO_TEXTURES, "two-textures-small-convnet"),
        _table_4_groups("two-textures-small", *_TWO_TEXTURES),
    )
}


def find_ordering(name: str) -> Ordering:
    """Return the ordering ``name``; raise ``UnknownNameError`` if there is none."""
    if name not in ORDERINGS:
        raise UnknownNameError("ordering", name, ORDERINGS)
    return ORDERINGS[name]
