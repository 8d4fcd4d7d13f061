"""Pezeshki et al. 2016, "Deconstructing the ladder network architecture": all variants at 100, 1000 and all labels.

The paper's tuned noise and denoising weights were not available: each study starts from the settings of Rasmus et al.
for its label count. Results are means with standard errors over ten seeds; all but the AMLP rows are from memory.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ladder_search.models.ladder import LadderConfig
from ladder_search.studies import ladder
from ladder_search.studies.study import SpaceConfig, Study, Target

PEZESHKI = "Pezeshki et al. 2016, variants of the ladder network"

_LABELS: tuple[int | None, ...] = (100, 1000, None)
_SUPERVISED: dict[str, Any] = {"decoder": "none", "lambda_": (0.0,) * 7}

# Changes of a variant to the full model of its label count; "first only" keeps entry 0 of a vector.
_CHANGES: dict[str, dict[str, Any]] = {
    "baseline": {**_SUPERVISED, "noise_std": (0.0,) * 7},
    "baseline-noise": _SUPERVISED,
    "vanilla": {"combinator": "vanilla"},
    "first-noise": {"combinator": "vanilla", "noise_std": "first only"},
    "first-recons": {"combinator": "vanilla", "lambda_": "first only"},
    "first-noise-recons": {"combinator": "vanilla", "noise_std": "first only", "lambda_": "first only"},
    "no-lateral": {"combinator": "vanilla", "lateral": False},
    "no-noise": {"combinator": "vanilla", "noise_std": (0.0,) * 7},
    **{
        name: {"combinator": name}
        for name in (
            "rand-init",
            "rev-init",
            "no-sig",
            "no-mult",
            "linear",
            "gauss",
            "gated-gauss",
            "mlp-4",
            "mlp-2-2",
            "mlp-2-2-2",
            "amlp-4",
            "amlp-2-2",
            "amlp-2-2-2",
        )
    },
}

# Error and standard error in per cent at 100, 1000 and all labels; those of "no-noise" are unknown.
_RESULTS: dict[str, tuple[tuple[float, float], ...]] = {
    "baseline": ((25.804, 0.40), (8.734, 0.058), (1.182, 0.010)),
    "baseline-noise": ((23.034, 0.48), (6.113, 0.105), (0.820, 0.009)),
    "vanilla": ((1.086, 0.023), (1.017, 0.017), (0.608, 0.013)),
    "first-noise": ((1.856, 0.193), (1.381, 0.029), (0.732, 0.015)),
    "first-recons": ((1.691, 0.175), (1.053, 0.021), (0.608, 0.013)),
    "first-noise-recons": ((1.856, 0.193), (1.058, 0.175), (0.732, 0.016)),
    "no-lateral": ((16.390, 0.583), (5.251, 0.099), (0.820, 0.009)),
    "rand-init": ((1.232, 0.033), (1.011, 0.025), (0.614, 0.015)),
    "rev-init": ((1.305, 0.129), (1.031, 0.017), (0.631, 0.018)),
    "no-sig": ((1.608, 0.124), (1.223, 0.014), (0.633, 0.010)),
    "no-mult": ((3.041, 0.914), (1.735, 0.030), (0.674, 0.018)),
    "linear": ((5.027, 0.923), (2.769, 0.024), (0.849, 0.014)),
    "gauss": ((1.064, 0.021), (0.983, 0.019), (0.604, 0.010)),
    "gated-gauss": ((1.308, 0.038), (1.094, 0.016), (0.632, 0.011)),
    "mlp-4": ((1.374, 0.186), (0.996, 0.028), (0.605, 0.012)),
    "mlp-2-2": ((1.209, 0.116), (1.059, 0.023), (0.573, 0.016)),
    "mlp-2-2-2": ((1.274, 0.067), (1.095, 0.053), (0.602, 0.010)),
    "amlp-4": ((1.072, 0.015), (0.974, 0.021), (0.598, 0.014)),
    "amlp-2-2": ((1.193, 0.039), (1.029, 0.023), (0.569, 0.010)),
    "amlp-2-2-2": ((1.002, 0.038), (0.979, 0.025), (0.578, 0.013)),
}

# Rows of a public reproduction of the paper's table: (variant, column), column 0 for 100 labels.
_VERIFIED = {("amlp-4", 0), ("amlp-4", 1), ("amlp-4", 2), ("amlp-2-2", 2)} | {("amlp-2-2-2", i) for i in range(3)}


def _study(variant: str, column: int) -> Study:
    labels = _LABELS[column]
    group = labels or "all"
    full = next(study for study in ladder.STUDIES if study.name == f"mnist-{group}-full")
    model = full.model
    assert isinstance(model, LadderConfig)
    changes: dict[str, Any] = {
        name: (getattr(model, name)[0], *(0.0,) * model.depth) if value == "first only" else value
        for name, value in _CHANGES[variant].items()
    }
    supervised, silent = "decoder" in changes, variant in ("baseline", "no-noise")
    target = None
    if variant in _RESULTS:
        verified = (variant, column) in _VERIFIED
        how: dict[str, Any] = {"verified": verified, "spread_verified": verified, "spread_kind": "standard error"}
        target = Target.percent(*_RESULTS[variant][column], source=PEZESHKI, **how)
    first_only = variant.startswith("first-noise")
    return replace(
        full,
        name=f"pezeshki-{group}-{variant}",
        title=f"variant {variant}",
        model=replace(model, **changes),
        # Parts that a variant removes are not searched.
        space=SpaceConfig(
            noise="fixed" if silent or first_only else "input-and-local",
            combinator_std=variant == "rand-init" or "mlp" in variant,
            lr=silent and supervised,
        ),
        stop=replace(full.stop, failure_error=0.5) if supervised or variant == "no-lateral" else full.stop,
        target=target,
        baseline=None if supervised else full.baseline,
    )


STUDIES: tuple[Study, ...] = tuple(_study(variant, column) for column in range(3) for variant in _CHANGES)
