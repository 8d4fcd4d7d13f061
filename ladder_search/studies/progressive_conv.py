"""Thaker's report, convolutional part: Conv-Small on a Gamma source, and an AlexNet's fully connected layers.

The published convolutional source was a supervised network with 100 labels, because its unsupervised cost was
overwritten, and the published AlexNet had no pretrained weights, contrary to the report. Here the source is the Gamma
model, and the AlexNet's source is trained on MNIST. Both columns read 28 x 28 grey pixels, as published.
"""

from __future__ import annotations

from dataclasses import replace

from ladder_search.data.config import DataConfig
from ladder_search.models.conv_ladder import ConvLadderConfig
from ladder_search.models.progressive_conv import ProgressiveConvConfig
from ladder_search.studies.conv_ladder import CONV_SMALL
from ladder_search.studies.progressive import NEVER_USED, ProgressiveSpaceConfig, published
from ladder_search.studies.study import StopConfig, Study
from ladder_search.training.settings import TrainingConfig
from ladder_search.trial import SourceConfig

# After Krizhevsky et al. 2012, whose 11 x 11 filters with stride 4 reduce such a small image strongly; the convolutions
# end in a map of 250 x 1 x 1, as in the published network.
ALEXNET = (
    "convf:64:11:4",
    "maxpool:2:2",
    "convf:192:5:1",
    "maxpool:2:2",
    "convf:384:3:1",
    "convv:256:3:1",
    "convv:250:5:1",
    "fc:1000",
    "fc:500",
    "fc:10",
)
_TARGETS = {"svhn": (7257, 100), "meter-digits": (1286, 30)}
"""Target -> validation rows, epochs."""


def _gamma() -> SourceConfig:
    return SourceConfig(
        family="ladder-conv",
        data=DataConfig(dataset="mnist", labels=100, validation=10_000),
        model=CONV_SMALL.model("gamma", (1.0,)),
        training=TrainingConfig(),
    )


def _supervised(layers: tuple[str, ...], labels: int | None = None) -> SourceConfig:
    zeros = (0.0,) * (len(layers) + 1)
    return SourceConfig(
        family="ladder-conv",
        data=DataConfig(dataset="mnist", labels=labels, validation=10_000),
        model=ConvLadderConfig(layers=layers, noise_std=zeros, lambda_=zeros, decoder="none"),
        training=TrainingConfig(epochs=20, decay_start=0.5),
    )


def _study(
    target: str,
    name: str,
    title: str,
    model: ProgressiveConvConfig,
    source: SourceConfig | None,
    *,
    baseline: str | None = None,
    error: float | None = None,
) -> Study:
    validation, epochs = _TARGETS[target]
    return Study(
        name=f"{target}-{name}",
        family="progressive-conv",
        title=title,
        data=DataConfig(dataset=target, labels=None, validation=validation),
        model=model,
        training=TrainingConfig(epochs=epochs, lr=0.001, decay_start=0.61, labelled_batch=64, unlabelled_batch=64),
        space=ProgressiveSpaceConfig(),
        sources={} if source is None else {"mnist": source},
        stop=StopConfig(first_rung_steps=500, failure_error=0.895, failure_steps=2000),
        target=published(error, NEVER_USED) if error is not None and target == "svhn" else None,
        baseline=None if baseline is None else f"{target}-{baseline}",
    )


def _rows(target: str) -> tuple[Study, ...]:
    conv = ProgressiveConvConfig(layers=CONV_SMALL.layers)
    alex = ProgressiveConvConfig(layers=ALEXNET, laterals="connected")
    random = replace(_supervised(CONV_SMALL.layers), weights="random")
    return (
        _study(target, "conv-from-gamma", "Conv-Small on a Gamma source with 100 labels", conv, _gamma(),
               baseline="conv-scratch", error=0.50),
        _study(target, "conv-from-supervised-100", "as published: the source is supervised, with 100 labels", conv,
               _supervised(CONV_SMALL.layers, 100), baseline="conv-scratch", error=0.50),
        _study(target, "conv-from-random", "control: Conv-Small on a random frozen source", conv, random,
               baseline="conv-scratch"),
        _study(target, "conv-fine-tuned", "Conv-Small, starts from the Gamma model's weights",
               replace(conv, approach="fine-tuned"), _gamma(), baseline="conv-scratch"),
        _study(target, "conv-scratch", "Conv-Small from scratch", replace(conv, approach="scratch"), None),
        _study(target, "alexnet", "AlexNet's fully connected layers on those of one trained on MNIST", alex,
               _supervised(ALEXNET), baseline="alexnet-scratch", error=0.6957),
        _study(target, "alexnet-scratch", "AlexNet from scratch", replace(alex, approach="scratch"), None),
    )  # fmt: skip


STUDIES: tuple[Study, ...] = tuple(study for target in _TARGETS for study in _rows(target))
