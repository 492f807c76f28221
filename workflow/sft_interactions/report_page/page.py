"""The page of a study, put together."""

import base64
import gzip
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from sft_interactions import tables
from sft_interactions.analysis import verdicts
from sft_interactions.analysis.runs import overall_metrics
from sft_interactions.figures import intervals
from sft_interactions.figures.style import UNDATED, plain_style
from sft_interactions.report_page import captions
from sft_interactions.report_page.explorer import CLASSES, KINDS, RunTables, explore
from sft_interactions.report_page.records import Cost, Warned
from sft_interactions.report_page.wording import WORDS
from sft_interactions.verdict_table import SENTENCES

FOLDER = Path(__file__).parent
# What the browser draws plots and tables with: package of PyPI, and the file that it carries.
SCRIPTS = {
    "plotly": ("plotly", "plotly/package_data/plotly.min.js"),
    "datatables": ("itables", "itables/html/dt_bundle.js"),
}
TABLE_STYLE = ("itables", "itables/html/dt_bundle.css")

# Figures are drawn for the width of a printed page, with small letters.
PIXELS_PER_POINT = 1.75


@dataclass(frozen=True)
class FigureOnPage:
    """A figure and what it is made of.

    Attributes:
        name: of its files.
        svg: its file.
        caption: the file of its caption.
        params: of its rule, which the caption names.
    """

    name: str
    svg: str | Path
    caption: str | Path
    params: Mapping[str, Any]


@dataclass(frozen=True)
class RunOnPage:
    """A run, and the files of what the page says of it.

    Attributes:
        tables: those of the explorer.
        about: what it is, by name: model, data and so on, each a text.
        metrics: its table, like ``sensitivity``.
        losses: validation loss by step, in nats a token.
        losses_are: what the loss is called.
    """

    tables: RunTables
    about: Mapping[str, str]
    metrics: pl.DataFrame
    sensitivity: pl.DataFrame
    losses: Mapping[int, float]
    losses_are: str


@dataclass(frozen=True)
class Study:
    """A study as the page shows it.

    Attributes:
        title: of the page.
        made: (name, text) of what made it: date, versions, commit, machine.
        runs: its runs.
        verdict: rows of ``tables/verdict.csv``.
        findings: rows of the table, like ``parts``, ``protocol`` and ``turnover``.
        figures: its figures.
        files: place below the results folder of every further table, for links.
        config: as it was given, as YAML.
        costs: what its jobs took.
        warned: what its jobs warned of.
        digests: rows of :func:`~sft_interactions.report_page.records.read_digests`.
        skipped: (table, reason, number) of what was left out.
    """

    title: str
    made: Sequence[tuple[str, str]]
    runs: Sequence[RunOnPage]
    verdict: pl.DataFrame
    findings: pl.DataFrame
    parts: pl.DataFrame
    protocol: pl.DataFrame
    turnover: pl.DataFrame
    figures: Sequence[FigureOnPage]
    files: Sequence[str]
    config: str
    costs: Sequence[Cost]
    warned: Sequence[Warned]
    digests: pl.DataFrame
    skipped: Sequence[tuple[str, str, str]]


def build(study: Study) -> str:
    """The page of a study as one HTML file, which loads nothing from elsewhere.

    Raises:
        ValueError: a table or a caption cannot be understood; the message starts with its file.
    """
    explored = [explore(run.tables) for run in study.runs]
    data = {"classes": CLASSES, "kinds": KINDS, "runs": explored}
    packed = {
        "data": pack(json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)),
        **{name: _packed_script(name) for name in SCRIPTS},
    }
    script = (FOLDER / "page.js").read_text("utf-8")
    return template("page.html").render(
        study=study,
        runs=[
            _run_on_page(run, study, len(one["samples"]))
            for run, one in zip(study.runs, explored, strict=True)
        ],
        figures=[_figure_on_page(figure) for figure in study.figures],
        packed=packed,
        # Our own files and a library's, none of which data reach.
        style=Markup(_carried(*TABLE_STYLE) + (FOLDER / "page.css").read_text("utf-8")),
        script=Markup(script),
        # The one script that the browser may run, beside the libraries that it unpacks.
        script_digest=digest_of_script(script),
    )


