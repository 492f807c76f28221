"""Extraction: ours against the reference recipe (SGD) and against HiGHS from a cold start.

    python benchmarks/extraction.py            n = 8, 10, 12; about 10 minutes
    python benchmarks/extraction.py --quick    n = 8, 10; under a minute
    python benchmarks/extraction.py --large 13 14 15 16    one problem each, ours only

Real v: log-odds of SmolLM2-135M on masked tweets (`extraction_v.npz`). The recipe is our own plain
implementation of what method.md describes: dense Möbius matrices, free p and clamped q, SGD with
momentum 0.9, 10,000 steps from 1e-5 to 1e-6, float32. Times are wall times (or, with --cpu, CPU times) per
problem with the threads that OMP_NUM_THREADS allows. L1 is the plain one, the median over the
problems that the baselines solve, and "above" how far that is from ours. Where fewer steps than
10,000 are run, the time is scaled to 10,000 and marked "~", and the L1 is not shown.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from sft_interactions.extraction import Extraction, extract  # noqa: E402

STEPS = 10_000
# The published recipe lets the learning rate fall to a tenth, evenly on a logarithmic scale.
LEARNING_RATE, DECAY = 1e-5, 0.1
clock = time.perf_counter


def load(n: int) -> NDArray[np.float64]:
    """(problems, 2^n) real v of n = 8, 10 or 12 players."""
    with np.load(Path(__file__).with_name("extraction_v.npz")) as archive:
        v: NDArray[np.float64] = archive[f"n{n}"].astype(np.float64)
    return v


def perturbed(v: NDArray[np.float64], n_problems: int) -> NDArray[np.float64]:
    """(n_problems, 2^n) real v with noise of 1e-3 of |v(N) − v(∅)|: alike but not equal."""
    rng = np.random.default_rng(0)
    batch = np.resize(v, (n_problems, v.shape[1]))
    spread = np.abs(batch[:, -1:] - batch[:, :1])
    return batch + 1e-3 * spread * rng.normal(size=batch.shape)


def extended(n: int) -> NDArray[np.float64]:
    """(1, 2^n) v of more than 12 players: to a real table each further one adds part of another."""
    tables = load(12)
    rng = np.random.default_rng(0)
    v = tables[0]
    for player in range(12, n):
        other = np.resize(tables[(player - 11) % len(tables)], v.size)
        noise = rng.normal(size=v.size)
        added = 0.3 * other * (v.std() / other.std()) + 0.02 * v.std() * noise
        v = np.concatenate([v, 0.7 * v + added])
    return np.expand_dims(v, 0)


def solve_large(n: int) -> None:
    """Print time, certificate and memory of one problem of more than 12 players."""
    result, seconds = timed(extended(n))
    gap = float(((result.l1 - result.l1_lower_bound) / result.l1)[0])
    residual = float((result.max_residual / result.noise_bound)[0])
    print(
        f"n = {n}: {seconds:.0f} s, gap {gap:.0e}, residual {residual:.7f} of its bound, "
        f"peak memory {high_water_mark() / 1024:.1f} GiB"
    )


def reference_recipe(
    v: NDArray[np.float64], steps: int, noise_ratio: float = 0.04
) -> tuple[float, float]:
    """Plain L1 and seconds for 10,000 steps."""
    import torch

    size = len(v)
    moebius = torch.ones(1, 1)
    one = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    for _ in range(size.bit_length() - 1):
        moebius = torch.kron(one, moebius)
    or_matrix = -moebius.flip(1)
    target = torch.tensor(v - v[0], dtype=torch.float32)
    bound = noise_ratio * float(abs(v[-1] - v[0]))
    p = torch.zeros(size, requires_grad=True)
    q = torch.zeros(size, requires_grad=True)
    optimizer = torch.optim.SGD([p, q], lr=LEARNING_RATE, momentum=0.9)

    def l1() -> torch.Tensor:
        half = (target + q) / 2
        and_effects, or_effects = moebius @ (half + p), or_matrix @ (half - p)
        return and_effects[1:].abs().sum() + or_effects[1:].abs().sum()

    start = clock()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * DECAY ** (step / (STEPS - 1))
        optimizer.zero_grad()
        l1().backward()  # type: ignore[no-untyped-call] # torch has not annotated it
        optimizer.step()
        with torch.no_grad():
            q.clamp_(-bound, bound)
    seconds = (clock() - start) * STEPS / steps
    with torch.no_grad():
        return float(l1()), seconds


def timed(v: NDArray[np.float64], solver: str = "interior-point") -> tuple[Extraction, float]:
    """Solutions of a batch, and the seconds that they took."""
    start = clock()
    result = extract(v, solver=solver)
    return result, clock() - start


def peak_memory(n: int, n_problems: int) -> float:
    """MiB that a process needs for one batch beyond its imports."""
    command = [sys.executable, __file__, "--memory", str(n), str(n_problems)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_memory(n: int, n_problems: int) -> None:
    """Print what `peak_memory` reads."""
    v = perturbed(load(n), n_problems)
    extract(v[:1, :16])
    before = high_water_mark()
    extract(v)
    print(high_water_mark() - before)


def high_water_mark() -> float:
    """Peak resident MiB of this process. (ru_maxrss would include that of the parent.)"""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) / 1024


def compare(n: int, options: argparse.Namespace) -> None:
    """Print a table of the solvers on the real problems of n players."""
    v = load(n)
    extract(v[:1])
    single = [timed(problem[None]) for problem in v]
    seconds = float(np.median([s for _, s in single]))
    n_batch = options.batch if n < 12 else max(1, options.batch // 8)
    batch, batch_seconds = timed(perturbed(v, n_batch))
    per_problem = batch_seconds / n_batch
    results = [result for result, _ in single]
    gap = max(float(((r.l1 - r.l1_lower_bound) / r.l1).max()) for r in [*results, batch])
    l1 = np.array([r.l1_plain[0] for r in results[: options.problems]])
    print(f"\nn = {n}: {len(v)} problems, batch of {n_batch}")
    print(f"{'solver':28}{'s/problem':>11}{'ratio':>9}{'L1, median':>12}{'above':>9}{'gap':>10}")
    row = "{:28}{:>11}{:>9}{:>12}{:>9}{:>10}"
    fast = f"{np.median(l1):.4f}"
    memory = peak_memory(n, n_batch)
    print(row.format("ours, in a batch", f"{per_problem:.4f}", "1", fast, "", f"{gap:.0e}"))
    print(
        row.format(
            "ours, one at a time",
            f"{seconds:.4f}",
            f"{seconds / per_problem:.1f}",
            fast,
            "",
            f"{gap:.0e}",
        )
    )

    steps = min(STEPS, options.sgd_steps) if n >= 12 else STEPS
    sgd = [reference_recipe(problem, steps) for problem in v[: options.problems]]
    sgd_seconds = float(np.median([s for _, s in sgd]))
    complete = steps == STEPS
    above = np.median([value / best - 1 for (value, _), best in zip(sgd, l1, strict=False)])
    print(
        row.format(
            f"reference recipe ({steps} steps)",
            f"{'' if complete else '~'}{sgd_seconds:.3f}",
            f"{sgd_seconds / per_problem:.0f}",
            f"{np.median([value for value, _ in sgd]):.4f}" if complete else "",
            f"{above:.1%}" if complete else "",
            "none",
        )
    )
    for solver in options.highs if n < 12 else options.highs_12:
        cold = [timed(problem[None], solver) for problem in v[: options.problems]]
        cold_seconds = float(np.median([s for _, s in cold]))
        values = np.array([r.l1_plain[0] for r, _ in cold])
        cold_gap = max(float(((r.l1 - r.l1_lower_bound) / r.l1)[0]) for r, _ in cold)
        same = all(
            np.array_equal(ours.and_effects != 0, theirs.and_effects != 0)
            and np.array_equal(ours.or_effects != 0, theirs.or_effects != 0)
            for ours, (theirs, _) in zip(results, cold, strict=False)
        )
        print(
            row.format(
                f"HiGHS {solver}, cold",
                f"{cold_seconds:.4f}",
                f"{cold_seconds / per_problem:.1f}",
                f"{np.median(values):.4f}",
                f"{(values / l1[: len(values)] - 1).max():.0e}",
                f"{cold_gap:.0e}",
            )
            + ("  same support" if same else "  OTHER SUPPORT")
        )
    print(f"peak memory of ours: {memory:.0f} MiB beyond the imports")


def main() -> None:
    """Read the options and run what they ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="n = 8 and 10, fewer problems")
    parser.add_argument("--players", type=int, nargs="+", choices=(8, 10, 12))
    parser.add_argument("--large", type=int, nargs="+", help="only solve one problem of 13 to 16")
    parser.add_argument("--batch", type=int, default=64, help="batch size; an eighth at n = 12")
    parser.add_argument("--problems", type=int, default=3, help="that the baselines solve")
    parser.add_argument("--sgd-steps", type=int, default=300, help="steps that are run at n = 12")
    parser.add_argument("--highs", nargs="*", default=["simplex"], choices=("simplex", "ipm"))
    parser.add_argument(
        "--highs-12",
        nargs="*",
        default=["ipm"],
        choices=("simplex", "ipm"),
        help="at n = 12, where the simplex takes minutes a problem",
    )
    parser.add_argument("--memory", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument(
        "--cpu", action="store_true", help="CPU times, for a machine that is shared"
    )
    options = parser.parse_args()
    if options.cpu:
        global clock
        clock = time.process_time
    if options.memory:
        measure_memory(*options.memory)
        return
    for n in options.large or ():
        solve_large(n)
    if options.large:
        return
    if options.quick:
        options.problems, options.batch = 2, 16
    players = options.players or ((8, 10) if options.quick else (8, 10, 12))
    print(
        f"threads: {os.environ.get('OMP_NUM_THREADS', 'default')}, cores: {os.cpu_count()}, "
        f"{'CPU' if options.cpu else 'wall'} times"
    )
    for n in players:
        compare(n, options)


if __name__ == "__main__":
    main()
