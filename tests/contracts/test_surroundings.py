"""Whatever a command finds around it, it does the same, or refuses in one sentence before it begins.

A search costs an interpreter four seconds of imports and Ray ten. The net would cost hours of them. Therefore

* the commands are children of a process that has imported everything (``surroundings/warm.py``), and so are the writers
  that they start; each child is put into its surroundings before its ``main`` is called;
* below Ray Tune's loop, a remote call is a call (``surroundings/one_process.py``); a whole search on real Ray, in many
  surroundings at once and in fresh interpreters, has to leave the very same records (the last test here);
* surroundings that have nothing to do with each other are met together, in groups. Where a group fails, its members are
  tried one by one, and the failure names those that fail.

What is compared: exit codes, that nothing is on the error output, every file below the working directory, the home, the
temporary folder and the cache, to the byte but for times and ids (``surroundings/place.py``), among them each run's
state, parameters and metrics in the store; and that no process is left.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ladder_search.tracking.address import default_store
from ladder_search.tracking.mlflow_store import open_store
from tests.contracts.surroundings import acts
from tests.contracts.surroundings.catalogue import GROUPS, REFUSALS, SURROUNDINGS
from tests.contracts.surroundings.place import Place, records

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="the net changes what Linux gives a process"),
]

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--set", "model.widths=64,20,10", "--set", "model.lambda_=1000,10,0.1", "--set", "model.noise_std=0.3,0.3,0.3",
    "--set", "stop.first_rung_steps=50",
)  # fmt: skip
SEARCH = ("search", "digits-100", "--trials", "2", "--epochs", "2", "--slots", "1", "--name", "first", *TINY)
COMMANDS = (
    SEARCH,
    ("search", "--resume", "--name", "first", "--trials", "3"),
    ("export", "first", "--top", "1", "-o", "configs"),
    ("train", "configs/01-t0001", "--seeds", "1"),
    ("reproduce", "digits-100", "--seeds", "1", "--epochs", "1", "--contenders", "1"),
    ("report",),
    ("studies",),
    ("doctor",),
    ("sync",),
)

PREPARED = ("results", "results/mlflow.db")
"""Those are there before the first command."""
SHORT = {
    "search": SEARCH,
    "train": ("train", "digits-100", "--seeds", "1", "--epochs", "1"),
    "reproduce": ("reproduce", "digits-100", "--seeds", "1", "--epochs", "1"),
    "export": ("export", "first"),
    **{name: (name,) for name in ("sync", "report", "studies", "doctor", "ui")},
}


class Net:
    """The process that has imported everything, and the cases that it was given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "tables" / "mlflow.db"
        open_store(default_store(self.store.parent), "unused", folder / "tables" / "a" / "spool", "")
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with (folder / "warm.txt").open("w") as errors:
            self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.contracts.surroundings.warm"], cwd=ROOT, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        self._ready, self._lock = False, threading.Lock()
        self._pool = ThreadPoolExecutor(3)
        self._cases: dict[tuple[str, ...], Future[dict[str, Any]]] = {}
        self._real: tuple[Place, subprocess.Popen[str]] | None = None

    def meets(self, *names: str, commands: Sequence[Sequence[str]] = COMMANDS) -> Future[dict[str, Any]]:
        """Begin a case, once."""
        key = (*names, *(" ".join(command) for command in commands if commands is not COMMANDS))
        if key not in self._cases:
            base = self.folder / f"case-{len(self._cases)}"
            self._cases[key] = self._pool.submit(self._case, base, names, commands)
        return self._cases[key]

    def refused(self, name: str) -> Future[dict[str, Any]]:
        return self.meets(name, commands=[SHORT[command] for command in REFUSALS[name].commands])

    def search_on_real_ray(self) -> tuple[Place, subprocess.Popen[str]]:
        """Begin the search on real Ray, once, beside the cases."""
        if self._real is None:
            self._real = _begin_on_real_ray(self)
        return self._real

    def _case(self, base: Path, names: Sequence[str], commands: Sequence[Sequence[str]]) -> dict[str, Any]:
        base.mkdir()
        answer = base.with_suffix(".answer")
        request = {"base": base, "store": self.store, "surroundings": names, "commands": commands, "answer": answer}
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            if not self._ready:
                assert self._process.stdout.readline() == "ready\n", (self.folder / "warm.txt").read_text()
                self._ready = True
            self._process.stdin.write(json.dumps(request, default=str) + "\n")
            self._process.stdin.flush()
        end = time.monotonic() + 280
        while not answer.exists():
            assert time.monotonic() < end and self._process.poll() is None, (self.folder / "warm.txt").read_text()
            time.sleep(0.02)
        found: dict[str, Any] = json.loads(answer.read_text())
        assert "broken" not in found, found["broken"]
        return found

    def close(self) -> None:
        if self._real is not None and self._real[1].poll() is None:
            os.killpg(self._real[1].pid, signal.SIGKILL)
        self._pool.shutdown(cancel_futures=True)
        self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Net]:
    """The net, with the cases of all tests that were selected, three at a time, and the search on real Ray."""
    begun = Net(tmp_path_factory.mktemp("net"))
    begun.meets()
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.module is request.module:
            if item.function is test_a_search_on_real_ray_in_fresh_interpreters_leaves_the_same_records:
                begun.search_on_real_ray()
            what = item.callspec.params if hasattr(item, "callspec") else {}
            if "group" in what:
                begun.meets(*_possible(what["group"]))
            if "refusal" in what and acts.may(*REFUSALS[what["refusal"]].where.needs):
                begun.refused(what["refusal"])
    try:
        yield begun
    finally:
        begun.close()


