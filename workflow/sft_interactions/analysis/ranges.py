"""How far the effects of salient interactions can move among the optima, as columns of their table."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.dynamics import KEY
from sft_interactions.analysis.salience import Salience, select_salient, without_shares
from sft_interactions.extraction.interactions import to_extraction
from sft_interactions.extraction.ranges import effect_ranges
from sft_interactions.parallel import Mapped, in_turn

_KINDS = ("and", "or")


def add_ranges(
    interactions: pl.DataFrame,
    solve: pl.DataFrame,
    values: NDArray[np.float64],
    samples: Sequence[str],
    salience: Salience,
    *,
    tolerance: float,
    progress: Callable[[int], None] = lambda _: None,
    mapped: Mapped = in_turn,
) -> pl.DataFrame:
    """Add to the interactions of a checkpoint the range of each salient effect among the optima.

    Args:
        interactions: rows of its ``interactions`` table.
        solve: rows of its ``solve`` table.
        values: (B, 2^n) v.
        samples: (B,) sample ids.
        salience: rule and threshold, ``stable`` as the rule that it starts from; ranges of other
            interactions are null.
        tolerance: see :func:`~sft_interactions.extraction.ranges.effect_ranges`.
        progress: called with the number of samples that have just been solved.
        mapped: shares the work out, see :class:`~sft_interactions.parallel.Mapped`.

    Returns:
        The rows with the columns effect_low, effect_high (log-odds) and sign_certain.
    """
    solved = to_extraction(samples, interactions, solve)
    row = {sample: place for place, sample in enumerate(samples)}
    salient = select_salient(interactions, solve, **without_shares(salience))
    place = (
        salient["sample_id"].replace_strict(row, return_dtype=pl.Int64).to_numpy(),
        (salient["kind"].cast(pl.String) == _KINDS[1]).to_numpy().astype(np.int64),
        salient["pattern"].to_numpy(),
    )
    wanted = np.zeros((*values.shape[:1], 2, values.shape[1]), dtype=bool)
    wanted[place] = True
    found = effect_ranges(
        values, solved, wanted, tolerance=tolerance, progress=progress, mapped=mapped
    )
    ranges = salient.select(
        "sample_id",
        pl.col("kind").cast(interactions.schema["kind"]),
        "pattern",
        effect_low=pl.Series(found.low[place]),
        effect_high=pl.Series(found.high[place]),
        sign_certain=pl.Series(found.sign_certain[place]),
    )
    return interactions.join(ranges, on=KEY, how="left", maintain_order="left")
