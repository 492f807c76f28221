import math

import polars as pl
import pytest
import yaml
from jsonschema import Draft202012Validator
from polars.testing import assert_frame_equal

from sft_interactions import config as study_config
from sft_interactions import tables
from sft_interactions.analysis import salience
from sft_interactions.analysis.salience import (
    RULES,
    Rule,
    read_salient,
    select_by_first,
    select_salient,
)

ROWS = [
    ("a", "bias", 0, 0, 99.0),
    ("a", "and", 1, 1, -4.0),
    ("a", "and", 3, 2, 2.0),
    ("a", "or", 3, 2, -2.0),
    ("a", "or", 6, 2, 1.0),
    ("b", "bias", 0, 0, -99.0),
    ("b", "and", 2, 1, 0.5),
    ("b", "or", 7, 3, -0.1),
]
INTERACTIONS = pl.DataFrame(ROWS, schema=tables.INTERACTIONS.columns, orient="row")
SHARED = INTERACTIONS.with_columns(
    share=pl.Series([None, 1.0, 0.8, 0.79, 1.0, None, 0.5, 1.0], dtype=pl.Float64)
)
SOLVE = pl.DataFrame(
    {
        "sample_id": ["b", "a"],
        "n_players": [3, 3],
        "l1": [1.0, 1.0],
        "l1_lower_bound": [1.0, 1.0],
        "l1_plain": [1.0, 1.0],
        "log_odds_difference": [0.2, 10.0],
        "log_odds_range": [1.0, 12.0],
        "noise_bound": [0.0, 0.0],
        "max_residual": [0.0, 0.0],
        "iterations": [1, 1],
    }
)
A1, A3, AO3, AO6 = ("a", "and", 1), ("a", "and", 3), ("a", "or", 3), ("a", "or", 6)
B2, BO7 = ("b", "and", 2), ("b", "or", 7)


def keys(frame):
    return set(frame.select("sample_id", "kind", "pattern").rows())


@pytest.mark.parametrize(
    ("rule", "threshold", "kept"),
    [
        ("max_effect", 0.5, {A1, A3, AO3, B2}),  # an effect on the threshold is kept
        ("max_effect", 0.51, {A1, B2}),
        ("max_effect", 0.2, {A1, A3, AO3, AO6, B2, BO7}),
        ("max_effect", 0.25, {A1, A3, AO3, AO6, B2}),
        ("log_odds_difference", 0.1, {A1, A3, AO3, AO6, B2, BO7}),
        ("log_odds_difference", 0.2, {A1, A3, AO3, B2, BO7}),
        ("log_odds_difference", 0.3, {A1, B2, BO7}),
        ("absolute", 0.5, {A1, A3, AO3, AO6, B2}),
        ("absolute", 5.0, set()),
        ("top_k", 1, {A1, B2}),
        ("top_k", 2, {A1, A3, B2, BO7}),  # a tie of AND and OR: AND first
        ("top_k", 50, {A1, A3, AO3, AO6, B2, BO7}),
    ],
)
def test_rules(rule, threshold, kept):
    for order in (INTERACTIONS, INTERACTIONS.reverse()):
        assert keys(select_salient(order, SOLVE, rule, threshold)) == kept


@pytest.mark.parametrize(
    ("threshold", "share", "kept"),
    [
        (0.2, 0.8, {A1, A3, AO6, BO7}),  # a share on the threshold is kept
        (0.2, 0.79, {A1, A3, AO3, AO6, BO7}),
        (0.3, 0.8, {A1, A3}),
        (0.3, 0.5, {A1, A3, AO3, B2}),
        (0.2, 1.0, {A1, AO6, BO7}),
    ],
)
def test_stable(threshold, share, kept):
    for frame in (SHARED, SHARED.reverse().lazy()):
        found = select_salient(frame, SOLVE, "stable", threshold, share)
        assert keys(found) == kept
        assert found.columns == INTERACTIONS.columns
    assert keys(select_salient(SHARED, SOLVE, "max_effect", 0.2)) == {A1, A3, AO3, AO6, B2, BO7}


