"""Extraction of tables that real LLMs seldom give: is every optimum right, and what does it cost?

    python benchmarks/degenerate.py                     n = 2 to 6, with HiGHS as referee; a minute
    python benchmarks/degenerate.py --players 8 9 10    CPU seconds beside HiGHS's simplex; four minutes

Families: planted AND-OR models, alone, saturated, rounded, with an outlier, with an offset; symmetric and
step functions; one mask; halves; integers; sums of unanimity games; noise alone; tables of size 1e-9 and
1e9. Each with ζ = 0, 0.04 and 0.3. Differences of L1 are relative. A row fails where L1 differs by more
than 1e-7 from the simplex's, the gap exceeds 1e-6, or φ leaves the noise bound by more than 1e-7 of the
range.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from sft_interactions.extraction import extract, reconstruct  # noqa: E402

NOISE_RATIOS = (0.0, 0.04, 0.3)
Table = NDArray[np.float64]


def planted(rng: np.random.Generator, n: int) -> Table:
    """v of a model with about n AND and n OR effects of any order."""
    effects = np.zeros((2, 1, 1 << n))
    orders = np.array([mask.bit_count() for mask in range(1 << n)])
    for kind, lowest in ((0, 1), (1, 2)):
        masks = rng.permutation(np.flatnonzero(orders >= lowest))[:n]
        effects[kind, 0, masks] = rng.normal(size=len(masks))
    return reconstruct(rng.normal(size=1), effects[0], effects[1])[0]


def families(n: int, seed: int) -> Iterator[tuple[str, Table]]:
    """Name and table (2^n,) of every family."""
    rng = np.random.default_rng([seed, n])
    size = 1 << n
    orders = np.array([mask.bit_count() for mask in range(size)])
    few = planted(rng, n)
    yield "planted", few
    yield "saturated", np.clip(few, -1, 1)
    yield "rounded", few.round(1)
    yield "outlier", np.where(np.arange(size) == rng.integers(size), 1e6, few)
    yield "offset", few + 1e5
    yield "symmetric", (orders**2).astype(float)
    yield "step", (orders >= n / 2).astype(float)
    yield "one mask", np.eye(size)[rng.integers(size)]
    yield "halves", np.repeat([0.0, 1.0], size // 2)
    yield "integers", rng.integers(-2, 3, size).astype(float)
    games = [
        np.all((np.arange(size)[:, None] >> rng.permutation(n)[:2]) & 1, axis=1) for _ in "abc"
    ]
    yield "unanimity", rng.normal(size=3) @ np.array(games, dtype=float)
    yield "noise", rng.normal(size=size)
    yield "tiny", few * 1e-9
    yield "huge", few * 1e9


def solve(table: Table, noise_ratio: float, solver: str) -> tuple[float, float, float, float]:
    """CPU seconds, L1, relative gap, and excess over the noise bound in parts of the range."""
    start = time.process_time()
    solved = extract(table[None], noise_ratio=noise_ratio, solver=solver)
    seconds = time.process_time() - start
    l1 = float(solved.l1[0])
    gap = abs(l1 - float(solved.l1_lower_bound[0])) / max(l1, 1e-300)
    excess = float(solved.max_residual[0] - solved.noise_bound[0]) / max(
        float(np.ptp(table)), 1e-300
    )
    return seconds, l1, gap if l1 else 0.0, excess


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--players", type=int, nargs="+", default=[2, 3, 4, 5, 6])
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    failures = problems = 0
    row = "{:>3} {:<10} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9}"
    print(row.format("n", "family", "ζ", "ours, s", "simplex, s", "ΔL1", "gap", "excess"))
    for n in options.players:
        seeds = options.seeds if n < 8 else 1
        for seed in range(seeds):
            for name, table in families(n, seed):
                for noise_ratio in NOISE_RATIOS:
                    seconds, l1, gap, excess = solve(table, noise_ratio, "interior-point")
                    simplex, expected, *_ = solve(table, noise_ratio, "simplex")
                    difference = abs(l1 - expected) / max(expected, 1e-300) if expected else l1
                    wrong = difference > 1e-7 or gap > 1e-6 or excess > 1e-7
                    problems, failures = problems + 1, failures + wrong
                    if wrong or n >= 8:
                        cells = [f"{x:.2f}" for x in (seconds, simplex)]
                        cells += [f"{x:.0e}" for x in (difference, gap, excess)]
                        print(row.format(n, name, noise_ratio, *cells), "FAILS" if wrong else "")
    print(f"{problems} problems, {failures} fail")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
