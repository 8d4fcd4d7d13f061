"""Concurrent training processes, measured over a common window: packs, and the plain PyTorch loop.

N processes of the plain loop model Ray Tune on a machine or, with fractional GPUs, on a GPU, without Ray's own
overhead. Forms of the plain loop:

    eager             plain PyTorch
    compiled          with a compiled cost; reduce-overhead: with torch.compile(mode="reduce-overhead")
    captured          the whole update as one CUDA graph, as in PyTorch's manual, with fused Adam
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_sections import SECTIONS
from benchmarks.plain_loop import PlainLoop
from benchmarks.scene import Precision, Scene
from ladder_search.training.pack import MemberSpec, TrainingData

CHUNK = 10
"""Steps between two checks of the clock, for which a process waits for the device."""
BARRIER_SECONDS = 30.0
"""Longest wait for the other processes."""


class CrewError(Exception):
    """A process failed or did not answer in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The work of a process: a pack of ``members``, or, with 0, the plain loop."""

    members: int = 0
    way: str = "eager"
    """For a pack a way of a scene, for the plain loop one of the forms above."""
    adam: str = "fused"
    precision: Precision = "float32"

    @property
    def name(self) -> str:
        what = f"pack of {self.members}" if self.members else f"plain loop, Adam {self.adam}"
        return f"{what}, {self.way}, {self.precision}"

    def make(self, scene: Scene) -> tuple[Callable[[int], object], Callable[[], object]]:
        """Return functions that train for some steps and that evaluate; both wait for the device."""
        if self.members:
            pack, _ = scene.pack(self.members, self.way, precision=self.precision)
            return pack.run, pack.validation_errors
        spec, mode = scene.spec(), self.way if self.way == "reduce-overhead" else None
        if self.way == "captured":
            loop: PlainLoop = CapturedLoop(spec, scene.data)
        else:
            loop = PlainLoop(spec, scene.data, adam=self.adam, compiled=self.way != "eager", mode=mode)
        return loop.waited, loop.validation_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Repetitions of one process in one window, with their wall and CPU seconds."""

    done: int
    wall: float
    cpu: float


class CapturedLoop(PlainLoop):
    """The plain loop with its whole update in a CUDA graph; the learning rate is a tensor, so that it can change."""

    def __init__(self, spec: MemberSpec, data: TrainingData) -> None:
        super().__init__(spec, data)
        # A graph draws from the device's default generator.
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


def work(pipe: Connection, scene: Scene, threads: int, environment: dict[str, str], barriers: dict[int, Any]) -> None:
    """Main loop of a process: receive requests, send answers or errors."""
    os.environ.update(environment)  # before CUDA starts
    torch.set_num_threads(threads)
    programs: dict[Program, tuple[Callable[[int], object], Callable[[], object]]] = {}

    def prepare(program: Program) -> float:
        """Create the program; return the seconds until its first steps were complete."""
        start = time.perf_counter()
        if program not in programs:
            programs[program] = train, evaluate = program.make(scene)
            train(CHUNK)
            evaluate()
        return time.perf_counter() - start

    def repeat(program: Program, what: str, processes: int, window: float) -> Turn:
        """Train or evaluate until the window ends; later repetitions do not count, except for the first."""
        train, evaluate = programs[program]
        each = CHUNK * max(1, program.members) if what == "train" else 1
        if processes > 1:
            barriers[processes].wait(BARRIER_SECONDS)
        start, cpu_start, turn = time.perf_counter(), time.process_time(), Turn(done=0, wall=0.0, cpu=0.0)
        while True:
            train(CHUNK) if what == "train" else evaluate()
            wall = time.perf_counter() - start
            if wall > window and turn.done:
                return turn
            turn = Turn(done=turn.done + each, wall=wall, cpu=time.process_time() - cpu_start)

    verbs: dict[str, Callable[..., object]] = {"prepare": prepare, "repeat": repeat}
    verbs |= {name: partial(section, scene) for name, section in SECTIONS.items()}
    while (request := pipe.recv()) is not None:
        verb, arguments = request
        try:
            pipe.send((True, verbs[verb](**arguments)))
        except Exception as error:
            pipe.send((False, _brief(error)))


