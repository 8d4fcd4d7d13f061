"""Moving digits behind bars: whole trajectories by Python's own integers, frames by pasting pixels in NumPy."""

from __future__ import annotations

import itertools
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from ladder_search.data.occluded import FULL, HALF, KNIGHT, MINI, Renderer, Scene, seen_so_far

KEY = -6_148_914_691_236_517_205
SCENES = [FULL, HALF, MINI, Scene(side=20, digit=7, bar=3, gap=5, first_bar=2, margin=2, frames=9)]


def splitmix(state: int) -> int:
    """Output of Steele, Lea and Flood's generator for a state, in unsigned Python integers."""
    z = state % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def trajectory(scene: Scene, key: int, number: int) -> list[tuple[int, int]]:
    """One sequence's positions, pixel by pixel and border by border."""
    word = splitmix(key + (number + 1) * 0x9E3779B97F4A7C15)
    draws = (word >> 43, word >> 22 & 0x1FFFFF, word >> 1 & 0x1FFFFF)
    velocity = scene.velocities[draws[2] * len(scene.velocities) >> 21]
    room = scene.side - scene.digit
    axes = []
    for draw, speed in zip(draws, velocity, strict=False):
        allowed = [
            p
            for p in range(scene.margin, room - scene.margin + 1)
            if scene.bounces or 0 <= p + speed * (scene.frames - 1) <= room
        ]
        place, direction = allowed[draw * len(allowed) >> 21], int(np.sign(speed))
        axis = [place]
        for _ in range(scene.frames - 1):
            for _ in range(abs(speed)):
                if not 0 <= place + direction <= room:
                    direction = -direction
                place += direction
            axis.append(place)
        axes.append(axis)
    return list(zip(*axes, strict=True))


def pasted(scene: Scene, digit: np.ndarray, positions: np.ndarray, *, bars: bool = True) -> np.ndarray:
    """One sequence's frames."""
    frames = np.zeros((len(positions), scene.side, scene.side), digit.dtype)
    for frame, (row, column) in zip(frames, positions, strict=True):
        frame[row : row + scene.digit, column : column + scene.digit] = digit
        if bars:
            for begin in range(scene.first_bar, scene.side, scene.bar + scene.gap):
                frame[begin : begin + scene.bar] = 0
                frame[:, begin : begin + scene.bar] = 0
    return frames


