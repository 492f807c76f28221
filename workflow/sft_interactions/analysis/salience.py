"""Which interactions count as salient (arXiv 2605.17967 leaves the threshold open).

A salience rule is an entry of :data:`RULES`. To add one, write its function, add its entry, and add its
texts and limits to the config schema (CONTRIBUTING.md); nothing else knows the rules.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import NotRequired, TypedDict

import polars as pl

from sft_interactions import tables

STABLE_SHARE = 0.8


class Salience(TypedDict):
    """A salience rule and its threshold τ, as the block ``salience`` of a config has them.

    Attributes:
        rule: name of one of :data:`RULES`.
        threshold: τ of the rule.
        stable_share: see :func:`select_salient`; rules that need no shares leave it alone.
    """

    rule: str
    threshold: float
    stable_share: NotRequired[float]


@dataclass(frozen=True)
class Rule:
    """A salience rule.

    Attributes:
        description: what is kept, in words; the config schema repeats it.
        threshold: what the threshold is, for messages. It is always above 0.
        keep: gives the rows that are kept, from the AND and OR interactions, the ``solve`` table and
            the threshold. Rows and their columns must be left as they are.
        maximum: largest threshold that is allowed; None for no limit.
        is_whole: the threshold must be a whole number.
        is_share_of_largest: what is kept is |effect| >= threshold x the sample's largest
            |effect|, so that a figure of such shares can show the threshold.
        starts_from: the rule whose salient rows are then kept by their column ``share``, which
            :class:`~sft_interactions.analysis.selection.Selector` adds; None for a rule that needs none.
    """

    description: str
    threshold: str
    keep: Callable[[pl.LazyFrame, pl.DataFrame, float], pl.LazyFrame]
    maximum: float | None = None
    is_whole: bool = False
    is_share_of_largest: bool = False
    starts_from: str | None = None


_size = pl.col("effect").abs()


def _max_effect(effects: pl.LazyFrame, _: pl.DataFrame, threshold: float) -> pl.LazyFrame:
    largest = _collect(effects.group_by("sample_id").agg(_size.max().alias("scale")))
    return _at_least(effects, largest, threshold)


def _log_odds_difference(
    effects: pl.LazyFrame, solve: pl.DataFrame, threshold: float
) -> pl.LazyFrame:
    scale = solve.select("sample_id", pl.col("log_odds_difference").alias("scale"))
    return _at_least(effects, scale, threshold)


def _absolute(effects: pl.LazyFrame, _: pl.DataFrame, threshold: float) -> pl.LazyFrame:
    return effects.filter(_size >= threshold)


def _top_k(effects: pl.LazyFrame, _: pl.DataFrame, threshold: float) -> pl.LazyFrame:
    ranked = effects.sort("sample_id", -_size, "kind", "pattern")
    return ranked.filter(pl.int_range(pl.len()).over("sample_id") < threshold)


def _at_least(effects: pl.LazyFrame, scales: pl.DataFrame, threshold: float) -> pl.LazyFrame:
    """Rows with |effect| >= threshold x ``scale`` of their sample, from rows (sample_id, scale)."""
    scaled = effects.join(scales.lazy(), on="sample_id")
    return scaled.filter(_size >= threshold * pl.col("scale")).drop("scale")


RULES: Mapping[str, Rule] = {
    "max_effect": Rule(
        "|effect| of at least threshold times the sample's largest |effect| over AND and OR at that "
        "checkpoint",
        "a share of the sample's largest |effect|",
        _max_effect,
        maximum=1.0,
        is_share_of_largest=True,
    ),
    "log_odds_difference": Rule(
        "|effect| of at least threshold times |v(N) - v(empty)|",
        "a share of |v(N) - v(empty)|",
        _log_odds_difference,
    ),
    "absolute": Rule("|effect| of at least threshold", "in log-odds", _absolute),
    "top_k": Rule(
        "the threshold largest |effect| of a sample, ties by kind and pattern",
        "a number of interactions a sample",
        _top_k,
        is_whole=True,
    ),
    "stable": Rule(
        "as max_effect, and with the same sign in at least stable_share of the perturbed extractions "
        "(stability.selection)",
        "as of max_effect",
        _max_effect,
        maximum=1.0,
        starts_from="max_effect",
    ),
}
"""Every salience rule by its name in the config."""


def without_shares(salience: Salience) -> Salience:
    """The rule that a rule starts from which needs shares, with its threshold; others as they are."""
    starts_from = RULES[salience["rule"]].starts_from
    return {"rule": starts_from or salience["rule"], "threshold": salience["threshold"]}


def select_salient(
    interactions: pl.DataFrame | pl.LazyFrame,
    solve: pl.DataFrame,
    rule: str,
    threshold: float,
    stable_share: float = STABLE_SHARE,
) -> pl.DataFrame:
    """Salient AND and OR interactions of orders >= 1, sample by sample, sorted.

    Args:
        interactions: rows of an ``interactions`` table (the bias is left out), under the rule ``stable``
            with ``share``. A lazy frame is read in pieces, so that no more than the salient rows is in
            memory; ``top_k`` reads it whole.
        solve: rows of the ``solve`` table of the same checkpoint; gives |v(N) - v(empty)|.
        rule: name of one of :data:`RULES`.
        threshold: tau of the rule.
        stable_share: least ``share`` that the rule ``stable`` keeps, above 0 and at most 1.

    Returns:
        Rows of ``interactions``, with the kinds AND and OR alone, sorted by sample_id, kind, pattern, and
        without ``share``.

    Raises:
        ValueError: unknown rule, a threshold or share that the rule does not allow, no ``share`` where the
            rule needs it, an effect that is not finite, or ``solve`` lacks a sample or has one twice.
    """
    if rule not in RULES:
        raise ValueError(f"unknown salience rule {rule!r}; choose from {', '.join(RULES)}")
    _check_threshold(rule, threshold)
    effects = interactions.lazy().filter(pl.col("kind") != "bias")
    _check_samples(effects, solve)
    salient = RULES[rule].keep(effects, solve, threshold)
    if RULES[rule].starts_from is not None:
        salient = _with_share(salient, rule, stable_share)
    kept = _collect(salient)
    if RULES[rule].starts_from is not None and kept["share"].has_nulls():
        raise ValueError(
            f"interactions: column share is null, which the salience rule {rule} needs; add it with "
            "analysis.selection"
        )
    return _in_order(kept.drop("share", strict=False))


def select_by_first(
    checkpoints: Mapping[int, pl.DataFrame], threshold: float
) -> dict[int, pl.DataFrame]:
    """Interactions above the threshold that ``max_effect`` gives each sample at the first checkpoint.

    Under ``max_effect`` itself what does not change is no longer salient once the largest effect has grown
    enough. Here every checkpoint has the same threshold.

    Args:
        checkpoints: step to rows of an ``interactions`` table. A sample without an interaction at the first
            step has no threshold, and is left out.
        threshold: τ, a share of the sample's largest |effect| at the first step.

    Returns:
        Step to rows as :func:`select_salient` gives them.
    """
    effects = {
        step: rows.lazy().filter(pl.col("kind") != "bias") for step, rows in checkpoints.items()
    }
    largest = _collect(effects[min(effects)].group_by("sample_id").agg(_size.max().alias("scale")))
    return {
        step: _in_order(_collect(_at_least(rows, largest, threshold)))
        for step, rows in effects.items()
    }


def _in_order(salient: pl.DataFrame) -> pl.DataFrame:
    kind = pl.col("kind").cast(pl.String).cast(tables.KIND)
    return salient.with_columns(kind).sort("sample_id", "kind", "pattern")


def _with_share(salient: pl.LazyFrame, rule: str, stable_share: float) -> pl.LazyFrame:
    if not 0 < stable_share <= 1:
        raise ValueError(
            f"stable_share is a share of extractions, above 0 and at most 1, not {stable_share:g}"
        )
    if "share" not in salient.collect_schema():
        raise ValueError(
            f"interactions: column share is missing, which the salience rule {rule} needs; add it with "
            "analysis.selection"
        )
    # A null is kept here, so that it shows.
    return salient.filter((pl.col("share") >= stable_share).fill_null(True))


def _check_threshold(name: str, threshold: float) -> None:
    rule = RULES[name]
    too_large = rule.maximum is not None and threshold > rule.maximum
    if (
        not isfinite(threshold)
        or threshold <= 0
        or too_large
        or (rule.is_whole and threshold != int(threshold))
    ):
        limits = "above 0" if rule.maximum is None else f"above 0 and at most {rule.maximum:g}"
        raise ValueError(
            f"the threshold of the salience rule {name} is {rule.threshold}, "
            f"{'a whole number ' if rule.is_whole else ''}{limits}, not {threshold:g}"
        )


def _check_samples(effects: pl.LazyFrame, solve: pl.DataFrame) -> None:
    twice = solve["sample_id"].filter(solve["sample_id"].is_duplicated())
    if len(twice):
        raise ValueError(
            f"solve: sample {twice[0]} is there twice; give the rows of one checkpoint"
        )
    is_finite = pl.col("effect").is_finite().fill_null(False).all().alias("is_finite")
    samples = _collect(effects.group_by("sample_id").agg(is_finite)).sort("sample_id")
    missing = samples.join(solve, on="sample_id", how="anti", maintain_order="left")
    if len(missing):
        raise ValueError(
            f"solve: sample {missing['sample_id'][0]} of the interactions is missing; give the two tables "
            "of the same checkpoint"
        )
    broken = samples.filter(~pl.col("is_finite"))
    if len(broken):
        raise ValueError(
            f"interactions: sample {broken['sample_id'][0]} has an effect that is not finite; extract it "
            "anew"
        )


def _collect(frame: pl.LazyFrame) -> pl.DataFrame:
    return frame.collect(engine="streaming")


def read_salient(
    interactions_path: str | Path, solve_path: str | Path, salience: Salience
) -> pl.DataFrame:
    """Salient interactions of one checkpoint, from its two tables.

    Args:
        interactions_path: file of the ``interactions`` table, under the rule ``stable`` of ``selection``.
        solve_path: file of the ``solve`` table.
        salience: ``rule``, ``threshold`` and ``stable_share`` of :func:`select_salient`.

    Raises:
        ValueError: as :func:`select_salient` and :func:`~sft_interactions.tables.scan`.
    """
    rule = RULES.get(salience["rule"])
    needs_share = rule is not None and rule.starts_from is not None
    return select_salient(
        tables.scan(interactions_path, tables.SELECTION if needs_share else tables.INTERACTIONS),
        tables.read(solve_path, tables.SOLVE),
        **salience,
    )
