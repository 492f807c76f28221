import json

import polars as pl
import pytest
from random_runs import make_run, overfitting

from sft_interactions import tables
from sft_interactions.analysis.runs import (
    Checkpoint,
    best_checkpoints,
    checkpoints_by_run,
    compared_checkpoints,
    concat_runs,
    overall_metrics,
    read_runs,
)


@pytest.fixture
def run():
    return make_run(steps=(0, 5, 20, 300), n=4)


def test_runs_are_read_from_their_files(run, tmp_path):
    metrics, stages = tmp_path / "metrics.parquet", tmp_path / "stages.json"
    tables.write(run.metrics, metrics, tables.METRICS, created_by="test", inputs_digest="0")
    stages.write_text(json.dumps(run.stages))
    (found,) = read_runs([run.label], [metrics], [stages])
    assert (found.label, found.stages) == (run.label, run.stages)
    assert found.metrics.equals(run.metrics)


def test_a_run_knows_its_checkpoints_players_and_samples(run):
    assert run.steps == [0, 5, 20, 300]
    assert run.orders == [1, 2, 3, 4]
    assert (run.n_players, run.n_samples, run.boundary) == (4, 9, 1)
    assert not run.has_churn_floor


@pytest.mark.parametrize(
    ("after", "start"), [(None, None), (20, 20), (0, 5), (5, 5), (300, None), (1000, None)]
)
def test_overfitting_starts_after_the_lowest_loss_but_not_in_the_denoising_stage(run, after, start):
    assert overfitting(run, after).overfits_from == start


def test_overall_metrics_leave_out_orders_kinds_and_what_does_not_apply(run):
    of_and = run.metrics.with_columns(kind=pl.lit("and"))
    found = overall_metrics(pl.concat([run.metrics, of_and]))
    assert found.columns == [
        "step", "class", "metric", "value", "ci_low", "ci_high", "n_samples",
    ]  # fmt: skip
    assert found["value"].null_count() == 0
    assert not found.is_duplicated().any()
    assert set(found.filter(step=0)["class"]) == {"preserved"}


def test_runs_are_put_under_one_another():
    frames = [pl.DataFrame({"value": [1, 2]}), pl.DataFrame({"value": [3]})]
    rows = concat_runs(["a", "b"], frames).rows()
    assert rows == [("a", 1), ("a", 2), ("b", 3)]


def test_checkpoints_get_the_files_of_their_run_and_step():
    first, second = checkpoints_by_run(
        ["A", "B"],
        [[0, 4], [0]],
        interactions=["a0", "a4", "b0"],
        solve=["a0.solve", "a4.solve", "b0.solve"],
    )
    assert first == {
        0: Checkpoint("A", 0, {"interactions": "a0", "solve": "a0.solve"}),
        4: Checkpoint("A", 4, {"interactions": "a4", "solve": "a4.solve"}),
    }
    assert second == {0: Checkpoint("B", 0, {"interactions": "b0", "solve": "b0.solve"})}


def test_a_file_too_few_is_an_error():
    with pytest.raises(ValueError, match="shorter"):
        checkpoints_by_run(["A"], [[0, 4]], interactions=["a0"])


def test_the_best_checkpoint_is_the_one_that_the_stages_name(tmp_path):
    runs = checkpoints_by_run(
        ["A", "B"], [[0, 4, 9], [0, 9]], log_odds=["a0", "a4", "a9", "b0", "b9"]
    )
    stages = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, step in zip(stages, (4, 9), strict=True):
        path.write_text(json.dumps({"boundary_step": 0, "best_checkpoint_step": step}))
    best = best_checkpoints(runs, stages)
    assert [found.tables["log_odds"] for found in best] == ["a4", "b9"]
    assert [found.title for found in best] == ["A, t = 4", "B, t = 9"]
    assert compared_checkpoints(runs, stages) == best
    alone = compared_checkpoints(runs[:1], stages[:1])
    assert [found.title for found in alone] == ["A, before SFT", "A, t = 4"]
