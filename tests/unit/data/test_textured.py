"""Textured digits: textures by their definition, compositions in NumPy, places within bounds, fixed test sets."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ladder_search.data import datasets, textures
from ladder_search.data.dataset import PRESENT
from ladder_search.data.drawing import TEST, TRAINING, UNSCORED, VALIDATION, part_key, partners
from ladder_search.data.grouping_sets import DigitsSource, drawn_digits
from ladder_search.data.textured import TexturedScene, _TexturedPainter
from ladder_search.errors import DataError, SettingError

CPU = torch.device("cpu")
ONE, TWO = TexturedScene(), TexturedScene(n_digits=2, shift=2)
PHOTOGRAPHS = TexturedScene(kind="photographs", fresh=True)
RAMPS = np.random.default_rng(2).integers(0, 256, (2, 20, textures.HEIGHT, textures.WIDTH))


def painter(scene: TexturedScene, material: NDArray[np.int64] | None = None) -> _TexturedPainter:
    made = scene.painter(material, CPU)
    assert isinstance(made, _TexturedPainter)
    return made


def digits_of(scene: TexturedScene, images: int) -> Tensor:
    """Random digits with soft edges: half of the pixels are empty or full."""
    levels = np.random.default_rng(1).integers(-255, 511, (images, scene.n_digits, scene.digit, scene.digit))
    return torch.from_numpy(np.clip(levels, 0, 255) * (scene.ink // 255)).to(torch.int16)


def test_sinusoids_are_inverse_transforms_of_one_frequency() -> None:
    found, phases = textures.sinusoids(), np.random.RandomState(546298)
    waves = textures.waves()
    assert waves[:5] == [(4, 0), (4, 4), (4, 8), (4, 12), (10, 1)] and waves[-1] == (37, 16) and len(set(waves)) == 20
    for texture, (down, across) in zip(found, waves, strict=True):
        spectrum = np.zeros((38, 38), complex)
        spectrum[down, across] = np.exp(2j * np.pi * phases.rand())
        plane = np.fft.ifft2(spectrum).real
        expected = (plane - plane.min()) / np.ptp(plane)
        assert texture / textures.DEPTH == pytest.approx(expected, abs=1e-5)
        assert (texture.min(), texture.max()) == (0, textures.DEPTH)


@pytest.mark.parametrize("scene", [ONE, TWO, replace(TWO, side=16, digit=14, shift=1)], ids=["one", "two", "small"])
def test_compositions_in_numpy(scene: TexturedScene) -> None:
    """Images and segments from patches that are found in the textures, whatever was drawn."""
    n, digits, numbers = 40, digits_of(scene, 40), torch.arange(40)
    images, segments = painter(scene).draw(digits, part_key(TEST), numbers, TEST)
    again = painter(scene).draw(torch.zeros_like(digits), part_key(TEST), numbers, TEST)[0]
    backgrounds = (again.double() / scene.full_scale).view(n, scene.side, scene.side).numpy()
    sinusoids = textures.sinusoids() / textures.DEPTH
    room = 38 - scene.side + 1
    crops = np.stack(
        [sinusoids[:, r : r + scene.side, c : c + scene.side] for r in range(room) for c in range(room)], 1
    ).reshape(20 * room * room, -1)
    # Where nothing is soft, a digit shows its texture; crops may agree there and differ elsewhere by a rounding.
    border = (scene.side - scene.digit) // 2
    orders = set()
    for i in range(n):
        canvas = np.zeros((scene.n_digits, scene.side + 8, scene.side + 8))
        for digit in range(scene.n_digits):
            at = 4 + border + (0 if scene.n_digits == 1 else (-1, 1)[digit] * scene.shift)
            canvas[digit, at : at + scene.digit, at : at + scene.digit] = digits[i, digit] / scene.ink
        masks = canvas[:, 4:-4, 4:-4].reshape(scene.n_digits, -1)
        image = images[i].double().numpy() / scene.full_scale
        assert np.abs(crops - backgrounds[i].ravel()).max(1).min() < 1e-9, "a background is a crop"
        matches = []
        for order in ([0], [0, 1], [1, 0])[scene.n_digits - 1 : 2 * scene.n_digits - 1]:
            shares = [np.ones(scene.side**2)]
            for digit in order:
                shares = [share * (1 - masks[digit]) for share in shares] + [masks[digit]]
            layers = [backgrounds[i].ravel()]
            for layer in range(1, len(shares)):
                full = shares[layer] == 1
                difference = np.abs(crops[:, full] - image[full]).max(1)
                layers.append(crops[difference.argmin()])
            composed = sum(share * layer for share, layer in zip(shares, layers, strict=True))
            if np.abs(composed - image).max() < 5e-5:
                largest = np.max(shares, 0)
                expected = np.where(largest > 0.9 + 1e-12, np.argmax(shares, 0), UNSCORED)
                matches.append((tuple(order), (segments[i].numpy() == expected).all()))
        assert matches and all(agree for _, agree in matches)
        orders.add(matches[0][0])
    assert len(orders) == scene.n_digits, "either digit may be in front"


def test_textures_of_an_image_differ_and_all_pairs_occur() -> None:
    drawn = torch.from_numpy(np.random.default_rng(3).integers(0, 2**21, (20_000, 3)))
    found = painter(TWO)._distinct(drawn)
    assert found.min() == 0 and found.max() == 19
    assert all((found[:, a] != found[:, b]).all() for a, b in ((0, 1), (0, 2), (1, 2)))
    assert len(set(map(tuple, found.tolist()))) > 6000  # of 20 x 19 x 18 = 6,840
    for layer in range(3):
        shares = np.bincount(found[:, layer], minlength=20) / 20_000
        assert np.abs(shares - 0.05).max() < 0.01


def test_images_stay_in_bounds_and_digits_are_not_brighter() -> None:
    digits, numbers = digits_of(TWO, 1000), torch.arange(1000)
    images, segments = painter(TWO).draw(digits, 7, numbers, TRAINING)
    values = images.double() / TWO.full_scale
    assert images.min() >= 0 and values.max() <= 1
    means = [values[segments == segment].mean() for segment in range(3)]
    assert means == pytest.approx([0.5] * 3, abs=0.01)
    assert set(segments.unique().tolist()) == {UNSCORED, 0, 1, 2}


def test_photographs_in_evaluations_are_plain_parts_of_their_half() -> None:
    scene = PHOTOGRAPHS
    empty = torch.zeros((30, 1, 28, 28), dtype=torch.int16)
    for part, half in ((VALIDATION, 0), (TEST, 1)):
        images = painter(scene, RAMPS).draw(empty, part_key(part), torch.arange(30), part)[0].view(-1, 28, 28)
        for image in images.numpy() // scene.ink:
            # Centres of an even number of pixels lie between pixels: every pixel is a mean of four.
            first = RAMPS[half].astype(int)
            means = (first[:, :-1, :-1] + first[:, 1:, :-1] + first[:, :-1, 1:] + first[:, 1:, 1:]) // 4
            corners = np.argwhere(means == image[0, 0])
            matches = [
                True
                for texture, row, column in corners
                if (means[texture, row : row + 28, column : column + 28].shape == (28, 28))
                and (means[texture, row : row + 28, column : column + 28] == image).all()
            ]
            assert matches == [True]


def test_every_rotation_and_scale_stays_in_its_half() -> None:
    """The corners of all transformed images, at the outermost centres, in each half separately."""
    scene = PHOTOGRAPHS
    made = painter(scene, RAMPS)
    extremes = torch.tensor([0, 2**21 - 1])
    grid = torch.cartesian_prod(extremes, extremes, torch.arange(0, 2**21, 2**21 // 256), extremes).view(-1, 1, 4)
    texture = torch.zeros((len(grid), 1), dtype=torch.int64)
    for half in range(2):
        own = np.zeros_like(RAMPS)
        own[half, 0] = 255  # every pixel of one texture is white, all others are black
        made._textures = torch.from_numpy(own.reshape(-1))
        values = made._photographs(texture, grid, TRAINING)
        assert values.unique().tolist() == [255 if half == 0 else 0]


def test_photographs_in_training_are_rotated_and_scaled() -> None:
    """A quarter turn at scale 1 shows the rotated image of no turn; scales change the extent."""
    made = painter(PHOTOGRAPHS, RAMPS)
    texture = torch.zeros((1, 1), dtype=torch.int64)
    middle, unit = 2**20, round((256 - 192 + 0.5) * 2**21 / 129)

    def shown(angle: int, scale: int) -> NDArray[np.int64]:
        drawn = torch.tensor([[[middle, middle, angle * 2**13 + 1, scale]]])
        return made._photographs(texture, drawn, TRAINING).view(28, 28).numpy()

    plain = made._photographs(texture, torch.tensor([[[middle, middle, 5, 5]]]), VALIDATION).view(28, 28).numpy()
    assert (shown(0, unit) == plain).all()
    assert (np.rot90(shown(64, unit), -1) == plain).all() or (np.rot90(shown(64, unit)) == plain).all()
    assert not (shown(0, 0) == plain).all() and not (shown(10, unit) == plain).all()


def test_the_photographs_themselves() -> None:
    """Uses the user's own folder."""
    if not textures.has_photographs():
        pytest.skip("Brodatz's photographs are not here")
    found = textures.photographs()
    assert found.shape == (2, 20, 152, 76) and (found.min(), found.max()) == (0, 255)
    assert (found.std((2, 3)) > 30).all()
    assert len({each.tobytes() for each in found.reshape(40, -1)}) == 40


