"""A plain PyTorch training loop for one trial, the reference of the benchmarks; needs only torch and numpy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ladder_search.data.streams import LABELLED, UNLABELLED, BatchStream
from ladder_search.models import find_family
from ladder_search.models.ladder import Ladder
from ladder_search.nn.protocol import Batch
from ladder_search.training.pack import MemberSpec, TrainingData

BUILD = find_family("ladder").build


class PlainLoop:
    """Module, backward, optimiser, and one generator for the noise.

    It calls the same ``Ladder.cost`` on the same rows with as much noise as a pack, on the device of the data. When
    compiled, the cost with its backward pass is compiled but not the optimiser; ``mode`` is that of ``torch.compile``.
    """

    def __init__(
        self,
        spec: MemberSpec,
        data: TrainingData,
        *,
        adam: str = "fused",
        compiled: bool = False,
        mode: str | None = None,
    ) -> None:
        self._data, self._adam, self._device = data, adam, data.x.device
        model = BUILD(spec.model, generator=torch.Generator()).to(self._device)
        assert isinstance(model, Ladder)
        self._model = model
        cost: Callable[..., tuple[Tensor, Tensor]] = model.cost
        self._cost = torch.compile(cost, dynamic=False, mode=mode) if compiled else cost
        self.restart(spec)

    def restart(self, spec: MemberSpec) -> None:
        """Start training ``spec``, of the same sizes, in the same program."""
        weights, self._step = torch.Generator().manual_seed(spec.seed), 0
        self._model.load_state_dict(BUILD(spec.model, generator=weights).state_dict())
        on_cpu = self._device.type == "cpu"
        self._generator = weights if on_cpu else torch.Generator(self._device).manual_seed(spec.seed)
        training, split, seed = spec.training, spec.split, spec.seed
        kinds = (
            (split.labelled, training.labelled_batch, LABELLED),
            (split.unlabelled, training.unlabelled_batch, UNLABELLED),
        )
        self._streams = [BatchStream(rows, size, seed=seed, tag=tag) for rows, size, tag in kinds]
        self._noise_size = self._model.noise_size(*(stream.batch_size for stream in self._streams))
        self._hyper = {n: torch.tensor(values, device=self._device) for n, values in spec.model.hyper().items()}
        self._optimiser = torch.optim.Adam(self._model.parameters(), lr=training.lr, **{self._adam: True})  # type: ignore[arg-type]
        # If all labels fit into one minibatch, one is enough: the others of the epoch have the same statistics.
        all_at_once = len(split.labelled) <= training.labelled_batch
        labelled = self._streams[0].batches(0, 1 if all_at_once else spec.steps_per_epoch)
        self._labelled, self._held_out = (
            torch.from_numpy(rows).to(self._device) for rows in (labelled, split.validation)
        )

    def run(self, steps: int) -> Tensor:
        """Train for ``steps`` steps; return the mean of the cost's terms."""
        tables = (torch.from_numpy(stream.batches(self._step, steps)) for stream in self._streams)
        labelled, unlabelled = (table.to(self._device) for table in tables)
        total = torch.zeros((), device=self._device)
        for rows, more in zip(labelled, unlabelled, strict=True):
            total = total + self._update(rows, more)
        self._step += steps
        return total / steps

    def waited(self, steps: int) -> list[float]:
        """Train for ``steps`` steps and wait for the device."""
        return self.run(steps).tolist()

    @torch.no_grad()
    def validation_error(self) -> float:
        """Return the error of the clean path on held-out rows, under statistics of labelled rows."""
        data, model = self._data, self._model
        for name, value in model.statistics(data.x[self._labelled].float() / data.full_scale).items():
            model.get_buffer(name).copy_(value)
        guessed = model(data.x[self._held_out].float() / data.full_scale).argmax(-1)
        return float((guessed != data.y[self._held_out]).float().mean())

    def _update(self, labelled: Tensor, unlabelled: Tensor) -> Tensor:
        """Do one step on these rows of the data; return the cost's terms."""
        x, y, full_scale = self._data.x, self._data.y, self._data.full_scale
        batch = Batch(x[labelled].float() / full_scale, y[labelled], x[unlabelled].float() / full_scale)
        noise = torch.randn(self._noise_size, generator=self._generator, device=self._device)
        cost, terms = self._cost(batch, noise, self._hyper)
        self._optimiser.zero_grad(set_to_none=True)
        cost.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return terms.detach()
