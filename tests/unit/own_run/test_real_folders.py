"""Folders that transformers' Trainer writes, read and held against its own batches and the live model.

tests/trainers/run.py does the same with other trainers, which are no requirements of the tests.
"""

import json

import pytest
from own_run_checks import compare, read
from trainers import run, train

CASES = {name: case for name, case in run.CASES.items() if case.tool == "transformers"}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")  # of the training
def test_prompts_and_log_odds_are_those_of_the_training(tmp_path, case):
    folder = tmp_path / "case"
    run.prepare(folder, case, None)
    keeper = train.Keeper()
    train.by_transformers(folder, json.loads((folder / "case.json").read_text()), keeper)
    seen = {"rows": keeper.rows, "log_odds": {str(k): v for k, v in keeper.log_odds.items()}}
    assert len(seen["log_odds"]) == 2
    given = {key: value.format(folder=folder) for key, value in case.given.items()}
    n, largest = compare(read(folder, **given), seen)
    assert n == len(seen["rows"]) == 8
    assert largest < run.TOLERANCE
