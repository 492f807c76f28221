import polars as pl
import pytest
import yaml
from jsonschema import Draft202012Validator

from sft_interactions import config as study_config
from sft_interactions import tables
from sft_interactions.analysis import salience
from sft_interactions.analysis.salience import RULES, Rule, read_salient, select_salient

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
    ],
)
def test_a_threshold_that_a_rule_does_not_allow(rule, threshold, message):
    with pytest.raises(ValueError, match=message):
        select_salient(INTERACTIONS, SOLVE, rule, threshold)


def test_a_rule_of_ones_own(monkeypatch):
    def weakest(effects, solve, threshold):
        assert solve is SOLVE
        size = pl.col("effect").abs()
        return effects.filter(size <= threshold)

    monkeypatch.setitem(salience.RULES, "weakest", Rule("the weakest", "in log-odds", weakest))
    assert keys(select_salient(INTERACTIONS, SOLVE, "weakest", 1.0)) == {AO6, B2, BO7}


SCHEMA = yaml.safe_load(study_config.SCHEMA_PATH.read_text())


def words(name):
    """A text of the config schema, on one line."""
    return " ".join(SCHEMA["$defs"][name]["description"].split())


def test_config_schema_has_the_rules_and_their_descriptions():
    assert SCHEMA["$defs"]["salience_rule"]["enum"] == list(RULES)
    for name, rule in RULES.items():
        assert f" {name}: {rule.description}." in words("salience_rule")
        assert f" {name}: {rule.threshold}." in words("salience_threshold")


CHOICES = {
    "salience": SCHEMA["properties"]["salience"],
    "sensitivity": SCHEMA["properties"]["sensitivity"]["properties"]["salience"]["items"],
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("rule", RULES)
def test_config_schema_allows_the_thresholds_that_the_rule_allows(choice, rule):
    validator = Draft202012Validator({**choice, "$defs": SCHEMA["$defs"]})
    for threshold in (-1.0, 0, 0.5, 1, 1.5, 50):
        try:
            select_salient(INTERACTIONS, SOLVE, rule, threshold)
            is_allowed = True
        except ValueError:
            is_allowed = False
        assert validator.is_valid({"rule": rule, "threshold": threshold}) == is_allowed, threshold


def test_columns_are_kept_and_kind_has_no_bias():
    salient = select_salient(INTERACTIONS, SOLVE, "log_odds_difference", 0.1)
    assert salient.columns == INTERACTIONS.columns
    assert salient.schema["kind"] == tables.KIND


def test_from_files(tmp_path):
    paths = tmp_path / "step-0.parquet", tmp_path / "step-0.solve.parquet"
    kinds = (tables.INTERACTIONS, tables.SOLVE)
    for frame, path, table in zip((INTERACTIONS, SOLVE), paths, kinds, strict=True):
        tables.write(frame, path, table, created_by="test", config_hash="0")
    for rule, threshold in (("max_effect", 0.2), ("log_odds_difference", 0.2), ("top_k", 2)):
        in_memory = select_salient(INTERACTIONS.reverse(), SOLVE, rule, threshold)
        found = read_salient(*paths, {"rule": rule, "threshold": threshold})
        assert found.equals(in_memory)
        assert found.equals(found.sort("sample_id", "kind", "pattern"))
