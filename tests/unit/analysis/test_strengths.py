import polars as pl
import pytest

from sft_interactions import tables
from sft_interactions.analysis.strengths import strengths_by_order

ROWS = [  # sample, step, class, pattern, order, effect
    ("a", 0, "preserved", 1, 1, 2.0),
    ("a", 0, "preserved", 3, 2, -4.0),
    ("b", 0, "preserved", 3, 2, 1.0),
    ("a", 5, "preserved", 1, 1, 3.0),
    ("a", 5, "preserved", 3, 2, -1.0),
    ("b", 5, "removed", 3, 2, 1.0),
    ("a", 9, "preserved", 1, 1, 1.0),
    ("a", 9, "removed", 3, 2, -4.0),
    ("b", 9, "removed", 3, 2, 1.0),
    ("b", 9, "emerged", 2, 1, 6.0),
]


@pytest.fixture
def dynamics():
    columns = ["sample_id", "step", "class", "pattern", "order", "effect"]
    rows = pl.DataFrame(ROWS, schema=columns, orient="row").with_columns(kind=pl.lit("and"))
    return rows.with_columns(
        pl.lit(None).alias("generalizable"), pl.lit(None).alias("chance")
    ).cast(dict(tables.DYNAMICS.columns))


def test_strengths_are_means_over_samples_by_group_sign_and_order(dynamics):
    found = strengths_by_order(dynamics, [0, 9], [1, 2], 2)
    expected = {
        ("kept", "positive"): [[1, 0], [0.5, 0]],
        ("kept", "negative"): [[0, 0], [0, 0]],
        ("lost", "positive"): [[0, 0.5], [0, 0]],
        ("lost", "negative"): [[0, -2], [0, 0]],
        ("emerged", "positive"): [[0, 0], [3, 0]],
        ("emerged", "negative"): [[0, 0], [0, 0]],
    }
    assert {key: table.tolist() for key, table in found.items()} == expected
