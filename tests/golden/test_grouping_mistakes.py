"""Mistakes that a re-implementation of Tagger can make: each is planted, and the comparison with NumPy must fail.

A mistake is another text in one function of the library. The function is compiled with it, put in place, and the golden
test of Tagger or RTagger runs; without the mistake the same test passes, as pytest runs it in its own file.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ladder_search.models import tagger as model
from ladder_search.models.rtagger import RTagger
from ladder_search.nn import grouping, likelihoods
from ladder_search.nn.grouping import Grouping
from ladder_search.nn.likelihoods import Binary, Continuous

Tagger = model.Tagger


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


golden, recurrent = _load("test_tagger_numpy"), _load("test_rtagger_numpy")


def costs(case: str, *, k_hot: bool = False) -> Callable[[], None]:
    return lambda: golden.test_costs_and_slopes(golden.CASES[case], k_hot)


def evaluation(case: str) -> Callable[[], None]:
    return lambda: golden.test_evaluation(golden.CASES[case])


def recurrent_costs(case: str) -> Callable[[], None]:
    return lambda: recurrent.test_costs_and_slopes(recurrent.CASES[case])


BINARY, CONTINUOUS = costs("binary, ln"), costs("continuous, ln")
CLASSES, K_HOT = costs("continuous, classes, bn"), costs("continuous, classes, bn", k_hot=True)
RTAGGER = recurrent_costs("continuous, bn")
TOP = "self._norm(torch.softmax(h, dim=-1))"

# What goes wrong, the owner of the function and its name, the text and what takes its place, the test that notices.
MISTAKES: tuple[tuple[str, Any, str, str, str, Callable[[], None]], ...] = (
    ("flips of probability 1 - q", Binary, "corrupted", "draws <", "draws >", BINARY),
    ("p without the noise", Binary, "evidence", "contrast * z + self.noise", "z", BINARY),
    ("p with a wrong contrast", Binary, "evidence", "2.0 * self.noise", "self.noise", BINARY),
    ("delta_z without the contrast", Binary, "evidence", "contrast * m /", "m /", BINARY),
    ("delta_z without assignments", Binary, "evidence", "contrast * m /", "contrast * torch.ones_like(m) /", BINARY),
    ("delta_z of each group alone", Binary, "evidence", "(m * p).sum(0)", "p", BINARY),
    ("delta_z for ones only", Binary, "evidence", " - 1.0 + x_tilde", "", BINARY),
    ("L weighted by m", Binary, "evidence", "softmax(-", "softmax(torch.log(m) - ", BINARY),
    ("L over rows", Binary, "evidence", "x_tilde), dim=0)", "x_tilde), dim=1)", BINARY),
    ("probabilities not compressed", likelihoods, "_cross_entropy", "1.0 - 2.0 * _COMPRESSION", "1.0", BINARY),
    ("cost of a mixture of bits", Binary, "cost", "_cross_entropy((m * z).sum(0), x)",
     "(m * _cross_entropy(z, x)).sum(0)", BINARY),
    ("later iterations read z", Binary, "read", "return z_pre", "return torch.sigmoid(z_pre)", BINARY),
    ("first iteration reads a logit", Tagger, "inferences", "z = read = torch.full_like(m, self.config.initial_z)",
     "z = torch.full_like(m, self.config.initial_z); read = torch.logit(z)", BINARY),
    ("v is the variance in L", Continuous, "evidence", "self.v().square()", "self.v()", CONTINUOUS),
    ("v is a standard deviation in the cost", Continuous, "cost", "v = self.v()", "v = self.v().square()", CONTINUOUS),
    ("v without the square root of w^2 + 1", Continuous, "v", "+ 1.0", "", CONTINUOUS),
    ("v constant in L", Continuous, "evidence", "self.v()", "self.v().detach()", CONTINUOUS),
    ("sigma is the variance", Continuous, "evidence", "self.noise**2", "self.noise", CONTINUOUS),
    ("delta_z over the variance", Continuous, "evidence", "m * (x_tilde - z)", "m * (x_tilde - z) / tau", CONTINUOUS),
    ("delta_z of the wrong sign", Continuous, "evidence", "(x_tilde - z)", "(z - x_tilde)", CONTINUOUS),
    ("constant of 2 pi", Continuous, "cost", ".mean()", ".mean() + 0.9189385", CONTINUOUS),
    ("m without 1e-5", Continuous, "cost", "m + _LEAST_SHARE", "m", CONTINUOUS),
    ("no normalisation of the mixture", Continuous, "cost", " - 0.5 * torch.log(v)", "", CONTINUOUS),
    ("noise not scaled", Continuous, "corrupted", "self.noise * draws", "draws", CONTINUOUS),
    ("z of continuous pixels squashed", Continuous, "estimate", "return z_pre",
     "return torch.sigmoid(z_pre)", CONTINUOUS),
    ("cost of the corrupted pixels", Grouping, "_start", "list(frames) * iterations", "observed * iterations", BINARY),
    ("m initially equal", Grouping, "_start", "of_groups.view", "(0.0 * of_groups).view", BINARY),
    ("m initially not normalised", Grouping, "_start", "torch.softmax(of_groups.view(self.K, len(x), self.D), dim=0)",
     "of_groups.view(self.K, len(x), self.D)", BINARY),
    ("sum over iterations", Grouping, "cost", "torch.stack(by_iteration).mean()",
     "torch.stack(by_iteration).sum()", BINARY),
    ("cost of the last iteration only", Grouping, "cost", "torch.stack(by_iteration).mean()",
     "by_iteration[-1]", BINARY),
    ("classes of the first iteration", Grouping, "cost", "found[-1]", "found[0]", CLASSES),
    ("classes of unlabelled rows", Grouping, "cost", ":, : len(batch.x_labelled)",
     ":, -len(batch.x_labelled) :", CLASSES),
    ("none is a class", grouping, "_log_probabilities", "[..., :-1]", "[..., 1:]", CLASSES),
    ("no division by the total", grouping, "_log_probabilities",
     " - torch.logsumexp(summed, dim=-1, keepdim=True)", "", CLASSES),
    ("best group instead of the sum", grouping, "_log_probabilities", "torch.logsumexp(objects, dim=0)",
     "objects.amax(0)", CLASSES),
    ("none dropped before the softmax", grouping, "_log_probabilities", "torch.log_softmax(logits, dim=-1)[..., :-1]",
     "torch.log_softmax(logits[..., :-1], dim=-1)", CLASSES),
    ("k-hot classes not divided by k", grouping, "shares", " / target.sum(-1, keepdim=True)", "", K_HOT),
    ("top without a softmax", Tagger, "_ladder", TOP, "self._norm(h)", BINARY),
    ("u of the top not normalised", Tagger, "_ladder", TOP, "torch.softmax(h, dim=-1)", BINARY),
    ("top rectified", Tagger, "_ladder", "self.gamma * h if", "torch.relu(self.gamma * h) if", BINARY),
    ("gamma before beta", Tagger, "_ladder", "h = z[-1] + self.beta[level]",
     "h = z[-1] + self.beta[level] / (self.gamma if level == self.depth else 1.0)", BINARY),
    ("lateral signal after the rectifier", Tagger, "_ladder", "self.g[level](z[level],",
     "self.g[level](torch.relu(z[level]),", BINARY),
    ("z without c_1", Tagger, "_ladder", "self.c_1 * ", "1.0 * ", BINARY),
    ("z without b_1", Tagger, "_ladder", " + self.b_1", "", BINARY),
    ("m without c_2", Tagger, "_ladder", "self.c_2 * ", "1.0 * ", BINARY),
    ("m not normalised", Tagger, "_ladder", "self.c_2 * self._norm(functional.linear(est, self.W_m))",
     "self.c_2 * functional.linear(est, self.W_m)", BINARY),
    ("inputs in another order", Tagger, "inferences", "[read, delta_z, m, L]", "[read, delta_z, L, m]", BINARY),
    ("m not fed back", Tagger, "inferences", "torch.softmax(m_pre, dim=0)\n", "m\n", BINARY),
    ("groups over pixels", Tagger, "inferences", "torch.softmax(m_pre, dim=0)", "torch.softmax(m_pre, dim=-1)", BINARY),
    ("epsilon 1e-5 in layer normalisation", Tagger, "_norm", "EPSILON", "1e-5", BINARY),
    ("batch normalisation of each group", Tagger, "_norm", "batch_normalise(z_pre.flatten(0, 1)).view(z_pre.shape)",
     "torch.stack([batch_normalise(each) for each in z_pre])", costs("binary, bn")),
    ("arithmetic normaliser as the papers'", Grouping, "scores", "each.max.sum()",
     "each.arithmetic.sum()", evaluation("binary, ln")),
    ("unscored pixels as a segment", Grouping, "scores", "agreement(here,",
     "agreement(here.clamp(min=0),", evaluation("binary, ln")),
    ("score of the first iteration", Grouping, "scores", "else each[-1] for",
     "else each[0] for", evaluation("binary, ln")),
    ("evaluation without noise", Grouping, "_evaluated", "return observed,",
     "observed = [x] * len(observed)\n    return observed,", evaluation("continuous, ln")),
    ("recurrent states start anew", RTagger, "inferences", "state = run.state if self.config.stateful else",
     "state =", RTAGGER),
    ("feedback starts anew", RTagger, "inferences", 'n.startswith("d")', "False", recurrent_costs("without states")),
    ("recurrent inputs in another order", RTagger, "inferences", "[read, delta_z, m, L]",
     "[read, delta_z, L, m]", RTAGGER),
    ("positions of rows and groups mixed", RTagger, "inferences", ".view(K, rows, -1, 2)",
     ".view(rows, K, -1, 2).transpose(0, 1)", RTAGGER),
    ("a video's frame is compared with itself", Grouping, "_start", "list(frames[1:])",
     "list(frames[:-1])", recurrent_costs("video")),
)  # fmt: skip


def plant(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, old: str, new: str) -> None:
    function = inspect.unwrap(getattr(owner, name))
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) >= 1 and old != new, f"{old!r} is not in {name}"
    made: dict[str, Any] = {}
    exec(
        compile("from __future__ import annotations\n" + source.replace(old, new), name, "exec"),
        function.__globals__,
        made,
    )
    monkeypatch.setattr(owner, name, made[name])


@pytest.mark.parametrize(("what", "owner", "name", "old", "new", "notices"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_planted_mistake_is_noticed(
    monkeypatch: pytest.MonkeyPatch, what: str, owner: Any, name: str, old: str, new: str, notices: Callable[[], None]
) -> None:
    plant(monkeypatch, owner, name, old, new)
    with pytest.raises(AssertionError):  # a mistake that merely crashes proves nothing
        notices()
