"""The strongest interactions of every sample, in words."""

from collections.abc import Sequence

import polars as pl

from sft_interactions.analysis.runs import Checkpoint
from sft_interactions.analysis.salience import Salience, read_salient


def tabulate(
    checkpoints: Sequence[Checkpoint],
    dynamics: Sequence[pl.DataFrame],
    players: Sequence[pl.DataFrame],
    prompts: Sequence[pl.DataFrame],
    salience: Salience,
    most: int,
) -> pl.DataFrame:
    """The strongest salient interactions of every sample of some runs.

    Args:
        checkpoints: one of each run, with its ``interactions`` and ``solve`` table.
        dynamics: rows of the ``dynamics`` table of each run.
        players: rows of its ``players`` table.
        prompts: rows of its ``prompts`` table.
        salience: rule and threshold of :func:`~sft_interactions.analysis.salience.select_salient`.
        most: interactions of a sample.

    Returns:
        Rows (run, step, sample_id, place, effect, in_words, class), the strongest first; effects in
        log-odds, ``place`` from 1, ``class`` preserved or emerged.

    Raises:
        ValueError: an interaction is in no class, so that the tables do not belong together.
    """
    parts = []
    for checkpoint, classes, words, targets in zip(
        checkpoints, dynamics, players, prompts, strict=True
    ):
        rows = _strongest(checkpoint, salience, most)
        step = pl.lit(checkpoint.step, pl.Int64).alias("step")
        here = classes.filter(pl.col("class") != "removed", step=checkpoint.step)
        here = here.select("sample_id", "kind", "pattern", pl.col("class").cast(pl.String))
        rows = rows.join(
            here, on=["sample_id", "kind", "pattern"], how="left", maintain_order="left"
        )
        if rows["class"].null_count():
            raise ValueError(
                f"{checkpoint.tables['interactions']}: its interactions are not those of the run's "
                "dynamics; delete both tables and run snakemake again"
            )
        told = _tell(rows, words, targets)
        run = pl.lit(checkpoint.label).alias("run")
        parts.append(
            rows.with_columns(told).select(
                run, step, "sample_id", "place", "effect", "in_words", "class"
            )
        )
    return pl.concat(parts)


def _strongest(checkpoint: Checkpoint, salience: Salience, most: int) -> pl.DataFrame:
    """The strongest rows of every sample with their ``place``; ties by kind and pattern."""
    salient = read_salient(checkpoint.tables["interactions"], checkpoint.tables["solve"], salience)
    place = pl.int_range(1, pl.len() + 1).over("sample_id").alias("place")
    return (
        salient.sort("sample_id", -pl.col("effect").abs(), "kind", "pattern")
        .with_columns(place)
        .filter(pl.col("place") <= most)
    )


def _tell(rows: pl.DataFrame, players: pl.DataFrame, prompts: pl.DataFrame) -> pl.Series:
    words = {
        sample_id: part.sort("player")["word"].to_list()
        for (sample_id,), part in players.partition_by("sample_id", as_dict=True).items()
    }
    targets = dict(prompts.select("sample_id", "target_text").iter_rows())
    told = [
        tell(
            kind,
            [word for k, word in enumerate(words[sample_id]) if pattern >> k & 1],
            effect,
            targets[sample_id],
        )
        for sample_id, kind, pattern, effect in rows.select(
            "sample_id", "kind", "pattern", "effect"
        ).iter_rows()
    ]
    return pl.Series("in_words", told, dtype=pl.String)


def tell(kind: str, words: Sequence[str], effect: float, target: str) -> str:
    """An interaction in words, such as ``“not” and “good” together speak against “positive”``.

    Args:
        kind: ``and`` or ``or``.
        words: at least one.
        effect: in log-odds.
        target: the text of the scored tokens.
    """
    quoted = [f"“{word}”" for word in words]
    side = "for" if effect > 0 else "against"
    if len(quoted) == 1:
        return f"{quoted[0]} speaks {side} “{target}”"
    last = " or " if kind == "or" else " and "
    listed = f"{', '.join(quoted[:-1])}{last}{quoted[-1]}"
    if kind == "or":
        return f"any of {listed} speaks {side} “{target}”"
    return f"{listed} together speak {side} “{target}”"
