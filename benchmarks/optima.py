"""Ranges of effects and joint extraction: ours against HiGHS from a cold start on all variables.

    python benchmarks/optima.py            n = 8, 10 and 12; about 5 minutes
    python benchmarks/optima.py --quick    n = 8; seconds

Real v: log-odds of SmolLM2-135M on masked tweets (`extraction_v.npz`). A *range* is the least and the
largest value of a salient effect (tau = 0.05 of the largest) among all readings of a table that are as
sparse as its optimum. A *run* for joint extraction goes from one real table to another one in five
checkpoints. From a cold start means: every variable of the program, for each of the two ends of each
range, by HiGHS's simplex with its presolve; of these a few are solved and the time is scaled to all, and
at n = 12 none, since one takes many minutes. In a *noise* run nothing but noise of 10⁻³ changes,
as in the churn floor; there the same program is timed with all effects in from the start. CPU seconds,
one thread; OMP_NUM_THREADS=1 is advised. JSON with --output.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highspy
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from sft_interactions.extraction import Extraction, extract, highs  # noqa: E402
from sft_interactions.extraction.certificate import effect_mask  # noqa: E402
from sft_interactions.extraction.highs import design_matrix  # noqa: E402
from sft_interactions.extraction.joint import extract_joint  # noqa: E402
from sft_interactions.extraction.ranges import effect_ranges  # noqa: E402

TOLERANCE = 1e-6
TAU = 0.05
NOISE = 1e-3
PATH = (0.0, 0.2, 0.4, 0.7, 1.0)


def load(n: int) -> NDArray[np.float64]:
    """(problems, 2^n) real v of n players."""
    with np.load(Path(__file__).with_name("extraction_v.npz")) as archive:
        v: NDArray[np.float64] = archive[f"n{n}"].astype(np.float64)
    return v


def block(
    v: NDArray[np.float64], bound: float, norm: float
) -> tuple[sp.csc_array[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Near-optimal points with all variables: matrix, least and largest values of its rows."""
    design = design_matrix(int(np.log2(len(v))))
    both = sp.hstack([design[:, :-1], -design[:, :-1], design[:, [-1]]])
    of_norm = np.append(np.ones(both.shape[1] - 1), 0.0)
    matrix = sp.vstack([both, sp.csr_array(of_norm[None])], format="csc")
    return matrix, np.append(v - bound, -np.inf), np.append(v + bound, norm * (1 + TOLERANCE))


def solve_cold(
    matrix: sp.csc_array[np.float64],
    rows: tuple[NDArray[np.float64], NDArray[np.float64]],
    free: NDArray[np.bool_],
    cost: NDArray[np.float64],
) -> float:
    """The least cost, by HiGHS's own choices.

    Raises:
        RuntimeError: it is not found.
    """
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = matrix.shape[1], matrix.shape[0]
    lp.col_cost_ = cost
    lp.col_lower_ = np.where(free, -np.inf, 0.0)
    lp.col_upper_ = np.full(matrix.shape[1], np.inf)
    lp.row_lower_, lp.row_upper_ = rows
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_ = matrix.indptr, matrix.indices
    lp.a_matrix_.value_ = matrix.data
    solver = highspy.Highs()  # type: ignore[no-untyped-call] # it has no annotations
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(lp)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"HiGHS ends with {solver.getModelStatus()}")
    return float(solver.getInfo().objective_function_value)


def compare_ranges(n: int, n_tables: int, n_cold: int) -> dict[str, Any]:
    """Times of the ranges of some tables, and how far the two ways differ."""
    v = load(n)[:n_tables]
    solved = extract(v)
    effects = solved.effects
    wanted = np.abs(effects) >= TAU * np.abs(effects).max(axis=(1, 2), keepdims=True)
    start = time.process_time()
    found = effect_ranges(v, solved, wanted, tolerance=TOLERANCE)
    ours = time.process_time() - start
    mask = effect_mask(n)
    place = np.cumsum(mask.ravel()) - 1
    seconds, differences = [], []
    for number in range(n_cold):
        i = number % n_tables
        flat = np.flatnonzero(wanted[i])
        effect = flat[(number * 7) % len(flat)]
        matrix, *rows = block(v[i], solved.noise_bound[i], solved.l1_plain[i])
        cost = np.zeros(matrix.shape[1])
        n_effects = (matrix.shape[1] - 1) // 2
        cost[place[effect]], cost[n_effects + place[effect]] = 1.0, -1.0
        free = np.arange(matrix.shape[1]) == matrix.shape[1] - 1
        start = time.process_time()
        low, high = (
            s * solve_cold(matrix, (rows[0], rows[1]), free, s * cost) for s in (1.0, -1.0)
        )
        seconds.append(time.process_time() - start)
        off = max(abs(low - found.low[i].flat[effect]), abs(high - found.high[i].flat[effect]))
        differences.append(off / solved.l1_plain[i])
    row: dict[str, Any] = {
        "what": "ranges",
        "n": n,
        "tables": n_tables,
        "effects": int(wanted.sum()),
        "ours_seconds": ours / n_tables,
        "certain_share": float(found.sign_certain[wanted].mean()),
    }
    if seconds:
        cold = float(np.mean(seconds)) * wanted.sum() / n_tables
        row |= {
            "cold_seconds": cold,
            "ratio": cold / (ours / n_tables),
            "largest_difference": max(differences),
        }
    return row


