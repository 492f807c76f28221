from types import SimpleNamespace

import polars as pl
import pytest
from matplotlib.figure import Figure
from random_runs import make_run, make_sensitivity
from sample_tables import STEPS, checkpoint, write_run

from sft_interactions import tables
from sft_interactions.analysis.findings import PARTS, STATEMENTS
from sft_interactions.figures.style import save
from sft_interactions.report_page.explorer import RunTables
from sft_interactions.report_page.page import FigureOnPage, RunOnPage, Study

NAME = "a-run"
SENTENCES = {
    "checkpoint": "Keep step 20: it has the lowest validation loss, 0.250 nats.",
    "learning": "It overfits after step 20: to step 300 the loss rises by 0.500 nats.",
    "interactions": "Of 3.5 interactions a prompt before SFT, 2.0 are gone by step 300.",
    "stage": "No verdict on the stages: 4 checkpoints, and 5 are needed.",
}


def run_tables(folder, label="A run"):
    """The files of the run that ``write_run`` wrote."""
    paths = [checkpoint(folder, step).tables for step in STEPS]
    names = ("analysis", "prompts", "players", "dynamics")
    return RunTables(
        NAME,
        label,
        STEPS,
        *(folder / f"{name}.parquet" for name in names),
        [one["log_odds"] for one in paths],
        [one["interactions"] for one in paths],
    )


def make_parts():
    """Every part, with an interval on each side of its threshold, across it, or none."""
    kinds = [(0.1, 0.3, "supported"), (-0.3, -0.1, "contradicted"), (-0.1, 0.1, "inconclusive")]
    rows = []
    for place, part in enumerate(PARTS):
        low, high, verdict = kinds[place % 3]
        ends = [None, None, None] if place == 5 else [(low + high) / 2, low, high]
        rows.append(
            (
                NAME,
                part.finding,
                part.name,
                part.statistic,
                f"{part.side} {part.threshold:g}",
                part.threshold,
                *(end if end is None else part.threshold + end for end in ends),
                6,
                verdict,
            )
        )
    return pl.DataFrame(rows, schema=tables.FINDING_PARTS.columns, orient="row")


def make_study(folder, label="A run", **changed):
    """A study of one run of random tables that lie in a folder."""
    save(Figure(figsize=(3, 2)), [folder / "fig1.svg"])
    (folder / "fig1.rst").write_text(
        '**A title.** Runs: {{ snakemake.params.labels | join(", ") }}.'
    )
    sensitivity = make_sensitivity().with_columns(
        statement=pl.col("finding").replace_strict(STATEMENTS)
    )
    findings = pl.DataFrame(
        {
            "run": NAME,
            "finding": list(STATEMENTS),
            "statement": list(STATEMENTS.values()),
            "verdict": ["supported", "contradicted", "inconclusive"] + ["supported"] * 2,
            "parts_supported": 1,
            "parts": 3,
        }
    )
    study = {
        "title": "A study",
        "made": [("page made on", "2026-01-01")],
        "runs": [
            RunOnPage(
                run_tables(folder, label),
                {"model": "path:models/x", "label": label},
                make_run(steps=STEPS).metrics,
                sensitivity,
                {0: 0.75, 20: 0.25, 400: 0.5},
                "validation loss",
            )
        ],
        "verdict": pl.DataFrame({"run": [NAME], "kept_step": [20], **SENTENCES}),
        "findings": findings,
        "parts": make_parts(),
        "protocol": findings,
        "turnover": pl.DataFrame(
            [(NAME, 0, 5, 4.0, 1.0, 3.0, 2.5, None, 0.625, 0.5, 0.75)],
            schema=tables.TURNOVER.columns,
            orient="row",
        ),
        "figures": [
            FigureOnPage("fig1", folder / "fig1.svg", folder / "fig1.rst", {"labels": [label]})
        ],
        "files": ["tables/findings.csv"],
        "config": "seed: 0\n",
        "costs": [],
        "warned": [],
        "digests": pl.DataFrame(
            schema=dict.fromkeys(("file", "rule", "code", "digest"), pl.String)
        ),
        "skipped": [],
    }
    return Study(**{**study, **changed})


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Tables of a run, and a figure of it."""
    root = tmp_path_factory.mktemp("page")
    write_run(root)
    return root


@pytest.fixture(scope="session")
def pages():
    """What tests of the page share."""
    return SimpleNamespace(make_study=make_study, sentences=SENTENCES)