class Crew:
    """Processes that wait for requests to the first n of them, until ``close``."""

    def __init__(
        self, scene: Scene, counts: Sequence[int], *, threads: int = 1, environment: Mapping[str, str] | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._barriers = {n: context.Barrier(n) for n in counts}
        self._processes, self._pipes = [], []
        self.lost = False
        for number in range(max(counts)):
            # The first compiles for all; the others find its result on disk.
            compiling = {} if number == 0 else {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
            parent, child = context.Pipe()
            arguments = (child, scene, threads, {**(environment or {}), **compiling}, self._barriers)
            process = context.Process(target=work, args=arguments)
            process.start()
            child.close()
            self._processes.append(process)
            self._pipes.append(parent)

    def close(self) -> None:
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(None)
        until = time.monotonic() + (0.0 if self.lost else 10.0)
        for process in self._processes:
            process.join(max(0.1, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    def prepare(self, program: Program, n: int, until: float | None = None) -> float:
        """Create a program in the first ``n`` processes, one of them first to compile; return its seconds."""
        seconds: list[float] = self.ask(1, "prepare", until, program=program)
        self.ask(n, "prepare", until, program=program)
        return seconds[0]

    def repeat(self, program: Program, what: str, n: int, window: float, until: float | None = None) -> list[Turn]:
        """Repeat a prepared program in the first ``n`` processes over a common window."""
        return self.ask(n, "repeat", until, program=program, what=what, processes=n, window=window)

    def ask(self, n: int, verb: str, until: float | None = None, **arguments: object) -> list[Any]:
        """Send a request to the first ``n`` processes and return their answers.

        Raises:
            CrewError: a process failed; or it died or did not answer by ``until``, and the crew is ``lost``.
        """
        if n in self._barriers:
            self._barriers[n].reset()  # broken if a process fails before it
        answers: list[Any] = []
        failures: list[str] = []
        try:
            for pipe in self._pipes[:n]:
                pipe.send((verb, arguments))
            for pipe in self._pipes[:n]:  # all of them, so that no answers remain for the next request
                if not pipe.poll(None if until is None else max(0.0, until - time.monotonic())):
                    failures.append("cut off, the time was up")
                    raise TimeoutError
                fine, answer = pipe.recv()
                (answers if fine else failures).append(answer)
        except (OSError, EOFError) as error:
            self.lost = True
            for process in self._processes[:n]:
                process.join(0.1)
            codes = [str(process.exitcode) for process in self._processes[:n] if process.exitcode is not None]
            raise CrewError((failures or [f"a process died with exit status {', '.join(codes)}"])[0]) from error
        if failures:
            raise CrewError(failures[0])
        return answers


@contextmanager
def mps() -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """Run a private Multi-Process Service of CUDA until the block ends; raise ``CrewError`` if it does not start or
    serve.

    Yields:
        the environment of its processes, and a check that it serves a process.
    """
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        raise CrewError("there is no nvidia-cuda-mps-control here")
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": Path(folder) / "pipe", "CUDA_MPS_LOG_DIRECTORY": Path(folder) / "log"}
        for place in places.values():
            place.mkdir()
        environment = {name: str(place) for name, place in places.items()}

        def command(*arguments: str, line: str = "") -> tuple[int, str]:
            try:
                # Into a file, because a daemon may keep a pipe open for its whole life.
                with open(Path(folder) / "said", "w+", encoding="utf-8") as output:
                    ended = subprocess.run(
                        [control, *arguments], input=line, encoding="utf-8", stdout=output, stderr=output, timeout=30,
                        env={**os.environ, **environment},
                    )  # fmt: skip
                    output.seek(0)
                    return ended.returncode, " ".join(output.read().split())
            except (OSError, subprocess.TimeoutExpired) as error:
                raise CrewError(f"MPS does not answer: {_brief(error)}") from error

        def check() -> None:
            code, servers = command(line="get_server_list\n")
            if code or not servers:
                raise CrewError(f"MPS was started and serves no process ({servers or 'no server'})")

        try:
            code, output = command("-d")
            if code:
                raise CrewError(f"MPS does not start: {output or f'exit status {code}'}")
            yield environment, check
        finally:
            with suppress(CrewError):
                command(line="quit\n")


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
