"""Errors of predictors without parameters: by loops in NumPy, and on MNIST."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ladder_search.data import datasets
from ladder_search.data.arrays import quiet
from ladder_search.data.dataset import PRESENT
from ladder_search.data.occluded import FULL, HALF, Renderer, Scene
from ladder_search.data.occluded_bounds import PredictionBounds, prediction_bounds
from ladder_search.data.occluded_sets import MovingSource

KEY = 77


def by_loops(scene: Scene, x: np.ndarray, positions: np.ndarray) -> PredictionBounds:
    side, d, room = scene.side, scene.digit, scene.side - scene.digit
    free = np.array([i % (scene.bar + scene.gap) < scene.gap for i in range(side)])  # these scenes begin with a gap
    bars = np.outer(free, free)

    def shown(digit: np.ndarray, place: np.ndarray) -> np.ndarray:
        frame = np.zeros((side, side))
        frame[place[0] : place[0] + d, place[1] : place[1] + d] = digit
        return frame * bars

    zero, copy, unknown = [], [], []
    known: list[list[float]] = [[] for _ in range(scene.frames - 1)]
    for digit, places in zip(x.astype(float), positions, strict=True):
        frames = [shown(digit, place) for place in places]
        seen = np.zeros((d, d), bool)
        for t in range(1, scene.frames):
            zero.append((frames[t] ** 2).mean())
            copy.append(((frames[t] - frames[t - 1]) ** 2).mean())
            row, column = places[t - 1]
            seen |= bars[row : row + d, column : column + d]
            known[t - 1].append(((frames[t] - shown(digit * seen, places[t])) ** 2).mean())
        guess = np.zeros((side, side))
        for velocity in scene.velocities:
            place = places[0] + velocity
            place = np.where(place < 0, -place, np.where(place > room, 2 * room - place, place))
            guess += shown(digit, place) / len(scene.velocities)
        unknown.append(((frames[1] - guess) ** 2).mean())
    return PredictionBounds(
        zero=float(np.mean(zero)),
        copy=float(np.mean(copy)),
        unknown_velocity=float(np.mean(unknown)),
        known_motion=tuple(float(np.mean(errors)) for errors in known),
    )


@pytest.mark.parametrize("scene", [FULL, HALF])
def test_the_errors_are_those_of_loops(scene: Scene) -> None:
    x = np.random.default_rng(4).random((30, scene.digit, scene.digit), np.float32)
    renderer = Renderer(scene)
    positions = renderer.positions(KEY, torch.arange(30))
    found = prediction_bounds(renderer, torch.from_numpy(x), positions)
    expected = by_loops(scene, x, positions.numpy())
    for name in ("zero", "copy", "unknown_velocity", "known_motion"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ink", "zero", "copy", "unknown", "known", "informed"),
    [
        ("occluded-mnist", 0.862, 701, 899, 380, (234, 240, 150, 142), 228),
        ("occluded-mnist-half", 0.966, 526, 787, 308, (294, 212, 104, 60), 171),
    ],
)
def test_on_mnist(
    name: str, ink: float, zero: float, copy: float, unknown: float, known: tuple[float, ...], informed: float
) -> None:
    """Figures of an independent program, one draw each, in 1e-5.

    The first three are of all 10,000 test digits: shares hold to 1 %, and errors, with its grey levels of 1/256 in the
    place of ours of 1/255, to 0.5 %.

    The others were given as of all test digits, too, and are not: for whoever knows the digit and its place the mean of
    the eight equally likely frames is the best guess there is, its error on all digits is 415 (348 at half size), and
    the figure is 380 (308). They fit one draw of few of the first test digits, which are neater and 10 % lighter than
    the rest. All twelve lie within 1.5 standard deviations of a draw of the first 500 from its mean (12 draws); within
    1.6 of that of the first 2,000, but for the last frame's 142, which is 3.6 below. So they are held to 5 % on the
    first 2,000, in single frames to 8 %, the spread of one draw of so few.

    Other readings, on all digits, one draw each: unknown velocity, motion known in frames 2 to 5, the mean of four.

        figures                                   380   234 240 150 142   228       308   294 212 104  60   171
        ours                                      415   266 270 176 171   258       349   337 256 125  71   200
        whole grey levels                         414   265 269 175 170   257       347   335 255 124  71   199
        starts 0 .. room - 1                      431   275 269 177 165   261       378   351 246 130  67   206
        starts 1 .. room - 1                      450   282 271 176 159   264       415   367 231 130  62   210
        starts 2 .. room - 2                      471   299 272 159 147   262       447   385 177 106  40   193
        turned before the border                  417   275 277 180 168   260       362   374 254 111  78   201
        stopped at the border, then turned        456   270 267 168 162   263       430   347 236 126  83   219
        turned as soon as it touches              456   270 265 179 162   266       430   347 232 149  67   220
        both directions turned at once            420   275 253 167 126   241       373   375 194  91  33   173

    With grey levels of 1/256, of the guess and of what is known of the digit instead: velocities stopped at borders 431
    (380), those that reach none 418 (357), one at random 828 (696), their median 527 (441), without bars 1048 (874);
    the frame before alone 268 272 275 278 (337 360 347 359), the mean digit where nothing was seen 144 142 92 88 (139
    100 49 27), frames without bars 1143 875 608 435 (844 508 256 131).
    """
    if datasets.state(name) != PRESENT:
        pytest.skip(f"{name} is not here")
    row = datasets.DATASETS[name]
    assert isinstance(row, MovingSource)
    data = row.load(quiet)
    renderer, x = Renderer(row.moving.scene), torch.from_numpy(data.test_x.astype(np.float32)) / data.full_scale
    shares, errors, frames_of = [], [], torch.arange(len(x))
    for key in range(3):
        positions = renderer.positions(key, frames_of)
        frames = renderer.frames(x, positions)
        seen, inked = renderer.visible(positions).any(1), x > 0
        shares.append(((seen & inked).sum() / inked.sum()).item())
        apart = frames[:, 1:] - frames[:, :-1]
        errors.append([frames[:, 1:].square().mean().item(), apart.square().mean().item()])
    assert np.mean(shares) == pytest.approx(ink, rel=0.01)
    assert np.mean(errors, 0) * 1e5 * (255 / 256) ** 2 == pytest.approx([zero, copy], rel=0.005)

    found = [prediction_bounds(renderer, x[:2000], renderer.positions(k, torch.arange(2000))) for k in range(3)]
    assert np.mean([f.unknown_velocity for f in found]) * 1e5 == pytest.approx(unknown, rel=0.05)
    assert np.mean([f.known_motion for f in found], 0) * 1e5 == pytest.approx(known, rel=0.08)
    means = [np.mean([f.unknown_velocity, *f.known_motion[1:]]) for f in found]
    assert np.mean(means) * 1e5 == pytest.approx(informed, rel=0.05)