def test_stable_needs_shares():
    with pytest.raises(ValueError, match="interactions: column share is missing, which the sal"):
        select_salient(INTERACTIONS, SOLVE, "stable", 0.1)
    unknown = SHARED.with_columns(share=pl.lit(None, pl.Float64))
    with pytest.raises(ValueError, match="interactions: column share is null, which the salience"):
        select_salient(unknown, SOLVE, "stable", 0.1)
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match="stable_share is a share of extractions, above 0"):
            select_salient(SHARED, SOLVE, "stable", 0.1, share)


def test_ties_of_one_kind_go_by_pattern():
    rows = [("a", "and", p, 2, effect) for p, effect in ((6, 1.0), (3, -1.0), (5, 1.0))]
    frame = pl.DataFrame(rows, schema=tables.INTERACTIONS.columns, orient="row")
    assert keys(select_salient(frame, SOLVE, "top_k", 2)) == {A3, ("a", "and", 5)}


def test_unknown_rule():
    with pytest.raises(ValueError, match="unknown salience rule 'best'; choose from max_effect, "):
        select_salient(INTERACTIONS, SOLVE, "best", 1)


@pytest.mark.parametrize(
    ("rule", "threshold", "message"),
    [
        ("max_effect", 1.5, "max_effect is a share .*, above 0 and at most 1, not 1.5"),
        ("log_odds_difference", 0, "above 0, not 0"),
        ("top_k", 2.5, "a number of interactions a sample, a whole number above 0, not 2.5"),
        ("absolute", -1.0, "absolute is in log-odds, above 0, not -1"),
        *((rule, math.nan, f"{rule} is .* above 0.*, not nan") for rule in RULES),
        *((rule, math.inf, f"{rule} is .* above 0.*, not inf") for rule in RULES),
    ],
)
def test_a_threshold_that_a_rule_does_not_allow(rule, threshold, message):
    with pytest.raises(ValueError, match=message):
        select_salient(INTERACTIONS, SOLVE, rule, threshold)


@pytest.mark.parametrize("rule", RULES)
def test_a_solve_table_of_other_samples_is_refused(rule):
    for frame in (SHARED, SHARED.lazy()):
        message = "solve: sample b of the interactions is missing; give the two tables of the same"
        with pytest.raises(ValueError, match=message):
            select_salient(frame, SOLVE.filter(sample_id="a"), rule, 1)
        message = "solve: sample a is there twice; give the rows of one checkpoint"
        with pytest.raises(ValueError, match=message):
            select_salient(frame, pl.concat([SOLVE, SOLVE.filter(sample_id="a")]), rule, 1)


def test_a_sample_without_interactions_is_in_the_solve_table_alone():
    # Of b the bias is left, of a nothing.
    rows = INTERACTIONS.filter(sample_id="b", kind="bias")
    assert select_salient(rows, SOLVE, "log_odds_difference", 0.1).is_empty()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("effect", [math.nan, math.inf, -math.inf, None])
def test_an_effect_that_is_not_finite_is_refused(rule, effect):
    is_chosen = (pl.col("sample_id") == "b") & (pl.col("kind") == "or")
    broken = pl.when(is_chosen).then(pl.lit(effect, pl.Float64)).otherwise("effect")
    rows = SHARED.with_columns(effect=broken)
    message = "interactions: sample b has an effect that is not finite; extract it anew"
    for frame in (rows, rows.lazy()):
        with pytest.raises(ValueError, match=message):
            select_salient(frame, SOLVE, rule, 1)


def test_a_rule_of_ones_own(monkeypatch):
    def weakest(effects, solve, threshold):
        assert solve is SOLVE
        size = pl.col("effect").abs()
        return effects.filter(size <= threshold)

    monkeypatch.setitem(salience.RULES, "weakest", Rule("the weakest", "in log-odds", weakest))
    assert keys(select_salient(INTERACTIONS, SOLVE, "weakest", 1.0)) == {AO6, B2, BO7}


SCHEMA = yaml.safe_load(study_config.SCHEMA_PATH.read_text())


CHOICES = {
    "salience": SCHEMA["properties"]["salience"],
    "sensitivity": SCHEMA["properties"]["sensitivity"]["properties"]["salience"]["items"],
}


def words(name):
    """A text of the config schema, on one line."""
    return " ".join(SCHEMA["$defs"][name]["description"].split())


