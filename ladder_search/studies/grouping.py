"""Tagger (Greff et al. 2016) on shapes, at full size and in minutes, and what studies of grouping networks share.

The settings are those of the authors' code; the numbers are from memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ladder_search.data.config import DataConfig
from ladder_search.models.rtagger import RTaggerConfig
from ladder_search.models.tagger import TaggerConfig
from ladder_search.studies.study import StopConfig, Study, Target
from ladder_search.training.settings import TrainingConfig

TAGGER = "Greff et al. 2016"
FROM_MEMORY = "from memory"

Judge = Literal["ami", "error"]
"""What a network is judged by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupingSpaceConfig:
    """What a search of the grouping families varies around the study's own settings; see ``spaces/grouping.py``."""

    lr: bool = True
    """Search the learning rate, 0.0002..0.002."""
    noise: bool = True
    """Search the noise, 0.1..0.3."""
    class_cost: bool = True
    """Search the weight of the classification cost, 0.03..0.3, of networks with classes."""
    norm: bool = False
    """Search the normalisation: ln, bn. Fine-tuned networks have that of their source."""
    groups: tuple[int, ...] = ()
    """Numbers of groups to choose from; empty: the study's own."""
    iterations: tuple[int, ...] = ()
    """Numbers of iterations in training to choose from, of images; empty: the study's own."""
    evaluation_iterations: tuple[int, ...] = ()
    """The same for evaluations."""
    widths: tuple[str, ...] = ()
    """Widths of Tagger to choose from, such as 500-250-125, without the top's of classes; empty: the study's own, which
    fine-tuned networks always have."""
    stateful: bool = False
    """Search whether RTagger's states persist over iterations."""
    feedback: bool = False
    """Search whether RTagger's cells read the decoder."""
    channels: tuple[int, ...] = ()
    """Channels of RTagger's lowest level to choose from, the others in proportion; empty: the study's own."""


# What a search varies by default.
SEARCHED = GroupingSpaceConfig(
    norm=True,
    groups=(3, 4, 5, 6),
    iterations=(2, 3, 4, 5),
    evaluation_iterations=(3, 4, 5),
    widths=("500-250-125", "250-125-60"),
)

SEARCHED_RECURRENT = replace(SEARCHED, widths=(), stateful=True, feedback=True)


def published(
    value: float, spread: float | None, *, source: str, measure: str = "ami", seeds: int = 10, verified: bool = False
) -> Target:
    """Return a published number: an AMI, or an error in per cent."""
    scale = 0.01 if measure == "error" else 1.0
    return Target(
        error=value * scale,
        spread=None if spread is None else spread * scale,
        source=source,
        seeds=seeds,
        verified=verified,
        spread_verified=False,
        standing="" if verified else FROM_MEMORY,
        measure=measure,
    )


def stop_rule(steps: int, measure: str = "ami") -> StopConfig:
    # At equal cost the AMI can be 0.01 or 0.5, and some networks start late: all trials get a third of the budget.
    grace = max(1, steps // 3)
    return StopConfig(
        first_rung_steps=grace, failure_error=0.005 if measure == "ami" else 0.895, failure_steps=max(1, steps // 2)
    )


# --- shapes -----------------------------------------------------------------------------------------------------------

_SHAPES = {
    "ln": ((0.97, 0.009), "layer normalisation"),
    "bn": ((0.79, 0.034), "batch normalisation, the authors' code"),
}


def _shapes(norm: Literal["ln", "bn"]) -> Study:
    (value, spread), title = _SHAPES[norm]
    return Study(
        name=f"shapes-{norm}",
        family="tagger",
        title=f"Tagger, {title}",
        data=DataConfig(dataset="shapes", labels=None, validation=10_000),
        model=TaggerConfig(norm=norm),
        training=TrainingConfig(epochs=100, lr=0.0004, decay_start=1.0, labelled_batch=2, unlabelled_batch=100),
        space=replace(SEARCHED, norm=False, widths=("2000-1000-500", "3000-2000-1000")),
        stop=stop_rule(50_000),
        target=published(value, spread, source=f"{TAGGER}, Shapes"),
    )


def _shapes_small(norm: Literal["ln", "bn"]) -> Study:
    """600 updates separate layer from batch normalisation: see reproductions/README.md."""
    name = "shapes-small" if norm == "ln" else "shapes-small-bn"
    return Study(
        name=name,
        family="tagger",
        title=f"small Tagger, {_SHAPES[norm][1].partition(',')[0]}",
        data=DataConfig(dataset="shapes-small", labels=None, validation=500),
        model=TaggerConfig(norm=norm, widths=(500, 250, 125)),
        training=TrainingConfig(epochs=6, lr=0.001, decay_start=1.0, labelled_batch=2, unlabelled_batch=50),
        space=SEARCHED,
        stop=stop_rule(600),
        target=None,
    )


def _shapes_small_recurrent() -> Study:
    """Ours: the recurrent ladder's place in Tagger, on the same shapes."""
    return replace(
        _shapes_small("ln"),
        name="shapes-small-rtagger",
        family="rtagger",
        title="small RTagger",
        model=RTaggerConfig(
            side=(20, 20),
            groups=4,
            evaluation_iterations=5,
            likelihood="binary",
            initial_z=0.26,
            levels=("conv:8:3:1 conv:8:3:2 lstm:8:3", "conv:16:3:2 lstm:16:3", "conv:32:3:2 dense-lstm:64"),
        ),
        space=SEARCHED_RECURRENT,
    )


STUDIES: tuple[Study, ...] = (
    *(_shapes(norm) for norm in ("ln", "bn")),
    *(_shapes_small(norm) for norm in ("ln", "bn")),
    _shapes_small_recurrent(),
)
