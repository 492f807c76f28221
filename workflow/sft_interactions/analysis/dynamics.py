"""Preserved, emerged and removed interactions along the checkpoints of a run."""

from collections.abc import Collection, Mapping
from math import comb
from numbers import Integral

import polars as pl

from sft_interactions.tables import CLASS

PRESERVED, EMERGED, REMOVED = CLASSES = ("preserved", "emerged", "removed")
# What makes two interactions the same one.
KEY = ("sample_id", "kind", "pattern")


def classify(salient: Mapping[int, pl.DataFrame]) -> pl.DataFrame:
    """Class of every salient interaction at every checkpoint (arXiv 2605.17967, section 3).

    With Omega_t the salient set at checkpoint t, for AND and OR apart: preserved P_0 = Omega_0 and
    P_t = P_{t-1} & Omega_t; emerged E_t = Omega_t - P_t; removed R_t = Omega_0 - Omega_t. An
    interaction that leaves and comes back is emerged, never preserved again. At the first checkpoint
    there are preserved ones only.

    Args:
        salient: step to rows (sample_id, kind, pattern, order, effect), the first step before SFT.

    Returns:
        Rows (sample_id, step, class, kind, pattern, order, effect); the effect of a removed
        interaction is the one it had at the first step.

    Raises:
        ValueError: there is no step, one is not an int, or a table has the bias or an interaction twice.
    """
    _check_steps(salient)
    for step, rows in salient.items():
        _check_salient(rows, f"salient[{step}]")
    steps = sorted(salient)
    before = salient[steps[0]]
    preserved = before
    parts = [_labelled(before, steps[0], PRESERVED)]
    for step in steps[1:]:
        now = salient[step]
        preserved = now.join(preserved, on=KEY, how="semi")
        parts += [
            _labelled(preserved, step, PRESERVED),
            _labelled(now.join(preserved, on=KEY, how="anti"), step, EMERGED),
            _labelled(before.join(now, on=KEY, how="anti"), step, REMOVED),
        ]
    return pl.concat(parts)


def _check_steps(steps: Collection[int]) -> None:
    if not steps:
        raise ValueError("salient: no step is there; give the tables of one checkpoint or more")
    for step in steps:
        # An integer of numpy is Integral, too, and its bool is not.
        if isinstance(step, bool) or not isinstance(step, Integral):
            raise ValueError(
                f"salient: the step {step!r} is of type {type(step).__name__}; give every step as an int"
            )


def _check_salient(rows: pl.DataFrame, name: str) -> None:
    bias = rows.filter(pl.col("kind").cast(pl.String) == "bias")
    if len(bias):
        raise ValueError(
            f"{name}: sample {bias['sample_id'][0]} has a row of the bias, which is no interaction; give "
            "what select_salient returns"
        )
    repeated = rows.select(KEY).is_duplicated()
    if repeated.any():
        sample, kind, pattern = rows.filter(repeated).select(KEY).row(0)
        raise ValueError(
            f"{name}: sample {sample} has the {kind.upper()} interaction of pattern {pattern} twice; give "
            "every interaction once"
        )


def check_orders(rows: pl.DataFrame, n_players: int, name: str) -> None:
    """Check that no interaction has more players than a prompt.

    Args:
        rows: rows with sample_id and order.
        n_players: number of players of a prompt.
        name: what the rows are, for the message.

    Raises:
        ValueError: one has.
    """
    above = rows.filter(pl.col("order") > n_players)
    if len(above):
        sample, order = above.select("sample_id", "order").row(0)
        raise ValueError(
            f"{name}: sample {sample} has an interaction of order {order}, n_players is {n_players}; give "
            "the number of players of these prompts"
        )


def _labelled(rows: pl.DataFrame, step: int, label: str) -> pl.DataFrame:
    return rows.select(
        "sample_id",
        pl.lit(step, pl.Int64).alias("step"),
        pl.lit(label).cast(CLASS).alias("class"),
        "kind",
        "pattern",
        "order",
        "effect",
    )


def salient_at(rows: pl.DataFrame, step: int) -> pl.DataFrame:
    """What was salient at a checkpoint, out of what :func:`classify` returns; in no order."""
    present = rows.filter(pl.col("step") == step, pl.col("class") != REMOVED)
    return present.drop("step", "class")


def add_generalizability(
    rows: pl.DataFrame, reference: pl.DataFrame | None, n_players: int
) -> pl.DataFrame:
    """Add whether an interaction is salient in the reference model too, and its chance to be so.

    ``generalizable`` is G_T of Eq. 7: the pattern is salient in the reference model with the same kind
    and the same sign. ``chance`` is the expectation of G_T if the reference model's patterns were drawn
    at random with its own counts by sample, kind, sign and order. Both are null without a reference.

    Args:
        rows: what :func:`classify` returns; the two columns are replaced if they are there.
        reference: salient interactions of the reference model, rows (sample_id, kind, pattern, order,
            effect), or None.
        n_players: number of players of a prompt.

    Returns:
        ``rows`` with the columns generalizable (boolean) and chance (float64).

    Raises:
        ValueError: with a reference, an order is above ``n_players``, or the reference has the bias or an
            interaction twice.
    """
    rows = rows.drop("generalizable", "chance", strict=False)
    if reference is None:
        return rows.with_columns(
            pl.lit(None, pl.Boolean).alias("generalizable"),
            pl.lit(None, pl.Float64).alias("chance"),
        )
    check_orders(rows, n_players, "rows")
    check_orders(reference, n_players, "reference")
    _check_salient(reference, "reference")
    sign = (pl.col("effect") > 0).alias("positive")
    reference = reference.with_columns(sign)
    patterns = pl.DataFrame(
        {
            "order": range(1, n_players + 1),
            "n": [comb(n_players, k) for k in range(1, n_players + 1)],
        },
        schema={"order": pl.UInt8, "n": pl.Int64},
    )
    group = ["sample_id", "kind", "positive", "order"]
    chance = (
        reference.group_by(group)
        .len("hits")
        .join(patterns, on="order")
        .select(*group, (pl.col("hits") / pl.col("n")).alias("chance"))
    )
    hits = reference.select(*KEY, "positive", pl.lit(True).alias("generalizable"))
    return (
        rows.with_columns(sign)
        .join(hits, on=[*KEY, "positive"], how="left", maintain_order="left")
        .join(chance, on=group, how="left", maintain_order="left")
        .with_columns(pl.col("generalizable").fill_null(False), pl.col("chance").fill_null(0.0))
        .drop("positive")
    )


def split_draws(unchanged: pl.DataFrame, draws: int) -> list[pl.DataFrame]:
    """The rows of each draw of the churn floor; a draw in which nothing is salient has none.

    Args:
        unchanged: rows of the ``unchanged`` table.
        draws: how many draws there are.

    Returns:
        Rows of the ``dynamics`` table, once for each draw.

    Raises:
        ValueError: the table has a draw beyond these.
    """
    others = sorted(set(unchanged["draw"]) - set(range(draws)))
    if others:
        raise ValueError(
            f"unchanged: draw {others[0]} is there, stability.draws is {draws}; rebuild the table"
        )
    return [unchanged.filter(draw=draw).drop("draw") for draw in range(draws)]
