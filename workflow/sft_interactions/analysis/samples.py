"""What a figure knows of one sample: its prompt, its players, its logical model at a checkpoint."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sft_interactions import tables
from sft_interactions.analysis.salience import read_salient


@dataclass(frozen=True)
class AnalysedPrompt:
    """A prompt and its players.

    Attributes:
        sample_id: id of the sample.
        text: user text.
        target: response.
        words: player to word.
        spans: player to (start, end), in characters of ``text``.
    """

    sample_id: str
    text: str
    target: str
    words: Sequence[str]
    spans: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class LogicalModel:
    """The logical model of one prompt at one checkpoint.

    Attributes:
        title: run and checkpoint.
        step: the checkpoint.
        interactions: salient ones, (kind, pattern, order, effect), the strongest first.
        log_odds: v(N), the log-odds of the target on the whole prompt.
        bias: b.
        rest: sum of the effects that are not salient.
    """

    title: str
    step: int
    interactions: pl.DataFrame
    log_odds: float
    bias: float
    rest: float

    def strongest(self, n: int, of_each_kind: int) -> pl.DataFrame:
        """The n strongest interactions, among them so many of each kind if there are so many."""
        wanted = pl.int_range(pl.len()).over("kind") < of_each_kind
        place = (~wanted).arg_sort().arg_sort()  # stable ranks: the wanted ones come first
        return self.interactions.filter(place < n)

    @property
    def prediction(self) -> float:
        """φ(N), on the whole prompt the bias and every effect."""
        return self.bias + self.interactions["effect"].sum() + self.rest


def best_step(folder: str | Path) -> int:
    """``best_checkpoint_step`` of a run, from its ``stages.json``."""
    return json.loads((Path(folder) / "stages.json").read_text())["best_checkpoint_step"]


def read_prompt(folder: str | Path, analysis: str | Path, sample_id: str | None) -> AnalysedPrompt:
    """Read a prompt and its players from the tables of a run and of its data set.

    Args:
        folder: folder of the run.
        analysis: ``analysis`` table of the data set.
        sample_id: the sample; None for the first by id.

    Raises:
        ValueError: there is no such sample.
    """
    folder = Path(folder)
    samples = tables.read(analysis, tables.DATA)
    rendered = tables.read(folder / "prompts.parquet", tables.PROMPTS, ["sample_id", "rendered"])
    sample_id = sample_id or rendered["sample_id"][0]
    chosen = samples.join(rendered, on="sample_id").filter(pl.col("sample_id") == sample_id)
    if chosen.is_empty():
        raise ValueError(
            f"figures.sample: {sample_id!r} is not among the samples of {folder.name}; "
            f"choose one of {analysis}"
        )
    row = chosen.row(0, named=True)
    players = tables.read(folder / "players.parquet", tables.PLAYERS).filter(
        pl.col("sample_id") == sample_id
    )
    shift = row["rendered"].rindex(row["prompt"])
    return AnalysedPrompt(
        sample_id,
        row["prompt"],
        row["target"],
        players["word"].to_list(),
        [(a - shift, b - shift) for a, b in players.select("char_start", "char_end").iter_rows()],
    )


def read_logical_model(
    folder: str | Path, title: str, step: int, sample_id: str, salience: dict[str, object]
) -> LogicalModel:
    """Read the logical model of a sample from the tables of a run.

    Args:
        folder: folder of the run.
        title: heading in the figure.
        salience: rule and threshold of :func:`~sft_interactions.analysis.salience.select_salient`.
    """
    stem = Path(folder) / "interactions" / f"step-{step}"
    path = stem.with_suffix(".parquet")
    mine = pl.col("sample_id") == sample_id
    rows = tables.read(path, tables.INTERACTIONS).filter(mine)
    salient = (
        read_salient(path, stem.with_suffix(".solve.parquet"), salience)
        .filter(mine)
        .sort(-pl.col("effect").abs(), "kind", "pattern")
    )
    log_odds = tables.read(Path(folder) / "log_odds" / f"step-{step}.parquet", tables.LOG_ODDS)
    bias = rows.filter(pl.col("kind") == "bias")["effect"].item()
    return LogicalModel(
        title,
        step,
        salient.select("kind", "pattern", "order", "effect"),
        log_odds=float(log_odds.filter(mine).sort("mask")["log_odds"][-1]),
        bias=bias,
        rest=rows["effect"].sum() - bias - salient["effect"].sum(),
    )