def _possible(group: str) -> list[str]:
    """Return the surroundings of a group that this process may make."""
    return [name for name in GROUPS[group] if acts.may(*SURROUNDINGS[name].needs)]


def _faults(found: dict[str, Any], tidy: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Return what is different in surroundings, a line each."""
    faults = []
    refused = {name: what for surrounding in names for name, what in SURROUNDINGS[surrounding].refused.items()}
    for ended, usual in zip(found["ended"], tidy["ended"], strict=True):
        what = " ".join(ended["arguments"][:2])
        code, word = refused.get(ended["arguments"][0], (usual["code"], ""))
        if ended["code"] != code:
            faults.append(
                f"{what}: exit code {ended['code']} and not {code}\n{ended['out'][-1500:]}{ended['err'][-3000:]}"
            )
        elif word and word not in ended["err"] + ended["out"]:
            faults.append(f"{what}: does not name {word}\n{ended['err']}")
        elif ended["err"] and not (word and "Traceback" not in ended["err"]):
            faults.append(f"{what}: on the error output\n{ended['err'][-3000:]}")
        faults += [f"{what}: outlived by {process}" for process in ended["left"]]
    for path in sorted(found["records"].keys() | tidy["records"].keys()):
        here, usual = found["records"].get(path), tidy["records"].get(path)
        if here is None or usual is None:
            faults.append(f"{path}: {'is missing' if here is None else 'a stray file'}")
        elif here != usual:
            faults.append(f"{path}: {_first_difference(here, usual)}")
    return faults


def _first_difference(here: Sequence[str], usual: Sequence[str]) -> str:
    if len(here) != len(usual):
        return f"{len(here)} files and not {len(usual)}"
    one, other = next((a, b) for a, b in zip(here, usual, strict=True) if a != b)
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"{one[max(0, at - 80) : at + 120]!r} and not {other[max(0, at - 80) : at + 120]!r}"


@pytest.mark.parametrize("group", GROUPS)
def test_the_same_everywhere(net: Net, group: str) -> None:
    names, tidy = _possible(group), net.meets().result()
    faults = _faults(net.meets(*names).result(), tidy, names)
    if faults and len(names) > 1:
        alone = {name: _faults(net.meets(name).result(), tidy, [name]) for name in names}
        faults = [f"{name}: {fault}" for name, found in alone.items() for fault in found[:8]] or [
            "only together:",
            *faults,
        ]
    assert not faults, "\n".join(faults[:40])
    if missing := set(GROUPS[group]) - set(names):
        pytest.skip(f"only root can make {', '.join(sorted(missing))}; the rest of the group was met")


@pytest.mark.parametrize("refusal", REFUSALS)
def test_one_sentence_where_it_is_refused(net: Net, refusal: str) -> None:
    if not acts.may(*REFUSALS[refusal].where.needs):
        pytest.skip("only root can make these surroundings")
    found = net.refused(refusal).result()
    for ended in found["ended"]:
        shown = f"{ended['arguments']}: {ended['out']}{ended['err']}"
        assert ended["code"] == 2, shown
        assert ended["err"].startswith("error: ") and ended["err"].count("\n") == 1, shown
        assert REFUSALS[refusal].word in ended["err"], shown
        assert not ended["left"], shown
    written = [path for path in found["records"] if not path.startswith("<cache>")]  # data is checked before places
    assert not written, f"something was written: {written}"


def test_every_surrounding_is_met() -> None:
    assert {name for names in GROUPS.values() for name in names} == SURROUNDINGS.keys()
    assert len(SURROUNDINGS) + len(REFUSALS) > 100


@pytest.mark.parametrize("mask", ["a mask of 077", "a mask of 027", "a mask of 002", "no mask"])
def test_the_mask_decides_what_others_may_do(net: Net, mask: str) -> None:
    (group,) = [group for group, names in GROUPS.items() if mask in names]
    left = {"a mask of 077": 0o700, "a mask of 027": 0o750, "a mask of 002": 0o775, "no mask": 0o777}[mask]
    modes = net.meets(*_possible(group)).result()["modes"]
    wrong = {path: oct(mode) for path, mode in modes.items() if mode & 0o777 not in (0o777 & left, 0o666 & left)}
    wrong = {path: mode for path, mode in wrong.items() if path not in PREPARED}
    assert len(modes) > 50 and not wrong


def _begin_on_real_ray(net: Net) -> tuple[Place, subprocess.Popen[str]]:
    """Begin a search in fresh interpreters and all surroundings at once that a real Ray can meet."""
    place = Place(base=net.folder / "real", folders={"work": "it's [my] #1; $HOME & \\ {0} -x"})
    for folder in (place.results, place.tmp, place.cache):
        folder.mkdir(parents=True)
    shutil.copy(net.store, place.results / "mlflow.db")
    acts.modules(place)
    env = {"PATH": os.environ["PATH"], "HOME": str(place.base / "absent"), "TMPDIR": str(place.tmp)}
    for name in GROUPS["variables"]:
        env |= {key: str(value).format_map(vars(place)) for key, value in SURROUNDINGS[name].env.items()}
    env |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONHASHSEED": "7", "MPLBACKEND": "TkAgg"}
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONNODEBUGRANGES": "1", "PYTHONINTMAXSTRDIGITS": "640"}
    env |= {"MALLOC_PERTURB_": "165", "PYTHONWARNINGS": "error"}
    env |= {"LADDER_SEARCH_CACHE": str(place.cache), "OMP_NUM_THREADS": "1"}  # OpenMP itself complains of others
    search = subprocess.Popen(
        [sys.executable, str(ROOT / "search.py"), *SEARCH[1:]], cwd=place.work, env=env, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, umask=0o077, start_new_session=True,
    )  # fmt: skip
    return place, search


def test_a_search_on_real_ray_in_fresh_interpreters_leaves_the_same_records(net: Net) -> None:
    place, search = net.search_on_real_ray()
    out, err = search.communicate(timeout=240)
    assert (search.returncode, err) == (0, ""), out + err
    assert out.isascii()
    usual = net.meets(commands=[SEARCH]).result()["records"]
    here = records(place)
    # Two processes train at the same time: the order of lines in the journal and in the spool is not fixed. And they
    # draw all five pictures.
    compared = re.compile(r"<work>/results/(first/(trials|checkpoints|study\.json|leaderboard\.md)|mlflow\.db)|<home>")
    assert {path: text for path, text in here.items() if compared.match(path)} == {
        path: text for path, text in usual.items() if compared.match(path)
    }
    names = [{str(Path(path).parent) for path in found if "pictures" not in path} for found in (here, usual)]
    assert {name for name in names[0] - names[1] if "spool/artifacts" not in name and not name.startswith("<tmp>")} == {
        "<work>"  # the files that were put there
    }
