"""``ladder_search.testing``: the page's family keeps the contract, and every planted mistake is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ladder_search import testing
from ladder_search.errors import UnknownNameError
from ladder_search.testing import FamilyContractError, check_family
from tests.plugin_files import example, forgotten, write_plugin


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    with forgotten():
        yield
    testing.dataset_of.cache_clear()


def test_the_family_of_the_page_keeps_the_contract(tmp_path: Path) -> None:
    check_family("plain", write_plugin(tmp_path))
    assert len(example().splitlines()) <= 140


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown family 'plane'"):
        check_family("plane")


MISTAKES = {
    "a parameter without a gradient": (
        "self.b = nn",
        "self.c = nn.Parameter(torch.zeros(3))\n        self.b = nn",
        "every parameter gets a gradient, c got none",
    ),
    "a missing term": ("torch.stack([total, supervised, pseudo])", "torch.stack([total, supervised])", "3 terms"),
    "a cost per row": (
        "return total, torch.stack([total,",
        "return total.expand(2), torch.stack([total,",
        "the cost is a scalar",
    ),
    "another first term": ('return ("cost", "cost_supervised"', 'return ("loss", "cost_supervised"', "first term"),
    "logits instead of probabilities": ("return torch.softmax(self.logits(x), -1)", "return self.logits(x)", "sum to"),
    "a state of its own": (
        "x = torch.cat([batch.x_labelled, batch.x_unlabelled])",
        "x = torch.cat([batch.x_labelled, batch.x_unlabelled])\n        self.n = getattr(self, 'n', 0) + 1\n"
        "        x = x + 0.01 * self.n",
        "keep no other state",
    ),
    "weights that ignore the generator": (
        "torch.randn(n, m, generator=generator)",
        "torch.ones(n, m) + 0 * torch.randn(n, m, generator=generator)",
        "",
    ),
    "a cost that rises": (
        "supervised = functional.cross_entropy(labelled, batch.y)",
        "s = functional.cross_entropy(labelled, batch.y)\n        supervised = 2 * s.detach() - s",
        "110 steps reduce cost_supervised",
    ),
    "settings that change": (
        "return replace(self, widths=other.widths)",
        "return replace(self, widths=other.widths, dropout=0.5)",
        "on_network_of",
    ),
    "unhashable signature": ("return (self.widths,)", "return ([*self.widths],)", "TypeError: unhashable type"),
    "whole numbers in hyper": ('"pseudo": [self.pseudo]', '"pseudo": [1]', "hyper returns lists of floats"),
    "no operations": ("return 6.0 * (", "return 0.0 * (", "flops returns a positive number"),
    "too little noise": ("return (labelled + unlabelled) * sum", "return labelled * sum", "RuntimeError"),
    "an undeclared buffer": (
        "self.b = nn",
        "self.register_buffer('mean', torch.zeros(3))\n        self.b = nn",
        "statistics returns a value of every buffer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake: str, tmp_path: Path) -> None:
    before, after, rule = MISTAKES[mistake]
    with pytest.raises(FamilyContractError) as caught:
        check_family("plain", write_plugin(tmp_path, (before, after)))
    assert rule in str(caught.value) and "breaks the contract" in str(caught.value)