def template(name: str) -> Template:
    """A template of this folder, in which no text is markup."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _carried(package: str, place: str) -> str:
    """A file that a package of PyPI carries; the package itself is not imported."""
    return Path(str(distribution(package).locate_file(place))).read_text("utf-8")


@cache
def _packed_script(name: str) -> str:
    return pack(_carried(*SCRIPTS[name]))


def digest_of_script(script: str) -> str:
    """The name of a script in a content policy, such as ``sha256-...``."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def pack(text: str) -> str:
    """A text compressed, in letters that are no markup."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _picture(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _figure_on_page(figure: FigureOnPage) -> dict[str, Any]:
    caption = Path(figure.caption)
    text = captions.render(caption.read_text("utf-8"), figure.params, str(caption))
    svg = tables.without_note(Path(figure.svg).read_bytes())
    return {
        "name": figure.name,
        "title": _title_of(text),
        "picture": _picture(svg),
        "size": _size_of(svg, str(figure.svg)),
        "caption": Markup(text),  # made by docutils, to which data were literal text
    }


def _size_of(svg: bytes, name: str) -> tuple[int, int]:
    """Width and height of a picture in CSS pixels, so that the page keeps its place before it is drawn."""
    found = re.search(rb'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    if found is None:
        raise ValueError(
            f"{name}: this is no picture of matplotlib; delete it and run snakemake again to rebuild it"
        )
    return round(PIXELS_PER_POINT * float(found[1])), round(PIXELS_PER_POINT * float(found[2]))


def _title_of(caption: str) -> str:
    """What stands in bold at the start of a caption."""
    found = re.search(r"<strong>(.*?)</strong>", caption, re.DOTALL)
    return Markup(found[1]).striptags() if found else ""


def _run_on_page(run: RunOnPage, study: Study, n_prompts: int) -> dict[str, Any]:
    name = run.tables.name
    (verdict,) = study.verdict.filter(pl.col("run") == name).iter_rows(named=True)
    sentences = [verdict[name] for name in SENTENCES]
    return {
        "name": name,
        "label": run.tables.label,
        # Of those that were drawn, some may have too few players.
        "about": {**run.about, "prompts": str(n_prompts)},
        "sentences": [split_numbers(sentence) for sentence in sentences if sentence],
        "losses_are": run.losses_are,
        "numbers": _numbers_of(run),
        "rates": study.turnover.filter(pl.col("run") == name).sort("step").to_dicts(),
        "findings": _findings_of(run, study),
    }


def split_numbers(sentence: str) -> list[tuple[str, bool]]:
    """A sentence cut into (text, whether it is a number)."""
    pieces = re.split(r"(?<![\w.])(\d+(?:\.\d+)?)(?![\w])", sentence)
    return [(piece, place % 2 == 1) for place, piece in enumerate(pieces) if piece]


def _numbers_of(run: RunOnPage) -> list[dict[str, Any]]:
    """What the verdict rests on, one row a step."""
    overall = overall_metrics(run.metrics).select("step", "class", "metric", "value")
    values = {(step, label, metric): value for step, label, metric, value in overall.iter_rows()}
    steps = sorted({*run.tables.steps, *run.losses})
    return [
        {
            "step": step,
            "loss": run.losses.get(step),
            "noise": values.get((step, "removed", "churn_floor")),
            **{label: values.get((step, label, "count")) for label in CLASSES},
        }
        for step in steps
    ]


def _findings_of(run: RunOnPage, study: Study) -> list[dict[str, Any]]:
    name = run.tables.name
    others = {row["finding"]: row for row in verdicts.tabulate(run.sensitivity).to_dicts()}
    protocol = {
        row["finding"]: row for row in study.protocol.filter(pl.col("run") == name).to_dicts()
    }
    found = []
    for row in study.findings.filter(pl.col("run") == name).sort("finding").to_dicts():
        parts = study.parts.filter(pl.col("run") == name, pl.col("finding") == row["finding"])
        found.append(
            {
                **row,
                "rows": [_part_on_page(part) for part in parts.sort("part").to_dicts()],
                "others": others[row["finding"]],
                "protocol": protocol[row["finding"]],
            }
        )
    return found


def _part_on_page(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["part"] not in WORDS:
        raise ValueError(f"finding_parts: the page has no words for {part['part']}; add them")
    picture = _interval(
        part["value"],
        part["ci_low"],
        part["ci_high"],
        threshold=part["threshold"],
        claims_more=part["claim"].startswith(">"),
    )
    return {**part, "words": WORDS[part["part"]], "picture": picture}


@cache  # pages of one study, as tests make them, show the same parts
def _interval(
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    threshold: float,
    claims_more: bool,
) -> str:
    """What :func:`~sft_interactions.figures.intervals.draw` draws, as :func:`_picture` gives it."""
    figure = intervals.draw(value, low, high, threshold=threshold, claims_more=claims_more)
    file = io.BytesIO()
    with plain_style():
        figure.savefig(file, format="svg", metadata=UNDATED[".svg"])
    return _picture(file.getvalue())