def compare_joint(n: int, n_samples: int, with_cold: bool) -> dict[str, Any]:
    """Times of joint extraction, and how far the two ways differ."""
    tables = load(n)
    start_of, end_of = tables[:n_samples], tables[1 : n_samples + 1]
    values = [(1 - share) * start_of + share * end_of for share in PATH]
    solved = [extract(v) for v in values]
    start = time.process_time()
    joint = extract_joint(values, solved, tolerance=TOLERANCE)
    ours = (time.process_time() - start) / n_samples
    row: dict[str, Any] = {
        "what": "joint",
        "n": n,
        "tables": n_samples,
        "checkpoints": len(PATH),
        "ours_seconds": ours,
        "gap": float(((joint.change - joint.change_lower_bound) / joint.change).max()),
        "change_of_canonical": float(joint.change.sum() / joint.given_change.sum()),
    }
    if with_cold:
        start = time.process_time()
        least = joint_cold([v[0] for v in values], solved)
        cold = time.process_time() - start
        row |= {
            "cold_seconds": cold,
            "ratio": cold / ours,
            "largest_difference": abs(least - joint.change[0]) / joint.given_change[0],
        }
    return row


def compare_sifting(n: int, n_samples: int) -> dict[str, Any]:
    """Times of joint extraction where nothing but noise changes, and with all effects from the start."""
    v = load(n)[:n_samples]
    scale = np.abs(v[:, -1] - v[:, 0]).mean()
    draw = np.random.default_rng(0)
    values = [v, *(v + NOISE * scale * draw.normal(size=v.shape) for _ in PATH[1:])]
    # As a study has them by default.
    solved = [extract(one, noise_scale="mean", tie_break="high_order") for one in values]
    seconds, found = [], []
    usual = highs._MOST_OF_GROUPS
    for share in (usual, 0.0):
        highs._MOST_OF_GROUPS = share
        start = time.process_time()
        found.append(extract_joint(values, solved, tie_break="high_order", tolerance=TOLERANCE))
        seconds.append((time.process_time() - start) / n_samples)
    highs._MOST_OF_GROUPS = usual
    off = np.abs(found[0].change - found[1].change) / found[0].given_change
    return {
        "what": "noise",
        "n": n,
        "tables": n_samples,
        "checkpoints": len(PATH),
        "ours_seconds": seconds[0],
        "whole_seconds": seconds[1],
        "ratio": seconds[1] / seconds[0],
        "largest_difference": float(off.max()),
    }


def joint_cold(values: Sequence[NDArray[np.float64]], solved: Sequence[Extraction]) -> float:
    """Least sum of changes, as of `extract_joint`, of the first sample, with all variables."""
    blocks = [
        block(v, one.noise_bound[0], one.l1_plain[0]) for v, one in zip(values, solved, strict=True)
    ]
    width = blocks[0][0].shape[1]
    n_effects = (width - 1) // 2
    eye = sp.eye_array(n_effects)
    x = sp.hstack([eye, -eye, sp.csr_array((n_effects, 1))])
    later = sp.block_diag([x] * len(blocks), format="csr")
    neighbours = later[n_effects:] - later[:-n_effects]
    first = sp.vstack([later[:n_effects]] * (len(blocks) - 1))
    steps = sp.vstack([neighbours, later[n_effects:] - first])
    sizes = sp.eye_array(steps.shape[0])
    points = sp.block_diag([one[0] for one in blocks])
    matrix = sp.block_array([[points, None, None], [steps, -sizes, sizes]], format="csc")
    none = np.zeros(steps.shape[0])
    rows = tuple(np.concatenate([*(one[side] for one in blocks), none]) for side in (1, 2))
    free = np.zeros(matrix.shape[1], dtype=bool)
    free[width - 1 : width * len(blocks) : width] = True
    cost = np.concatenate([np.zeros(points.shape[1]), np.ones(2 * steps.shape[0])])
    return solve_cold(matrix, (rows[0], rows[1]), free, cost)


def show(row: dict[str, Any]) -> None:
    """Print a row."""
    other = "whole" if "whole_seconds" in row else "cold"
    print(
        f"{row['what']:8}n = {row['n']:2}  ours {row['ours_seconds']:8.3f} s  "
        + (
            f"{other} {row[f'{other}_seconds']:9.1f} s  ratio {row['ratio']:6.1f}  "
            f"largest difference {row['largest_difference']:.0e} of the norm"
            if "ratio" in row
            else f"{other}: not run"
        ),
        flush=True,
    )


def main() -> None:
    """Read the options and run what they ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="n = 8 alone")
    parser.add_argument("--output", type=Path, help="JSON file of the figures")
    options = parser.parse_args()
    rows = []
    for n, n_tables, n_cold in ((8, 6, 6), (10, 4, 2), (12, 1, 0))[: 1 if options.quick else 3]:
        rows.append(compare_ranges(n, n_tables, n_cold))
        show(rows[-1])
    for n, n_samples, with_cold in ((8, 4, True), (10, 4, False), (12, 1, False))[
        : 1 if options.quick else 3
    ]:
        rows.append(compare_joint(n, n_samples, with_cold))
        show(rows[-1])
    for n, n_samples in ((8, 6), (10, 3))[: 1 if options.quick else 2]:
        rows.append(compare_sifting(n, n_samples))
        show(rows[-1])
    if options.output:
        options.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
