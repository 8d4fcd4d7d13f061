"""The rival on one GPU: N processes, each the plain single-trial PyTorch loop of ``solo_step``, with and without MPS.

That is what Ray Tune with fractional GPUs makes of a GPU, without what Ray itself costs, which favours the rival. The
loop in three forms:

    eager             as one writes it, fused Adam
    reduce-overhead   its cost through torch.compile(mode="reduce-overhead")
    captured          the whole update as one CUDA graph, the way PyTorch's manual shows it, fused Adam in it
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from benchmarks.gpu_scene import Scene
from benchmarks.gpu_sections import Tell, brief
from benchmarks.measure import Row
from benchmarks.solo_step import PlainLoop
from ladder_search.training.pack import MemberSpec, TrainingData

FORMS = ("eager", "captured", "reduce-overhead")
COUNTS = (1, 2, 4, 8, 16)
WINDOW_SECONDS = 2.0
"""Length of the common window in which all processes train; a quarter of it is added for evaluations."""
CHUNK = 20
"""Steps between two looks at the clock, where a process waits for the device."""
BARRIER_SECONDS, ANSWER_SECONDS, PREPARE_SECONDS = 30.0, 60.0, 120.0
"""Longest waits: of a process for the others, for the result of a window, for a form that is compiled."""


class RivalError(Exception):
    """A rival process failed or said nothing in time."""


class RivalLoop(PlainLoop):
    """The plain loop and the evaluation of a trial."""

    def __init__(self, spec: MemberSpec, data: TrainingData, *, mode: str | None = None) -> None:
        super().__init__(spec, data, adam="fused", compiled=mode is not None, mode=mode)
        # All labels are one minibatch: every other of the epoch would have the same statistics.
        held = (spec.split.labelled[None], spec.split.validation)
        self._labelled, self._held_out = (torch.from_numpy(rows).to(self._device) for rows in held)

    @torch.no_grad()
    def validation_error(self) -> float:
        """Fraction of held-out rows that the clean path, under statistics of labelled rows, puts in a wrong class."""
        data, model = self._data, self._model
        for name, value in model.statistics(data.x[self._labelled].float() / data.full_scale).items():
            model.get_buffer(name).copy_(value)
        guessed = model(data.x[self._held_out].float() / data.full_scale).argmax(-1)
        return float((guessed != data.y[self._held_out]).float().mean())


class CapturedLoop(RivalLoop):
    """The plain loop with its whole update in a CUDA graph; the learning rate is a tensor, so that it could change."""

    def __init__(self, spec: MemberSpec, data: TrainingData) -> None:
        super().__init__(spec, data)
        # A graph may draw from the device's own generator without being told of it.
        self._generator = torch.cuda.default_generators[torch.cuda.current_device()]
        rate = torch.tensor(spec.training.lr, device=self._device)
        self._optimiser = torch.optim.Adam(self._model.parameters(), lr=rate, fused=True, capturable=True)
        self._rows = tuple(torch.from_numpy(stream.batches(0, 1)[0]).to(self._device) for stream in self._streams)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                super()._update(*self._rows)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        self._optimiser.zero_grad(set_to_none=True)
        with torch.cuda.graph(self._graph):
            self._terms = super()._update(*self._rows)

    def _update(self, labelled: Tensor, unlabelled: Tensor) -> Tensor:
        for place, rows in zip(self._rows, (labelled, unlabelled), strict=True):
            place.copy_(rows)
        self._graph.replay()
        return self._terms


def make_loop(form: str, spec: MemberSpec, data: TrainingData) -> RivalLoop:
    if form == "captured":
        return CapturedLoop(spec, data)
    return RivalLoop(spec, data, mode=None if form == "eager" else form)


def work(pipe: Connection, study: str, device: str, environment: dict[str, str], barriers: dict[int, Any]) -> None:
    """A rival process: orders in, answers or the error that there was out."""
    os.environ.update(environment)  # before CUDA starts
    torch.set_num_threads(1)
    scene = Scene(study, device, quick=False, until=0.0)
    loops: dict[str, RivalLoop] = {}

    def prepare(form: str) -> None:
        if form not in loops:
            loops[form] = make_loop(form, scene.spec(), scene.data)
            loops[form].run(CHUNK).tolist()
            loops[form].validation_error()

    def repeat(form: str, what: str, processes: int, window: float) -> tuple[int, float]:
        """How often it was done, and the seconds that this took."""
        loop, done = loops[form], 0
        barriers[processes].wait(BARRIER_SECONDS)
        begun = now = time.perf_counter()
        while now - begun < window:
            if what == "train":
                loop.run(CHUNK).tolist()  # waits for the device
                done += CHUNK
            else:
                loop.validation_error()
                done += 1
            now = time.perf_counter()
        return done, now - begun

    verbs: dict[str, Callable[..., object]] = {"prepare": prepare, "repeat": repeat}
    while (order := pipe.recv()) is not None:
        verb, *arguments = order
        try:
            pipe.send((True, verbs[verb](*arguments)))
        except Exception as error:
            pipe.send((False, brief(error)))


class Rivals:
    """Processes that wait for orders; the first n of them are given one together. They end with the block."""

    def __init__(self, study: str, device: str, counts: Sequence[int], environment: dict[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._barriers = {n: context.Barrier(n) for n in counts}
        self._processes, self._pipes = [], []
        self.lost = False
        for number in range(max(counts)):
            # The first compiles for all: the others find it on disk.
            threads = {} if number == 0 else {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
            here, there = context.Pipe()
            process = context.Process(
                target=work, args=(there, study, device, {**environment, **threads}, self._barriers)
            )
            process.start()
            there.close()
            self._processes.append(process)
            self._pipes.append(here)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(None)
        until = time.monotonic() + (0.0 if self.lost else 10.0)
        for process in self._processes:
            process.join(max(0.1, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    def ask(self, n: int, order: tuple[Any, ...], until: float) -> list[Any]:
        """Give the first ``n`` an order and return their answers.

        Raises:
            RivalError: one of them failed; or, and then there are no more answers from them (``lost``), one died or
                has not answered at ``until``.
        """
        if n in self._barriers:
            self._barriers[n].reset()  # it breaks when one fails on its way there
        answers: list[Any] = []
        failures: list[str] = []
        try:
            for pipe in self._pipes[:n]:
                pipe.send(order)
            for pipe in self._pipes[:n]:  # of all, whatever they are: the next order's are to be its own
                if not pipe.poll(max(0.0, until - time.monotonic())):
                    raise TimeoutError("one has not answered in its time")
                fine, answer = pipe.recv()
                (answers if fine else failures).append(answer)
        except (OSError, EOFError) as error:
            self.lost = True
            raise RivalError(failures[0] if failures else brief(error)) from error
        if failures:
            raise RivalError(failures[0])
        return answers


def measure(
    study: str, device: str, tell: Tell, *, counts: Sequence[int], forms: Sequence[str], window: float, until: float,
    environment: dict[str, str], under: str, check: Callable[[], None],
) -> None:  # fmt: skip
    """Tell a line per form and number of processes, as long as more of them do more.

    Args:
        environment: what the processes get before they start CUDA.
        under: word for that in the table.
        check: raises ``RivalError`` where it does not hold once the processes run on the device.
    """
    spec = Scene(study, "cpu", quick=False, until=until).spec()

    def before(longest: float) -> float:
        return min(until, time.monotonic() + longest)

    with Rivals(study, device, counts, environment) as rivals:
        for form in forms:
            best = 0.0
            for n in counts:
                try:
                    rivals.ask(1, ("prepare", form), before(PREPARE_SECONDS))
                    rivals.ask(n, ("prepare", form), before(PREPARE_SECONDS))
                    check()
                    trained = rivals.ask(n, ("repeat", form, "train", n, window), before(ANSWER_SECONDS))
                    evaluated = rivals.ask(n, ("repeat", form, "evaluate", n, window / 4), before(ANSWER_SECONDS))
                except RivalError as error:
                    tell("problem", f"rival {form}, {n} processes, {under}: {error}")
                    if rivals.lost:
                        return
                    break
                rate = sum(done / taken for done, taken in trained)
                seconds = sum(taken / done for done, taken in evaluated) / n
                row: Row = {
                    "form": form,
                    "under": under,
                    "processes": n,
                    "steps per s": rate,
                    "ms per step of one": n / rate * 1e3,
                    "evaluation, ms": seconds * 1e3,
                    "trials per hour": n * 3600 / (spec.total_steps * n / rate + spec.training.epochs * seconds),
                }
                tell("row", row)
                if rate <= best:
                    break
                best = rate


@contextmanager
def mps() -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """Run CUDA's Multi-Process Service, private to the processes that get the environment, until the block ends.

    Yields:
        the environment, and a check that the service serves somebody.

    Raises:
        RivalError: it does not start, or does not serve.
    """
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        raise RivalError("there is no nvidia-cuda-mps-control here")
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": Path(folder) / "pipe", "CUDA_MPS_LOG_DIRECTORY": Path(folder) / "log"}
        for place in places.values():
            place.mkdir()
        environment = {name: str(place) for name, place in places.items()}

        def command(*arguments: str, line: str = "") -> tuple[int, str]:
            try:
                # Into a file: a daemon may keep a pipe open for as long as it lives.
                with open(Path(folder) / "said", "w+", encoding="utf-8") as said:
                    ended = subprocess.run(
                        [control, *arguments], input=line, encoding="utf-8", stdout=said, stderr=said, timeout=30,
                        env={**os.environ, **environment},
                    )  # fmt: skip
                    said.seek(0)
                    return ended.returncode, " ".join(said.read().split())
            except (OSError, subprocess.TimeoutExpired) as error:
                raise RivalError(f"MPS does not answer: {brief(error)}") from error

        def check() -> None:
            code, servers = command(line="get_server_list\n")
            if code or not servers:
                raise RivalError(f"MPS was started and serves nobody ({servers or 'no server'})")

        try:
            code, said = command("-d")
            if code:
                raise RivalError(f"MPS does not start: {said or f'exit status {code}'}")
            yield environment, check
        finally:
            with suppress(RivalError):
                command(line="quit\n")
