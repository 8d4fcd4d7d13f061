"""The rule is arithmetic: values by hand from the table in the module."""

from __future__ import annotations

import pytest

from ladder_search.training.compiling import compile_pays, step_flops

MNIST = (784, 1000, 500, 250, 250, 250, 10)


def test_products_of_a_step_by_hand() -> None:
    # 3-2 units, 4 labelled and 5 unlabelled rows. One product is 2 * 3 * 2 = 12 operations a row; the encoder's rows
    # are 4 + 5 + 5, forward and the weights' gradient; the decoder's 5 rows have the input's gradient, too.
    assert step_flops((3, 2), decoder="full", labelled=4, unlabelled=5) == 14 * 2 * 12 + 5 * 3 * 12
    assert step_flops((3, 2), decoder="gamma", labelled=4, unlabelled=5) == 14 * 2 * 12
    assert step_flops((3, 2), decoder="none", labelled=4, unlabelled=5) == 4 * 2 * 12
    # A second layer, 2 * 2 * 7 = 28 operations a row, has all three products in the encoder as well.
    assert step_flops((3, 2, 7), decoder="none", labelled=4, unlabelled=5) == 4 * (2 * 12 + 3 * 28)
    one = step_flops(MNIST, decoder="full", labelled=100, unlabelled=100)
    assert one == pytest.approx(3.2e9, rel=0.01)
    assert step_flops(MNIST, decoder="full", labelled=100, unlabelled=100, members=10) == 10 * one


def test_what_was_measured_is_decided_as_measured() -> None:
    # 28 ms saved a step: 60 s of compiling come back after 2,143 steps; 3.5 ms: after 17,143.
    assert not compile_pays(3.2e9, 2_000) and compile_pays(3.2e9, 2_300)
    assert not compile_pays(0.1e9, 16_000) and compile_pays(0.1e9, 18_500)


def test_the_studies() -> None:
    mnist = step_flops(MNIST, decoder="full", labelled=100, unlabelled=100)
    digits = step_flops((64, 200, 100, 50, 50, 50, 10), decoder="full", labelled=100, unlabelled=100)
    assert compile_pays(mnist, 600 * 150), "150 epochs of MNIST"
    assert not compile_pays(digits, 12 * 100), "100 epochs of the digits"
