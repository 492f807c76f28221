from random_runs import make_run

from sft_interactions.figures import carriers as fig4


def test_class_prediction_has_the_bars_of_figure_4():
    run = make_run()
    table = fig4.tabulate([run])
    assert table["class"].unique(maintain_order=True).to_list() == [
        "removed",
        "preserved",
        "emerged in 1st stage",
        "emerged in 2nd stage",
    ]
    for metric in fig4.ROWS:
        rows = table.filter(metric=metric).select("value", "ci_low", "ci_high").rows()
        assert rows == [tuple(column) for column in fig4.bar_values(run, metric).T.tolist()]


def test_class_prediction_is_empty_where_a_stage_is_missing():
    run = make_run()
    run.stages["boundary_step"] = run.steps[-1]
    late = fig4.tabulate([run]).filter(**{"class": "emerged in 2nd stage"})
    assert late["value"].null_count() == len(late) == 2
