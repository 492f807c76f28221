"""The figure of the findings under other choices."""

import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from random_runs import texts

from sft_interactions import tables
from sft_interactions.analysis.findings import STATEMENTS
from sft_interactions.analysis.sensitivity import Choice, choices
from sft_interactions.figures import survival
from sft_interactions.figures.style import save

VERDICTS = tables.VERDICT.categories.to_list()


def make_table(names):
    """``sensitivity`` table in which verdicts take turns."""
    records = [
        {
            "position": position,
            "choice": name,
            "boundary_step": 2,
            "finding": finding,
            "statement": statement,
            "part": f"{finding}.1 part",
            "statistic": "count",
            "claim": "> 0",
            "threshold": 0.0,
            "value": 0.5,
            "ci_low": None,
            "ci_high": None,
            "verdict": VERDICTS[(position + finding) % len(VERDICTS)],
            "parts_supported": finding - 1,
            "parts_contradicted": 0,
            "parts": finding,
        }
        for position, name in enumerate(names)
        for finding, statement in STATEMENTS.items()
    ]
    return tables.check(pl.DataFrame(records), tables.SENSITIVITY, "test")


@pytest.fixture(scope="module")
def table():
    return make_table(["own", "other"])


def test_figure_has_a_cell_for_every_verdict(table, tmp_path):
    runs = {"A run": table, "Another run": table.head(5)}
    figure = survival.draw(runs, level=0.95)
    for axes, rows in zip(figure.axes, runs.values(), strict=True):
        expected = {f"{r['choice']}:{r['finding']}:{r['verdict']}" for r in rows.to_dicts()}
        assert {patch.get_gid() for patch in axes.patches} == expected
        for row in rows.to_dicts():
            mark = survival.VERDICTS[row["verdict"]][2]
            assert f"{mark} {row['parts_supported']}/{row['parts']}" in texts(figure)
    save(figure, [tmp_path / "a.svg"])
    save(survival.draw(runs, level=0.95), [tmp_path / "b.svg"])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_names_of_choices_fit_beside_the_figure():
    own = Choice({"rule": "max_effect", "threshold": 0.05}, 0.04)
    kinds = ("token", "mean", "zero", "learned")
    names = choices(own, [], [], [], kinds, has_reference=True)
    figure = survival.draw({"A run": make_table(names)}, level=0.95)
    canvas = FigureCanvasAgg(figure)
    for label in figure.axes[0].get_yticklabels():
        assert label.get_window_extent(canvas.get_renderer()).x0 >= 0, label.get_text()
