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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from benchmarks.gpu_sections import Tell, brief
from benchmarks.measure import Row
from benchmarks.plain_loop import PlainLoop
from benchmarks.scene import Precision, Scene
from ladder_search.training.pack import MemberSpec, TrainingData

FORMS = ("eager", "captured", "reduce-overhead")
COUNTS = (1, 2, 4, 8, 16)
WINDOW_SECONDS = 2.0
"""Length of the common window in which all processes train; evaluations take another quarter of it."""
CHUNK = 10
"""Steps between two checks of the clock, for which a process waits for the device."""
BARRIER_SECONDS, ANSWER_SECONDS, PREPARE_SECONDS = 30.0, 60.0, 120.0
"""Timeouts: for the other processes, for the result of a window, and for the compilation of a program."""


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
        return (lambda steps: loop.run(steps).tolist()), loop.validation_error


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


def work(
    pipe: Connection, study: str, device: str, threads: int, environment: dict[str, str], barriers: dict[int, Any]
) -> None:
    """Main loop of a process: receive requests, send answers or exceptions."""
    os.environ.update(environment)  # before CUDA starts
    torch.set_num_threads(threads)
    scene = Scene(study, device, quick=False, until=0.0)
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
    while (request := pipe.recv()) is not None:
        verb, *arguments = request
        try:
            pipe.send((True, verbs[verb](*arguments)))
        except Exception as error:
            pipe.send((False, brief(error)))


class Crew:
    """Processes that wait for requests to the first n of them; they end with the block."""

    def __init__(
        self,
        study: str,
        device: str,
        counts: Sequence[int],
        *,
        threads: int = 1,
        environment: dict[str, str] | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._barriers = {n: context.Barrier(n) for n in counts}
        self._processes, self._pipes = [], []
        self.lost = False
        for number in range(max(counts)):
            # The first compiles for all; the others find its result on disk.
            compiling = {} if number == 0 else {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
            parent, child = context.Pipe()
            arguments = (child, study, device, threads, {**(environment or {}), **compiling}, self._barriers)
            process = context.Process(target=work, args=arguments)
            process.start()
            child.close()
            self._processes.append(process)
            self._pipes.append(parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
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
        seconds: list[float] = self.ask(1, ("prepare", program), until)
        self.ask(n, ("prepare", program), until)
        return seconds[0]

    def ask(self, n: int, request: tuple[Any, ...], until: float | None = None) -> list[Any]:
        """Send a request to the first ``n`` processes and return their answers.

        Raises:
            CrewError: a process failed; or it died or did not answer by ``until``, and no more answers follow.
        """
        if n in self._barriers:
            self._barriers[n].reset()  # broken if a process fails before it
        answers: list[Any] = []
        failures: list[str] = []
        try:
            for pipe in self._pipes[:n]:
                pipe.send(request)
            for pipe in self._pipes[:n]:  # all of them, so that no answers remain for the next request
                if not pipe.poll(None if until is None else max(0.0, until - time.monotonic())):
                    raise TimeoutError("one has not answered in its time")
                fine, answer = pipe.recv()
                (answers if fine else failures).append(answer)
        except (OSError, EOFError) as error:
            self.lost = True
            raise CrewError(failures[0] if failures else brief(error)) from error
        if failures:
            raise CrewError(failures[0])
        return answers


def measure(
    study: str, device: str, tell: Tell, *, counts: Sequence[int], forms: Sequence[str], window: float, until: float,
    environment: dict[str, str], under: str, check: Callable[[], None],
) -> None:  # fmt: skip
    """Report a line per form of the plain loop and number of processes, as long as more processes increase the rate.

    ``environment`` is set before the processes start CUDA, and is called ``under`` in the table; ``check`` raises
    ``CrewError`` if it is not in effect once they use the device.
    """
    spec = Scene(study, "cpu", quick=False, until=until).spec()

    def before(longest: float) -> float:
        return min(until, time.monotonic() + longest)

    with Crew(study, device, counts, environment=environment) as crew:
        for form in forms:
            best, program = 0.0, Program(way=form)
            for n in counts:
                try:
                    crew.prepare(program, n, before(PREPARE_SECONDS))
                    check()
                    trained = crew.ask(n, ("repeat", program, "train", n, window), before(ANSWER_SECONDS))
                    evaluated = crew.ask(n, ("repeat", program, "evaluate", n, window / 4), before(ANSWER_SECONDS))
                except CrewError as error:
                    tell("problem", f"rival {form}, {n} processes, {under}: {error}")
                    if crew.lost:
                        return
                    break
                rate = sum(turn.done / turn.wall for turn in trained)
                seconds = sum(turn.wall / turn.done for turn in evaluated) / n
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
                raise CrewError(f"MPS does not answer: {brief(error)}") from error

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
