import polars as pl
import pytest

from sft_interactions import tables
from sft_interactions.analysis.salience import read_salient, select_salient

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
    with pytest.raises(ValueError, match="unknown salience rule 'best'"):
        select_salient(INTERACTIONS, SOLVE, "best", 1)


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