def frames_of(renderer: Renderer, x: torch.Tensor, key: int | torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    return renderer.frames(x, renderer.positions(key, numbers))


def digits(scene: Scene, n: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed).random((n, scene.digit, scene.digit), np.float32)
    return torch.from_numpy(random + np.float32(0.01))  # no pixel is background


@pytest.mark.parametrize("scene", SCENES)
def test_trajectories_are_those_of_plain_integers(scene: Scene) -> None:
    numbers = torch.tensor([0, 1, 5, 99, 10**12, *range(1000, 1060)])
    found = Renderer(scene).positions(KEY, numbers)
    assert found.tolist() == [[list(p) for p in trajectory(scene, KEY, n)] for n in numbers.tolist()]


def test_a_border_reflects() -> None:
    start, velocity = torch.tensor([[17, 1], [18, 0]]), torch.tensor([[2, -2], [1, -1]])
    found = Renderer(FULL).moved(start, velocity)  # positions 0..18
    assert found[0].tolist() == [[17, 1], [17, 1], [15, 3], [13, 5], [11, 7]]
    assert found[1].tolist() == [[18, 0], [17, 1], [16, 2], [15, 3], [14, 4]]


def test_starts_and_velocities_are_uniform() -> None:
    n = 57_600
    positions = Renderer(FULL).positions(KEY, torch.arange(n))
    for axis in (0, 1):
        counts = np.bincount(positions[:, 0, axis].numpy(), minlength=19)
        expected = n / 19
        assert len(counts) == 19 and ((counts - expected) ** 2 / expected).sum() < 42.3  # chi-square, 18 d.f., 0.1 %
    middle = positions[(positions[:, 0] >= 4).all(1) & (positions[:, 0] <= 14).all(1)]
    moves, counts = np.unique((middle[:, 1] - middle[:, 0]).numpy(), axis=0, return_counts=True)
    assert sorted(map(tuple, moves.tolist())) == sorted(KNIGHT)
    expected = len(middle) / 8
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # 7 d.f., 0.1 %


def test_the_mini_scene_moves_straight_on() -> None:
    positions = Renderer(MINI).positions(KEY, torch.arange(500))
    assert (positions.diff(dim=1) == 1).all() and positions.min() == 0 and positions.max() == 9


def test_the_bars_lie_where_they_are_said_to() -> None:
    assert [i for i, free in enumerate(FULL.visible) if not free] == [8, 9, 10, 11, 20, 21, 22, 23]
    assert [i for i, free in enumerate(HALF.visible) if not free] == [4, 5, 10, 11]
    for scene in (FULL, HALF):
        assert (sum(scene.visible) / scene.side) ** 2 == 0.5625  # of a frame


@pytest.mark.parametrize("scene", SCENES)
def test_frames_are_pasted_digits_behind_bars(scene: Scene) -> None:
    renderer, x, numbers = Renderer(scene), digits(scene, 40), torch.arange(40)
    positions = renderer.positions(KEY, numbers)
    found = renderer.frames(x, positions)
    expected = np.stack([pasted(scene, *pair) for pair in zip(x.numpy(), positions.numpy(), strict=True)])
    np.testing.assert_array_equal(found.numpy(), expected, strict=True)
    bare = np.stack([pasted(scene, *pair, bars=False) for pair in zip(x.numpy(), positions.numpy(), strict=True)])
    np.testing.assert_array_equal(renderer.frames(x, positions, occluded=False).numpy(), bare)


@pytest.mark.parametrize("scene", SCENES)
def test_the_reconstruction_is_what_was_seen_so_far(scene: Scene) -> None:
    """What a frame shows of a digit is found by looking at the frame: no pixel of these digits is background."""
    n, d = 40, scene.digit
    renderer, x = Renderer(scene), digits(scene, n)
    drawn = renderer.positions(KEY, torch.arange(n))
    visible, positions = renderer.visible(drawn), drawn.numpy()
    found = seen_so_far(visible)
    for i in range(n):
        frames = pasted(scene, x[i].numpy(), positions[i])
        seen = np.zeros((d, d), bool)
        for t, (row, column) in enumerate(positions[i]):
            shown = frames[t, row : row + d, column : column + d] > 0
            seen |= shown
            assert visible[i, t].float().mean().item() == pytest.approx(shown.mean())
            np.testing.assert_array_equal(found[i, t].numpy(), seen)


@pytest.mark.parametrize(("scene", "share"), [(FULL, 0.907), (HALF, 0.982)])
def test_how_much_of_a_digit_is_seen_in_the_end(scene: Scene, share: float) -> None:
    """Over every start and velocity, once each; 10,000 drawn sequences give the same to a thousandth."""
    places = range(scene.room + 1)
    every = torch.tensor([[row, column, *v] for row, column, v in itertools.product(places, places, scene.velocities)])
    renderer = Renderer(scene)
    seen = seen_so_far(renderer.visible(renderer.moved(every[:, :2], every[:, 2:])))[:, -1].float().mean().item()
    assert seen == pytest.approx(share, abs=0.001)
    drawn = renderer.visible(renderer.positions(KEY, torch.arange(10_000))).any(1).float().mean().item()
    assert drawn == pytest.approx(seen, abs=0.001)


def test_a_sequence_is_a_function_of_key_and_number() -> None:
    renderer = Renderer(FULL)
    together = renderer.positions(KEY, torch.arange(300))
    apart = torch.cat([renderer.positions(KEY, torch.tensor([n])) for n in (7, 299, 0)])
    assert torch.equal(apart, together[[7, 299, 0]])
    assert len(together.flatten(1).unique(dim=0)) > 270  # of 2,888 trajectories, fresh ones for fresh numbers
    other = renderer.positions(KEY + 1, torch.arange(300))
    assert (other == together).all(-1).all(-1).float().mean() < 0.02


def test_another_process_draws_the_same() -> None:
    program = (
        "import torch; from ladder_search.data.occluded import FULL, Renderer; torch.manual_seed(8); torch.rand(3); "
        f"print(Renderer(FULL).positions({KEY}, torch.arange(3, 9)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(Renderer(FULL).positions(KEY, torch.arange(3, 9)).tolist())


def test_members_of_a_pack_draw_side_by_side() -> None:
    """Stacked by vmap, each with its own key."""
    renderer, keys = Renderer(HALF), torch.tensor([3, -5, KEY])
    x, numbers = torch.stack([digits(HALF, 6, seed) for seed in range(3)]), torch.arange(18).view(3, 6)
    stacked = torch.vmap(partial(frames_of, renderer))(x, keys, numbers)
    for k in range(3):
        assert torch.equal(stacked[k], frames_of(renderer, x[k], int(keys[k]), numbers[k]))


@pytest.mark.gpu
def test_a_gpu_draws_the_same_bits() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x, numbers = digits(FULL, 200), torch.arange(200)
    here, there = Renderer(FULL), Renderer(FULL, "cuda")
    assert torch.equal(frames_of(here, x, KEY, numbers), frames_of(there, x.cuda(), KEY, numbers.cuda()).cpu())
    positions = here.positions(KEY, numbers)
    assert torch.equal(here.visible(positions), there.visible(positions.cuda()).cpu())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"digit": 32}, "a digit must be smaller than its frame"),
        ({"gap": 0}, "bars must leave gaps of at least 1 pixel"),
        ({"frames": 1}, "a sequence must have at least 2 frames"),
        ({"pooling": "median"}, "pooling must be 'mean' or 'max'"),
        ({"velocities": ()}, "a digit moves in its room"),
        ({"velocities": ((19, 0),)}, "a digit moves in its room"),
        ({"margin": 10}, "a digit must have a place to start from"),
        ({"bounces": False, "frames": 11}, "a digit must have a place to start from"),
    ],
)
def test_a_scene_that_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        Scene(**settings)  # type: ignore[arg-type]
