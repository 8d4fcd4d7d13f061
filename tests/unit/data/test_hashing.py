"""SplitMix64 on tensors against Python's integers and the published first outputs."""

from __future__ import annotations

import torch

from ladder_search.data.hashing import GAMMA, finalise, mixed, signed


def test_the_published_outputs() -> None:
    """The first three of the generator that starts at 1234567, of the reference program."""
    states = torch.tensor([signed((1234567 + i * GAMMA) % 2**64) for i in (1, 2, 3)])
    assert [word % 2**64 for word in finalise(states).tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_a_path_is_mixed_part_by_part() -> None:
    def output(state: int) -> int:
        return int(finalise(torch.tensor([signed(state % 2**64)]))[0]) % 2**64

    assert mixed(7, ()) == 7
    assert mixed(7, (3,)) == output(7 + 4 * GAMMA)
    assert mixed(7, (3, 0)) == output(mixed(7, (3,)) + GAMMA)


def test_the_sign_is_the_uppermost_bit() -> None:
    assert [signed(w) for w in (0, 2**63 - 1, 2**63, 2**64 - 1)] == [0, 2**63 - 1, -(2**63), -1]
