"""Ray trainables, one thin class per family."""

from __future__ import annotations

from trainables.base import PackTrainable
from trainables.conv_ladder import ConvLadderTrainable
from trainables.ladder import LadderTrainable
from trainables.progressive import ProgressiveTrainable
from trainables.recurrent import RecurrentTrainable
from trainables.sequence import SequenceTrainable

TRAINABLES: dict[str, type[PackTrainable]] = {
    "ladder": LadderTrainable,
    "ladder-conv": ConvLadderTrainable,
    "progressive": ProgressiveTrainable,
    "progressive-conv": ProgressiveTrainable,
    "recurrent": RecurrentTrainable,
    "sequence": SequenceTrainable,
}
