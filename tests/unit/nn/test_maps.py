"""Layers on images: how they are read, the sizes of the paper's networks, their way up and down against SciPy."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d, correlate2d

from ladder_search.errors import LadderSearchError, SettingError, UnknownNameError
from ladder_search.nn.maps import (
    Convolution,
    FullyConnected,
    GlobalMeanPool,
    MaxPool,
    as_map,
    read_layer,
    read_network,
    start,
)

RNG = np.random.default_rng(1)

# Image, layers, and (channels, height, width) of each as the paper's nets are decoded; (n,) stands for n x 1 x 1.
NETWORKS: dict[str, tuple[tuple[int, int, int], str, list[tuple[int, ...]]]] = {
    "Conv-FC": (
        (1, 28, 28),
        "convv:1000:26:1 convv:500:1:1 convv:250:1:1 convv:250:1:1 convv:250:1:1 convv:10:1:1 globalmeanpool",
        [(1000, 3, 3), (500, 3, 3), (250, 3, 3), (250, 3, 3), (250, 3, 3), (10, 3, 3), (10,)],
    ),
    "Conv-Small": (
        (1, 28, 28),
        "convf:32:5:1 maxpool:2:2 convv:64:3:1 convf:64:3:1 maxpool:2:2 convv:128:3:1 convv:10:1:1 globalmeanpool "
        "fc:10",
        [
            (32, 32, 32),
            (32, 16, 16),
            (64, 14, 14),
            (64, 16, 16),
            (64, 8, 8),
            (128, 6, 6),
            (10, 6, 6),
            (10,),
            (10,),
        ],
    ),
    "Conv-Large": (
        (3, 32, 32),
        "convv:96:3:1 convf:96:3:1 convf:96:3:1 maxpool:2:2 convv:192:3:1 convf:192:3:1 convv:192:3:1 maxpool:2:2 "
        "convv:192:3:1 convv:192:1:1 convv:10:1:1 globalmeanpool",
        [
            (96, 30, 30),
            (96, 32, 32),
            (96, 34, 34),
            (96, 17, 17),
            (192, 15, 15),
            (192, 17, 17),
            (192, 15, 15),
            (192, 8, 8),  # 15 by 2: the window that is cut counts
            (192, 6, 6),
            (192, 6, 6),
            (10, 6, 6),
            (10,),
        ],
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_the_papers_networks_has_its_size(name: str) -> None:
    image, layers, sizes = NETWORKS[name]
    found = read_network(tuple(layers.split()), image)
    assert found.sizes == (image, *((*size, 1, 1)[:3] for size in sizes))
    assert len(found.layers) == len(sizes)


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("convv:64:3:1", Convolution(64, 3, 1, full=False)),
        ("convf:32:5:2", Convolution(32, 5, 2, full=True)),
        ("maxpool:3:3", MaxPool(3)),
        ("globalmeanpool", GlobalMeanPool()),
        ("fc:10", FullyConnected(10)),
    ],
)
def test_a_layer_is_read(text: str, layer: Any) -> None:
    assert read_layer(text) == layer
    assert layer.pools == ("pool" in text)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (("convv:64:3", "fc:10"), "a layer convv in model.layers is written convv:CHANNELS:KERNEL:STRIDE, with"),
        (("convf:64:3:1:1",), "a layer convf in model.layers is written convf:CHANNELS:KERNEL:STRIDE, with"),
        (("convv:0:3:1",), "with whole numbers above 0, got 'convv:0:3:1'; correct it."),
        (("convv:-4:3:1",), "got 'convv:-4:3:1'"),
        (("convv:4.0:3:1",), "got 'convv:4.0:3:1'"),
        (("convv:٤:3:1",), "got 'convv:٤:3:1'"),  # digits elsewhere, and to int()
        (("convv:9999999999:3:1",), "got 'convv:9999999999:3:1'"),
        (("fc:10:1",), "a layer fc in model.layers is written fc:UNITS, with"),
        (("fc",), "got 'fc'"),
        (("globalmeanpool:6",), "a layer globalmeanpool in model.layers is written globalmeanpool, with"),
        (("maxpool:2", "fc:10"), "is written maxpool:STRIDE:SIZE, with"),
        (("maxpool:2:3", "fc:10"), "has windows of 2 or more that do not overlap, got 'maxpool:2:3'; give stride and"),
        (("maxpool:1:1", "fc:10"), "has windows of 2 or more that do not overlap, got 'maxpool:1:1'; give stride and"),
        (("convv:4:9:1", "fc:10"), "at least as large as its 9 x 9 filters, got 8 x 6 below it in model.layers; make"),
        (("convv:4:7:1", "fc:10"), "at least as large as its 7 x 7 filters, got 8 x 6 below it"),
        (("fc:10", "convv:4:1:1"), "in model.layers only fc may follow fc, got 'convv:4:1:1'; put it before"),
        (("convv:10:1:1",), "must leave one number per class, got 10 x 8 x 6 from 'convv:10:1:1'; end with"),
        ((), "model.layers must list at least 1 layer, got none; end them with fc:CLASSES."),
    ],
    ids=str,
)
def test_what_breaks_a_rule_is_one_sentence(layers: tuple[str, ...], says: str) -> None:
    with pytest.raises(SettingError, match=re.escape(says)) as caught:
        read_network(layers, (1, 8, 6))
    message = str(caught.value)
    assert message.endswith(".") and "; " in message and ". " not in message and "\n" not in message


def test_an_unknown_layer_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'maxpool'"):
        read_layer("maxpol:2:2")
    assert issubclass(UnknownNameError, LadderSearchError)


@pytest.mark.parametrize("image", [(0, 8, 8), (1, -1, 8), (1, 8, 0)])
def test_an_image_without_numbers_is_refused(image: tuple[int, int, int]) -> None:
    with pytest.raises(SettingError, match="model.image must be channels, height and width, each at least 1, got"):
        read_network(("fc:10",), image)


def maps(*shape: int) -> tuple[np.ndarray, torch.Tensor]:
    """The same random maps as (rows, channels, height, width) for NumPy, and as layers take them."""
    x = RNG.standard_normal(shape)
    return x, torch.from_numpy(x.transpose(0, 2, 3, 1).copy())


def by_scipy(x: np.ndarray, filters: np.ndarray, mode: str, slide: Any = correlate2d) -> np.ndarray:
    return np.array([[sum(map(lambda a, f: slide(a, f, mode), row, bank)) for bank in filters] for row in x])


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("full", [False, True])
def test_a_convolution_and_its_inverse_are_scipys(full: bool, stride: int) -> None:
    x, h = maps(2, 3, 7, 6)
    layer, mode, back = Convolution(4, 3, stride, full=full), *(("full", "valid") if full else ("valid", "full"))
    filters = RNG.standard_normal(layer.shape((3, 7, 6)))
    expected = by_scipy(x, filters, mode)[:, :, ::stride, ::stride]
    found = layer.up(h, torch.from_numpy(filters)).numpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert layer.size((3, 7, 6)) == expected.shape[1:]

    z, z_hat = maps(2, *layer.size((3, 7, 6)))
    filters = RNG.standard_normal(layer.shape_down((3, 7, 6)))
    zeros = np.zeros((*z.shape[:2], z.shape[2] * stride, z.shape[3] * stride))
    zeros[:, :, ::stride, ::stride] = z
    # On the way down from where it fits, a filter is spread as it is: that is the convolution in SciPy's words.
    expected = by_scipy(zeros, filters, back, correlate2d if full else convolve2d)
    found = layer.down(z_hat, torch.from_numpy(filters), (3, 7, 6)).numpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected[:, :, :7, :6], rtol=1e-10, atol=1e-12)


def test_a_pool_takes_cut_windows_and_its_inverse_repeats() -> None:
    x = np.arange(15.0).reshape(1, 1, 3, 5)
    found = MaxPool(2).up(as_map(torch.from_numpy(x), (1, 3, 5)), None)
    assert found[0, :, :, 0].tolist() == [[6.0, 8.0, 9.0], [11.0, 13.0, 14.0]]
    back = MaxPool(2).down(found, None, (1, 3, 5))
    assert back[0, :, :, 0].tolist() == [
        [6.0, 6.0, 8.0, 8.0, 9.0],
        [6.0, 6.0, 8.0, 8.0, 9.0],
        [11.0, 11.0, 13.0, 13.0, 14.0],
    ]


def test_the_mean_of_a_map_is_scaled_and_its_inverse_spreads() -> None:
    x, h = maps(2, 3, 4, 5)
    found = GlobalMeanPool().up(h, None)
    np.testing.assert_allclose(found.numpy()[:, 0, 0], x.mean(axis=(2, 3)) * 5 * np.sqrt(3), rtol=1e-12)
    back = GlobalMeanPool().down(found, None, (3, 4, 5))
    assert back.shape == (2, 4, 5, 3)
    assert torch.equal(back, found.repeat(1, 4, 5, 1))


def test_full_connections_read_a_map_place_by_place() -> None:
    x, h = maps(2, 3, 4, 5)
    layer = FullyConnected(7)
    assert (layer.shape((3, 4, 5)), layer.shape_down((3, 4, 5))) == ((7, 60), (60, 7))
    weight, back = RNG.standard_normal((7, 60)), RNG.standard_normal((60, 7))
    found = layer.up(h, torch.from_numpy(weight))
    assert found.shape == (2, 1, 1, 7)
    np.testing.assert_allclose(found.numpy()[:, 0, 0], x.transpose(0, 2, 3, 1).reshape(2, 60) @ weight.T, rtol=1e-10)
    down = layer.down(found, torch.from_numpy(back), (3, 4, 5))
    np.testing.assert_allclose(down.numpy(), found.numpy()[:, 0, 0] @ back.T, rtol=1e-10)


def test_an_examples_numbers_come_by_channel_height_and_width() -> None:
    x = torch.arange(48.0).reshape(2, 24)
    found = as_map(x, (2, 3, 4))
    assert found.shape == (2, 3, 4, 2)
    assert found[1, 2, 3].tolist() == [24 + 11, 24 + 23]


def test_weights_start_with_variance_one_over_fan_in() -> None:
    generator = torch.Generator().manual_seed(1)
    filters, full = start((64, 20, 5, 5), generator), start((500, 400), generator)
    for weight, fan_in, fourth in ((filters, 500, 9 / 5), (full, 400, 3.0)):  # moments of uniform and normal numbers
        scaled = weight.double().numpy().ravel() * np.sqrt(fan_in)
        n = scaled.size
        assert abs(scaled.mean()) < 4 / np.sqrt(n)
        assert scaled.var() == pytest.approx(1.0, abs=4 * np.sqrt(2 / n))
        assert (scaled**4).mean() == pytest.approx(fourth, abs=4 * np.sqrt(96 / n))
    assert filters.abs().max() <= np.sqrt(3 / 500)