def test_config_schema_has_the_rules_and_their_descriptions():
    assert SCHEMA["$defs"]["salience_rule"]["enum"] == list(RULES)
    varied = CHOICES["sensitivity"]["properties"]["rule"]["enum"]
    assert varied == [name for name, rule in RULES.items() if rule.starts_from is None]
    share = CHOICES["salience"]["properties"]["stable_share"]
    assert share["default"] == salience.STABLE_SHARE
    for name, rule in RULES.items():
        assert f" {name}: {rule.description}." in words("salience_rule")
        assert f" {name}: {rule.threshold}." in words("salience_threshold")


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("rule", RULES)
def test_config_schema_allows_the_thresholds_that_the_rule_allows(choice, rule):
    validator = Draft202012Validator({**choice, "$defs": SCHEMA["$defs"]})
    for threshold in (-1.0, 0, 0.5, 1, 1.5, 50):
        try:
            select_salient(SHARED, SOLVE, rule, threshold)
            is_allowed = choice is CHOICES["salience"] or RULES[rule].starts_from is None
        except ValueError:
            is_allowed = False
        assert validator.is_valid({"rule": rule, "threshold": threshold}) == is_allowed, threshold


def test_one_threshold_for_all_checkpoints_is_that_of_the_first():
    grown = INTERACTIONS.with_columns(effect=pl.col("effect") * 10)
    # At step 9 an effect of ten times the size has to reach the same -4.0 / 2 and 0.5 / 2, and a new sample
    # has no threshold.
    new = INTERACTIONS.filter(sample_id="b").with_columns(sample_id=pl.lit("c"))
    checkpoints = {9: pl.concat([grown, new]), 4: INTERACTIONS}
    found = select_by_first(checkpoints, 0.5)
    assert_frame_equal(found[4], select_salient(INTERACTIONS, SOLVE, "max_effect", 0.5))
    assert keys(found[9]) == {A1, A3, AO3, AO6, B2, BO7}
    assert found[9].schema == found[4].schema
    assert keys(select_salient(grown, SOLVE, "max_effect", 0.5)) == {A1, A3, AO3, B2}


def test_columns_are_kept_and_kind_has_no_bias():
    salient = select_salient(INTERACTIONS, SOLVE, "log_odds_difference", 0.1)
    assert salient.columns == INTERACTIONS.columns
    assert salient.schema["kind"] == tables.KIND


def test_from_files(tmp_path):
    paths = tmp_path / "step-0.parquet", tmp_path / "step-0.solve.parquet"
    kinds = (tables.INTERACTIONS, tables.SOLVE)
    for frame, path, table in zip((INTERACTIONS, SOLVE), paths, kinds, strict=True):
        tables.write(frame, path, table, created_by="test", inputs_digest="0")
    for rule, threshold in (("max_effect", 0.2), ("log_odds_difference", 0.2), ("top_k", 2)):
        in_memory = select_salient(INTERACTIONS.reverse(), SOLVE, rule, threshold)
        found = read_salient(*paths, {"rule": rule, "threshold": threshold})
        assert found.equals(in_memory)
        assert found.equals(found.sort("sample_id", "kind", "pattern"))


def test_shares_from_files(tmp_path):
    paths = tmp_path / "step-0.parquet", tmp_path / "step-0.solve.parquet"
    for frame, path, table in zip(
        (SHARED, SOLVE), paths, (tables.SELECTION, tables.SOLVE), strict=True
    ):
        tables.write(frame, path, table, created_by="test", inputs_digest="0")
    choice = {"rule": "stable", "threshold": 0.2, "stable_share": 0.9}
    assert keys(read_salient(*paths, choice)) == {A1, AO6, BO7}
    choice = {"rule": "max_effect", "threshold": 0.2, "stable_share": 0.9}
    expected = select_salient(INTERACTIONS, SOLVE, "max_effect", 0.2)
    assert read_salient(*paths, choice).equals(expected)
    tables.write(INTERACTIONS, paths[0], tables.INTERACTIONS, created_by="test", inputs_digest="0")
    with pytest.raises(ValueError, match=r"step-0\.parquet: column share is missing; rebuild this"):
        read_salient(*paths, {"rule": "stable", "threshold": 0.2})
