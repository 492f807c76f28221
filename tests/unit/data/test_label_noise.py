import polars as pl
import pytest
from bad_input import refused

from sft_interactions.data.label_noise import add_label_noise

ROWS = pl.DataFrame(
    {
        "sample_id": [f"{i:016x}" for i in range(40)],
        "prompt": [f"prompt {i}" for i in range(40)],
        "target": [("positive", "negative", "neutral")[i % 3] for i in range(40)],
    }
)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_so_many_rows_get_another_response(share):
    noisy = add_label_noise(ROWS, share, seed=1)
    assert noisy.drop("target").equals(ROWS.drop("target"))
    assert (noisy["target"] != ROWS["target"]).sum() == round(share * len(ROWS))
    assert set(noisy["target"]) <= set(ROWS["target"])


def test_the_draw_does_not_depend_on_the_order_of_rows():
    noisy = add_label_noise(ROWS, 0.5, seed=1)
    assert add_label_noise(ROWS.reverse(), 0.5, seed=1).reverse().equals(noisy)


def test_another_seed_draws_other_rows():
    assert not add_label_noise(ROWS, 0.5, seed=2).equals(add_label_noise(ROWS, 0.5, seed=1))


def test_responses_that_occur_once_are_exchanged_too():
    rows = ROWS.with_columns(target=pl.col("prompt"))
    noisy = add_label_noise(rows, 0.3, seed=0)
    assert (noisy["target"] != rows["target"]).sum() == 12


@pytest.mark.bad_input(of="data")
def test_a_share_of_less_than_half_a_row_is_refused():
    with refused("label_noise: 0.01 of 40 training rows is less than half a row, .*; raise it"):
        add_label_noise(ROWS, 0.01, seed=0)
    assert (add_label_noise(ROWS, 0.013, seed=0)["target"] != ROWS["target"]).sum() == 1


@pytest.mark.bad_input(of="data")
def test_one_response_has_no_other():
    with refused("all responses are the same"):
        add_label_noise(ROWS.with_columns(target=pl.lit("yes")), 0.3, seed=0)
