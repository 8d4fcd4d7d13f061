"""Plant every known mistake once in a copy of the library, run the test that must notice it, and print what happened.

    python tests/golden/plant_mistakes.py        # all, some minutes
    python tests/golden/plant_mistakes.py 5 13   # the variants of mistakes 5 and 13

The mistakes are the twenty that re-implementations of the ladder network have been seen to make; some come in several
variants. Exit code 1: a mistake survived its test, a test fails without any mistake, or a text to be replaced is no
longer in the source (then this file must follow the source). Pytest does not collect this file: it is run by hand after
changes to the model, the training program or their tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ("tests/unit/models/test_ladder_mistakes.py", "tests/unit/training/test_known_mistakes.py")

LADDER = "models/ladder.py"
PACK = "training/pack.py"
MEMBER = "training/member.py"


@dataclass(frozen=True)
class Mistake:
    number: int
    what: str
    edits: tuple[tuple[str, str, str], ...]
    """File below ``ladder_search``, text that occurs there exactly once, text that takes its place."""


def mistake(number: int, what: str, *edits: tuple[str, str, str]) -> Mistake:
    return Mistake(number, what, edits)


ESTIMATE = "estimate = z_hat if layer == 0 else normalise(z_hat, means[layer], variances[layer])"
GROUPS = "z_all, mean, variance = normalise_groups(functional.linear(h, self.W[layer - 1]), groups)"
NOISE = "corrupted = z_all[:noisy] + sigma[layer] * draws[layer].view(noisy, config.widths[layer])"
U = "u = batch_normalise(above if layer == depth else functional.linear(above, self.V[str(layer)]))"
PIXELS = "x_lab, x_unl = (x[rows].to(dtype) / full_scale for rows in (labelled, unlabelled))"
BETA = "self.beta = nn.ParameterList([torch.zeros(widths[i]) for i in range(1, depth + 1)])"
SCALE = "adam_scale(updates + 1, seat.rates(updates))"

MISTAKES = (
    mistake(
        1,
        "z_hat divided by the variance",
        (LADDER, ESTIMATE, "estimate = z_hat if layer == 0 else (z_hat - means[layer]) / (variances[layer] + 1e-10)"),
    ),
    mistake(2, "z_hat not normalised", (LADDER, ESTIMATE, "estimate = z_hat")),
    mistake(
        2,
        "z_hat normalised by the corrupted path's statistics",
        (
            LADDER,
            GROUPS,
            "pre = functional.linear(h, self.W[layer - 1])\n"
            "            z_all, mean, variance = normalise_groups(pre, groups)\n"
            "            if n_unl:\n"
            "                mean, variance = batch_statistics(pre[n_lab:noisy])",
        ),
    ),
    mistake(
        3,
        "layer 0: z_hat normalised",
        (LADDER, ESTIMATE, ESTIMATE.replace("= z_hat if", "= batch_normalise(z_hat) if")),
    ),
    mistake(
        3,
        "layer 0: target normalised",
        (LADDER, "[h[n_lab:]], [batch.x_unlabelled]", "[h[n_lab:]], [batch_normalise(batch.x_unlabelled)]"),
    ),
    mistake(
        3,
        "layer 0: lateral signal normalised",
        (LADDER, "[h[n_lab:]], [batch.x_unlabelled]", "[batch_normalise(h[n_lab:])], [batch.x_unlabelled]"),
    ),
    mistake(
        4,
        "one normalisation over labelled and unlabelled rows",
        (LADDER, "groups = [n_lab, n_unl, n_unl] if n_unl", "groups = [n_lab + n_unl, n_unl] if n_unl"),
    ),
    mistake(
        4,
        "running statistics used in training",
        (
            LADDER,
            GROUPS,
            "mean, variance = self.get_buffer(f'mean_{layer}'), self.get_buffer(f'variance_{layer}')\n"
            "            z_all = normalise(functional.linear(h, self.W[layer - 1]), mean, variance)",
        ),
    ),
    mistake(
        4,
        "running statistics kept in training",
        (LADDER, GROUPS, GROUPS + "\n            self.get_buffer(f'mean_{layer}').lerp_(mean.detach(), 0.1)"),
    ),
    mistake(5, "target detached", (LADDER, "(z[layer] - estimate)", "(z[layer].detach() - estimate)")),
    mistake(5, "clean mean detached", (LADDER, "means.append(mean)", "means.append(mean.detach())")),
    mistake(
        5, "clean variance detached", (LADDER, "variances.append(variance)", "variances.append(variance.detach())")
    ),
    mistake(
        6,
        "softmax twice",
        (LADDER, "cross_entropy(h[:n_lab], batch.y)", "cross_entropy(torch.softmax(h[:n_lab], dim=-1), batch.y)"),
    ),
    mistake(
        7, "combinator starts with other rows at one", ("nn/combinators.py", "a[1] = a[6] = 1.0", "a[0] = a[5] = 1.0")
    ),
    mistake(
        7,
        "combinator starts at random",
        ("nn/combinators.py", "a = torch.zeros(10, units)", "a = torch.randn(10, units, generator=generator) * std"),
    ),
    mistake(
        8,
        "logits at the decoder's top",
        (LADDER, "above = torch.softmax(h[n_lab:], dim=-1) if n_unl else h", "above = h[n_lab:] if n_unl else h"),
    ),
    mistake(8, "u not normalised", (LADDER, U, U.replace("batch_normalise(", "(", 1))),
    mistake(
        8,
        "u not normalised below the top",
        (LADDER, U, "u = batch_normalise(above) if layer == depth else functional.linear(above, self.V[str(layer)])"),
    ),
    mistake(9, "epsilon 1e-5", ("nn/batchnorm.py", "EPSILON = 1e-10", "EPSILON = 1e-5")),
    mistake(10, "pixels in 0..16 in training", ("training/program.py", PIXELS, PIXELS.replace(" / full_scale", ""))),
    mistake(
        10,
        "pixels standardised in training",
        (
            "training/program.py",
            PIXELS,
            PIXELS.replace("x[rows].to(dtype) / full_scale", "(x[rows].to(dtype) / full_scale - 0.3) / 0.4"),
        ),
    ),
    mistake(
        10,
        "pixels in 0..16 in evaluation",
        ("training/evaluation.py", "values())).dtype) / full_scale", "values())).dtype)"),
    ),
    mistake(
        11,
        "lambda times the sum over units",
        (LADDER, "(z[layer] - estimate).square().mean()", "(z[layer] - estimate).square().sum(-1).mean()"),
    ),
    mistake(
        12,
        "bias in W",
        (LADDER, BETA, BETA + "\n        self.bias = nn.ParameterList([torch.zeros(n) for n in widths[1:]])"),
        (LADDER, GROUPS, GROUPS.replace("self.W[layer - 1]", "self.W[layer - 1], self.bias[layer - 1]")),
    ),
    mistake(
        12,
        "bias in V",
        (LADDER, BETA, BETA + "\n        self.bias = nn.ParameterList([torch.zeros(n) for n in widths[:-1]])"),
        (LADDER, U, U.replace("self.V[str(layer)]", "self.V[str(layer)], self.bias[layer]")),
    ),
    mistake(
        13,
        "no noise at the top layer",
        (LADDER, NOISE, NOISE.replace("sigma[layer]", "(layer < depth) * sigma[layer]")),
    ),
    mistake(
        13,
        "noise before batch normalisation",
        (
            LADDER,
            GROUPS,
            "pre = functional.linear(h, self.W[layer - 1])\n"
            "            noise_here = sigma[layer] * draws[layer].view(noisy, config.widths[layer])\n"
            "            pre = torch.cat([pre[:noisy] + noise_here, pre[noisy:]])\n"
            "            z_all, mean, variance = normalise_groups(pre, groups)",
        ),
        (LADDER, NOISE, "corrupted = z_all[:noisy]"),
    ),
    mistake(
        14,
        "labels not balanced",
        ("data/splits.py", "else _balanced(unlabelled, labels, n_labelled, n_classes)", "else unlabelled[:n_labelled]"),
    ),
    mistake(
        14,
        "labelled rows taken out of the unlabelled set",
        ("data/splits.py", "unlabelled=unlabelled.copy()", "unlabelled=np.setdiff1d(unlabelled, labelled)"),
    ),
    mistake(
        15,
        "test statistics from unlabelled rows",
        (MEMBER, "self.labelled.batches(0, 1 if whole", "self.unlabelled.batches(0, 1 if whole"),
    ),
    mistake(
        15,
        "test statistics from the test batch",
        (
            LADDER,
            'z = normalise(z_pre, self.get_buffer(f"mean_{layer}"), self.get_buffer(f"variance_{layer}"))',
            "z = batch_normalise(z_pre)",
        ),
    ),
    mistake(
        15,
        "test statistics as a decaying average",
        (
            LADDER,
            'found[f"mean_{layer}"] = mean.mean(0)',
            "decay = 0.9 ** torch.arange(len(mean) - 1, -1, -1, dtype=mean.dtype).unsqueeze(-1)\n"
            '            found[f"mean_{layer}"] = (mean * decay / decay.sum()).sum(0)',
        ),
    ),
    mistake(15, "test variance biased", (LADDER, "variance.mean(0) * (rows / (rows - 1))", "variance.mean(0)")),
    mistake(16, "learning rate 0.02 by default", ("training/settings.py", "lr: float = 0.002", "lr: float = 0.02")),
    mistake(
        16,
        "learning rate 0.02 in the studies",
        ("studies/ladder.py", "training=TrainingConfig(),", "training=TrainingConfig(lr=0.02),"),
    ),
    mistake(
        17,
        "rate never decays",
        ("training/schedules.py", "if epoch <= start or start >= epochs:", "if epoch < epochs:"),
    ),
    mistake(
        17,
        "decay is reported and does not reach the weights",
        (PACK, SCALE, "adam_scale(updates + 1, seat.spec.training.lr)"),
    ),
    mistake(
        17,
        "Adam's correction restarts every epoch",
        (PACK, SCALE, SCALE.replace("updates + 1", "updates % seat.spec.steps_per_epoch + 1")),
    ),
    mistake(
        17,
        "Adam made anew in every epoch of the decay",
        (
            PACK,
            "tables = self._tables(seated, steps)",
            "for slot, seat in seated.items():\n"
            "            if seat.rate(seat.step) < seat.spec.training.lr:\n"
            "                for stacked in (*self._first.values(), *self._second.values()):\n"
            "                    stacked[slot].zero_()\n"
            "        tables = self._tables(seated, steps)",
        ),
    ),
    mistake(
        18,
        "a pack reports the best test error so far",
        (
            PACK,
            "return dict(zip(slots, errors, strict=True))",
            "best = self.__dict__.setdefault('best', {})\n"
            "        best.update({s: min(e, best.get(s, 1.0)) for s, e in zip(slots, errors, strict=True)})\n"
            "        return dict(best)",
        ),
    ),
    mistake(
        18,
        "final training reports its best epoch",
        (
            "final/training.py",
            "test_error=errors.get(seed),",
            "test_error=min(\n"
            "                    (r[TEST_ERROR] for r in progress.histories.get(str(seed), ()) if TEST_ERROR in r),\n"
            "                    default=errors.get(seed),\n"
            "                ),",
        ),
    ),
    mistake(
        19,
        "beta added after gamma",
        (LADDER, "return self.gamma * shifted", "return self.gamma * z + self.beta[layer - 1]"),
    ),
    mistake(20, "second CIFAR-10 pool gives 7", ("nn/maps.py", "ceil_mode=True", "ceil_mode=False")),
)


def main() -> int:
    chosen = {int(argument) for argument in sys.argv[1:]}
    planted = [m for m in MISTAKES if not chosen or m.number in chosen]
    rows, ok = [], True
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        copy(work)
        clean = run(work, "test_")
        if clean.returncode:
            print(clean.stdout, clean.stderr, "a test fails without any mistake", sep="\n")
            return 1
        for m in planted:
            test = f"test_{m.number:02}"
            verdict = try_one(work, m, test)
            ok &= verdict == "yes"
            rows.append((f"{m.number:2} {m.what}", test, verdict))
            print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    width = max(len(row[0]) for row in rows)
    print(f"{'mistake':{width}} | test    | fails when planted")
    for what, test, verdict in rows:
        print(f"{what:{width}} | {test} | {verdict}")
    return 0 if ok else 1


def copy(work: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ladder_search", work / "ladder_search", ignore=ignore)
    for name in ("pyproject.toml", "tests/conftest.py", *TESTS):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, work / name)


def try_one(work: Path, m: Mistake, test: str) -> str:
    """Plant ``m``, run its test, take ``m`` out again; "yes" or what went wrong."""
    originals = {file: (work / "ladder_search" / file).read_text() for file, _, _ in m.edits}
    texts = dict(originals)
    for file, old, new in m.edits:
        if texts[file].count(old) != 1 or old == new:
            return f"no: {old!r} occurs {texts[file].count(old)} times in {file}"
        texts[file] = texts[file].replace(old, new)
    try:
        for file, text in texts.items():
            (work / "ladder_search" / file).write_text(text)
        found = run(work, test)
    finally:
        for file, text in originals.items():
            (work / "ladder_search" / file).write_text(text)
    # An assertion must fail: a plant that merely crashes proves nothing.
    failed = re.findall(rf"^FAILED \S+::{test}\S* - (?:AssertionError|assert\b)", found.stdout, re.MULTILINE)
    if found.returncode == 1 and failed:
        return "yes"
    return "NO" if found.returncode == 0 else f"no: {found.stdout.strip().splitlines()[-3:]}"


def run(work: Path, test: str) -> subprocess.CompletedProcess[str]:
    # No bytecode: a source file that changes twice within a second may keep the time stamp its cache was made for.
    environment = os.environ | {"PYTHONPATH": str(work), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", test, *TESTS]
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=300)


if __name__ == "__main__":
    sys.exit(main())
