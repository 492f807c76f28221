"""Readings of a run's tables: which of the equally sparse optima is looked at, and how much of it.

The log-odds of a checkpoint have many AND-OR models that are equally sparse (see
:mod:`sft_interactions.extraction.optima`). What is called removed or emerged depends on which one is
taken at each checkpoint:

- ``canonical``: the one that the tie-break chooses, at every checkpoint by itself.
- ``certain``: of those interactions, the ones that every optimum has, with one sign.
- ``joint``: the optima of all checkpoints that change least in sum, so that no reading changes less.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.choices import CERTAIN, JOINT, READINGS
from sft_interactions.analysis.dynamics import KEY
from sft_interactions.analysis.ranges import add_ranges
from sft_interactions.analysis.salience import Salience, select_salient
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.joint import extract_joint
from sft_interactions.extraction.program import Extraction
from sft_interactions.parallel import Mapped, in_turn

L1_TOLERANCE = 1e-6


def only_certain(salient: pl.DataFrame, ranges: pl.DataFrame) -> pl.DataFrame:
    """The salient interactions that all optima have, with one sign.

    Args:
        salient: rows (sample_id, kind, pattern, ...).
        ranges: rows of the ``ranges`` table of the checkpoint.

    Raises:
        ValueError: the range of a salient interaction is not known.
    """
    certain = ranges.select(
        "sample_id",
        pl.col("kind").cast(salient.schema["kind"], strict=False),
        "pattern",
        "sign_certain",
    ).drop_nulls()
    known = salient.join(certain, on=KEY, how="left", maintain_order="left")
    if known["sign_certain"].has_nulls():
        raise ValueError(
            "the ranges are of other interactions than the salient ones; rebuild the ranges"
        )
    return known.filter("sign_certain").drop("sign_certain")


def read_run(
    reading: str,
    values: Mapping[int, NDArray[np.float64]],
    solved: Mapping[int, Extraction],
    samples: Sequence[str],
    salience: Salience,
    *,
    tolerance: float = L1_TOLERANCE,
    mapped: Mapped = in_turn,
) -> dict[int, pl.DataFrame]:
    """Salient interactions of every checkpoint of a run under a reading.

    Args:
        reading: one of :data:`~sft_interactions.analysis.choices.READINGS`.
        values: step to v, (B, 2^n).
        solved: step to what :func:`~sft_interactions.extraction.program.extract` gives for it.
        samples: (B,) sample ids.
        salience: rule and threshold.
        tolerance: by what relative part the L1 norm of an optimum may exceed the least one.
        mapped: shares the work out, see :mod:`sft_interactions.parallel`.

    Returns:
        Step to rows as of :func:`~sft_interactions.analysis.salience.select_salient`.

    Raises:
        ValueError: an unknown reading.
    """
    if reading not in READINGS:
        raise ValueError(f"unknown reading {reading!r}; choose from {', '.join(READINGS)}")
    steps = sorted(values)
    ids = list(samples)
    if reading == JOINT:
        joint = extract_joint(
            [values[step] for step in steps],
            [solved[step] for step in steps],
            tolerance=tolerance,
            mapped=mapped,
        )
        solved = dict(zip(steps, joint.checkpoints, strict=True))
    found = {}
    for step in steps:
        interactions, solve = from_extraction(ids, values[step], solved[step])
        found[step] = select_salient(interactions, solve, **salience)
        if reading == CERTAIN:
            ranges = add_ranges(
                interactions,
                solve,
                values[step],
                samples,
                salience,
                tolerance=tolerance,
                mapped=mapped,
            )
            found[step] = only_certain(found[step], ranges)
    return found
