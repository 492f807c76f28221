from pathlib import Path

import polars as pl
from random_runs import lookup, make_run

from sft_interactions.analysis.paper import compare

PAPER = pl.read_csv(Path(__file__).parents[3] / "workflow" / "resources" / "paper_values.csv")


def test_every_number_has_its_source_and_a_known_class():
    assert PAPER["source"].unique().sort().to_list() == ["figure 2", "figure 3", "figure 4"]
    assert set(PAPER["class"]) == {"preserved", "emerged", "removed"}
    assert set(PAPER["metric"]) == {"count", "gamma", "rho", "cross_entropy"}
    assert PAPER["value"].null_count() == 0
    assert (
        not PAPER.select("llm", "dataset", "stage", "step", "class", "metric").is_duplicated().any()
    )


def test_comparison_has_both_at_the_same_stage():
    run = make_run("Ours")  # boundary at its second step, 5; last step 300
    table = compare(PAPER, [run])

    def cell(metric, label, stage):
        row = table.filter(metric=metric, stage=stage, **{"class": label})
        return row["paper: Qwen2.5-7B-Instruct on GoEmotions"].item(), row["Ours"].item()

    expected = {
        ("count", "emerged", "end of denoising"): (24, 5),
        ("count", "preserved", "before SFT"): (360, 0),
        ("gamma", "preserved", "last checkpoint"): (0.73, 300),
        ("cross_entropy", "emerged", "end of denoising"): (0.45, 5),
        ("cross_entropy", "emerged", "last checkpoint"): (1.43, 300),
    }
    for (metric, label, stage), (paper, step) in expected.items():
        assert cell(metric, label, stage) == (paper, lookup(run, step, label, metric))
    assert set(table["stage"]) == {"before SFT", "end of denoising", "last checkpoint"}