def test_missing_or_other_photographs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LADDER_SEARCH_DATA", raising=False)
    assert not textures.has_photographs()
    with pytest.raises(DataError, match="LADDER_SEARCH_DATA, which is not set; set it"):
        textures.photographs()
    monkeypatch.setenv("LADDER_SEARCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"need the file .*D4\.gif, it is not there; put it there"):
        textures.photographs()
    (tmp_path / "brodatz").mkdir()
    (tmp_path / "brodatz" / "D4.gif").write_bytes(b"GIF89a")
    assert datasets.state("brodatz-digits") != PRESENT
    with pytest.raises(DataError, match=r"D4\.gif must have the sha256"):
        textures.photographs()


def test_partners_are_of_the_same_part_and_uniform() -> None:
    rows = torch.arange(20_000)
    found = partners(part_key(TEST), rows, rows, 2, 100)
    assert torch.equal(found[:, 0], rows) and (found[:, 1].min(), found[:, 1].max()) == (0, 99)
    shares = np.bincount(found[:, 1], minlength=100) / 20_000
    assert np.abs(shares - 0.01).max() < 0.004
    far = partners(part_key(TEST), rows, rows, 2, 60_000)[:, 1]
    assert len(far.unique()) > 16_000, "42 bits: few repetitions"
    assert torch.equal(partners(1, rows, rows, 1, 5), rows.unsqueeze(-1))


ROWS = {name: row for name, row in datasets.DATASETS.items() if isinstance(row, DigitsSource)}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_of_the_table(row: DigitsSource) -> None:
    assert row.description and row.digits.name in datasets.DATASETS and 28 % row.scene.digit == 0
    assert len({other.identity for other in ROWS.values()}) == len(ROWS) == 16
    assert ("brodatz" in row.name) == row.photographs == any("brodatz" in source for source in row.sources)


TEST_SETS = {
    "freq20-1digits": "de06517a2e5a73f070eb864937b9236da792d15725553788f9629830ed0ff845",
    "freq20-2digits": "846b7a28e8eaa2436504585350a0a12f41fb39c168e0440cd0e726f06c433c4d",
    "freq20-1digits-small": "4d883115671a16a6890d234228cc44f9828e7d6bf3222f4f1cac6daec153a775",
    "two-textures-digits": "9bf2ede90452cfff8336a0cebbb973a874f3c5a0cae7c2b80165773e79f64304",
    "brodatz-digits": "ee63525f7c52e111f614b1f1ffa6a39cdcb5b24e72055b9158d4aaf63bbfbb5a",
    "moving-digits-half": "eed23451a53f0213c2eff716c211985d2167781ca30b3b0d1d311988162b99b0",
    "moving-digits-small": "90d6b45bea70a70e4e08d45180be88641d805d445291490ea2530c4ed54e420a",
    "freq20-1mnist": "a7a980ac3359b558dcf6224e245d519e5a37c0941fcaed910e1a112068529454",
    "freq20-2mnist": "4b0d2cd8f28b200d5a59b65d5e01969b2dd04b25fa3e61a71786a0eedbef58f1",
    "brodatz-mnist": "ccd57a05f7eb8c1af2822afd01c066f35e961d5beb87af49d68dbe173ca886f1",
    "moving-mnist": "80e9a1823689b2532d2587aae5a0c426c37f69244dfb455563e8216828d140ae",
}


@pytest.mark.parametrize("name", TEST_SETS)
def test_the_real_test_sets_stay_what_they_are(name: str) -> None:
    """The sha256 over images and segments of the first 100 test rows; uses the user's own cache and folder."""
    if datasets.state(name) != PRESENT:
        pytest.skip(f"{name} is not here")
    data, sha = datasets.load(name), hashlib.sha256()
    assert data.grouped is not None
    scene, key = data.grouped.scene, part_key(TEST)
    for rows in torch.arange(100).split(20):
        digits = torch.from_numpy(data.test_x)[partners(key, rows, rows, scene.digits, len(data.test_x))]
        images, segments = scene.painter(data.grouped.material, CPU).draw(digits, key, rows, TEST)
        sha.update(images.numpy().astype("<i8").tobytes() + segments.numpy().astype(np.int8).tobytes())
    assert sha.hexdigest() == TEST_SETS[name]


def test_digits_are_thickened_and_sharpened_before_they_are_downscaled() -> None:
    plain = datasets.load("digits-28")
    image = plain.train_x[7].reshape(28, 28).astype(int)
    thick = np.array(
        [[image[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2].max() for c in range(28)] for r in range(28)]
    )
    found = drawn_digits("toy", plain, replace(ONE, side=16, digit=14, thickened=True)).train_x[7]
    assert (found == thick.reshape(14, 2, 14, 2).sum((1, 3))).all()
    sharp = drawn_digits("toy", plain, replace(ONE, sharpened=True)).train_x[7]
    assert (sharp == np.clip(2 * image - 128, 0, 255)).all()


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(SettingError, match="1 or 2 digits, got 3"):
        TexturedScene(n_digits=3)
    with pytest.raises(SettingError, match="digits of 28 pixels must fit into the middle of 20"):
        TexturedScene(side=20)
    with pytest.raises(SettingError, match="larger than an image of 40 pixels"):
        TexturedScene(side=40)
    with pytest.raises(SettingError, match=r"got 'digits' with 64 numbers and 28; choose for example mnist and 14"):
        drawn_digits("toy", datasets.load("digits"), ONE)
