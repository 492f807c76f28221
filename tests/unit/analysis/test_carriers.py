from dataclasses import replace

import pytest
from random_runs import lookup, make_run

from sft_interactions.analysis.carriers import GROUPS, METRICS, tabulate, values_by_group

PLACES = [(300, "removed"), (300, "preserved"), (5, "emerged"), (300, "emerged")]


@pytest.fixture
def run():
    return make_run()  # the denoising stage ends at its second step, 5; the last step is 300


def test_values_are_those_of_the_checkpoint_of_each_group(run):
    for metric in METRICS:
        value, low, high = values_by_group(run, metric)
        expected = [lookup(run, step, label, metric) for step, label in PLACES]
        assert value.tolist() == expected
        assert low == pytest.approx(value - 0.1)
        assert high == pytest.approx(value + 0.2)


def test_table_has_a_row_a_metric_and_group(run):
    table = tabulate([run])
    assert table["class"].unique(maintain_order=True).to_list() == list(GROUPS)
    for metric in METRICS:
        rows = table.filter(metric=metric).select("value", "ci_low", "ci_high").rows()
        assert rows == [tuple(column) for column in values_by_group(run, metric).T.tolist()]


def test_there_is_no_second_stage_when_removals_never_end(run):
    run = replace(run, stages={**run.stages, "boundary_step": run.steps[-1]})
    late = tabulate([run]).filter(**{"class": "emerged in 2nd stage"})
    assert late["value"].null_count() == len(late) == 2
