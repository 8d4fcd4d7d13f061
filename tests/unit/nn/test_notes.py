"""The cost of notes is that of ``tests.unit.data.music_nll``, which published figures pin down."""

from __future__ import annotations

import torch

from ladder_search.nn.notes import scored_nats
from tests.unit.data import music_nll


def test_nats_and_steps_agree_with_the_corpus_count() -> None:
    draws = torch.Generator().manual_seed(1)
    logits = 30.0 * torch.randn(4, 9, 88, generator=draws, dtype=torch.float64)
    notes = torch.randint(0, 2, (4, 9, 88), generator=draws).double()
    scored = torch.rand(4, 9, generator=draws) < 0.6
    nats, steps = scored_nats(logits, notes, scored)
    expected, number = music_nll.scored(logits, notes, scored)
    torch.testing.assert_close(nats, expected, rtol=1e-12, atol=0.0)
    assert steps == number == scored.sum()


def test_without_information_a_step_costs_88_bits() -> None:
    scored = torch.tensor([[True, False], [True, True]])
    nats, steps = scored_nats(torch.zeros(2, 2, 88), torch.ones(2, 2, 88), scored)
    assert steps == 3
    torch.testing.assert_close(nats, torch.tensor(3 * 88 * 0.6931472))
