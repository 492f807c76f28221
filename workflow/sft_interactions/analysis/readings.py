"""Readings of a run's tables: which of the equally sparse optima is looked at, and how much of it.

The log-odds of a checkpoint have many AND-OR models that are equally sparse (see
:mod:`sft_interactions.extraction.optima`). What is called removed or emerged depends on which one is
taken at each checkpoint:

- ``single``: the one that the tie-break chooses, at every checkpoint by itself.
- ``certain``: of those interactions, the ones that every optimum has, with one sign.
- ``joint``: the optima of all checkpoints that change least in sum, between neighbours and since the
  first one, so that no reading changes less.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

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


class RunReader:
    """Reads a run's tables in every way; joint extraction, which is dear, serves all salience rules.

    Args:
        values: step to v, (B, 2^n).
        solved: step to what :func:`~sft_interactions.extraction.program.extract` gives for it.
        samples: (B,) sample ids.
        tie_break: that of the extractions; chooses among joint ones too.
        tolerance: by what relative part the L1 norm of an optimum may exceed the least one.
        mapped: shares the work out, see :class:`~sft_interactions.parallel.Mapped`.
    """

    def __init__(
        self,
        values: Mapping[int, NDArray[np.float64]],
        solved: Mapping[int, Extraction],
        samples: Sequence[str],
        tie_break: str = "canonical",
        tolerance: float = L1_TOLERANCE,
        mapped: Mapped = in_turn,
    ) -> None:
        self._mapped = mapped
        self._steps = sorted(values)
        self._values, self._solved = values, solved
        self._samples, self._tie_break = list(samples), tie_break
        self._tolerance = tolerance

    def salient(self, reading: str, salience: Salience) -> dict[int, pl.DataFrame]:
        """Salient interactions of every checkpoint.

        Args:
            reading: one of ``choices.READINGS``.
            salience: rule and threshold.

        Returns:
            Step to rows as of :func:`~sft_interactions.analysis.salience.select_salient`.

        Raises:
            ValueError: an unknown reading.
        """
        if reading not in READINGS:
            raise ValueError(f"unknown reading {reading!r}; choose from {', '.join(READINGS)}")
        found = {}
        for step, (interactions, solve) in self.tables(reading).items():
            found[step] = select_salient(interactions, solve, **salience)
            if reading == CERTAIN:
                ranges = add_ranges(
                    interactions,
                    solve,
                    self._values[step],
                    self._samples,
                    salience,
                    tolerance=self._tolerance,
                    mapped=self._mapped,
                )
                found[step] = only_certain(found[step], ranges)
        return found

    def tables(self, reading: str) -> dict[int, tuple[pl.DataFrame, pl.DataFrame]]:
        """Step to rows of the ``interactions`` and of the ``solve`` table, whatever is salient of them."""
        solved = self._joint if reading == JOINT else self._solved
        return {
            step: from_extraction(self._samples, self._values[step], solved[step])
            for step in self._steps
        }

    @cached_property
    def _joint(self) -> Mapping[int, Extraction]:
        joint = extract_joint(
            [self._values[step] for step in self._steps],
            [self._solved[step] for step in self._steps],
            tie_break=self._tie_break,
            tolerance=self._tolerance,
            mapped=self._mapped,
        )
        return dict(zip(self._steps, joint.checkpoints, strict=True))
