"""A sample as figures see it: its prompt, its players, its logical model at a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sft_interactions import tables
from sft_interactions.analysis.runs import Checkpoint
from sft_interactions.analysis.salience import Salience, read_salient

LONGEST_TARGET = 40  # characters of a response in a title


@dataclass(frozen=True)
class AnalysedPrompt:
    """A prompt and its players.

    Attributes:
        sample_id: id of the sample.
        text: user text.
        target: response.
        scored: the text of the scored tokens, which may be a part of the response.
        words: player to word.
        spans: player to (start, end), in characters of ``text``.
    """

    sample_id: str
    text: str
    target: str
    scored: str
    words: Sequence[str]
    spans: Sequence[tuple[int, int]]

    @property
    def scored_name(self) -> str:
        """The scored tokens for a title; and the response, where they are a part of it."""
        if self.scored == self.target:
            return _quote(self.target)
        return f"{_quote(self.scored)} of {_quote(self.target)}"


def _quote(text: str) -> str:
    return f"“{text if len(text) <= LONGEST_TARGET else text[:LONGEST_TARGET] + '…'}”"


@dataclass(frozen=True)
class LogicalModel:
    """The logical model of one prompt at one checkpoint (Eq. 2-3 of arXiv 2605.17967).

    Attributes:
        title: run and checkpoint.
        step: the checkpoint.
        interactions: salient ones, rows (kind, pattern, order, effect), the strongest first; effects in
            log-odds.
        log_odds: v(N), the log-odds of the target on the whole prompt.
        bias: b, in log-odds.
        rest: sum of the effects that are not salient, in log-odds.
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
        return self.bias + float(self.interactions["effect"].sum()) + self.rest


def find_shared(mine: pl.DataFrame, other: pl.DataFrame) -> pl.Series:
    """Whether interactions are salient in another logical model too (G of Eq. 7 of arXiv 2605.17967).

    Args:
        mine: rows with kind, pattern and effect.
        other: rows of the other one's salient interactions.

    Returns:
        Boolean, one a row of ``mine``: the same kind, pattern and sign of the effect is in ``other``.
    """
    sign = (pl.col("effect") > 0).alias("positive")
    found = other.select("kind", "pattern", sign, pl.lit(True).alias("shared"))
    joined = mine.with_columns(sign).join(
        found, on=["kind", "pattern", "positive"], how="left", maintain_order="left"
    )
    return joined["shared"].fill_null(False)


def read_prompt(
    analysis: str | Path, prompts: str | Path, players: str | Path, sample_id: str | None
) -> AnalysedPrompt:
    """Read a prompt and its players.

    Args:
        analysis: ``analysis`` table of a data set.
        prompts: ``prompts`` table of a run on it.
        players: ``players`` table of the same run.
        sample_id: the sample; None for the first by id.

    Raises:
        ValueError: there is no such sample, or the tables do not belong together.
    """
    samples = tables.read(analysis, tables.DATA)
    rendered = tables.read(prompts, tables.PROMPTS, ["sample_id", "rendered", "target_text"])
    sample_id = sample_id or rendered["sample_id"][0]
    chosen = samples.join(rendered, on="sample_id").filter(pl.col("sample_id") == sample_id)
    if chosen.is_empty():
        raise ValueError(
            f"figures.sample: {sample_id!r} is not in {prompts}; choose a sample_id of that table"
        )
    row = chosen.row(0, named=True)
    rows = tables.read(players, tables.PLAYERS).filter(pl.col("sample_id") == sample_id)
    places = rows.select("word", "char_start", "char_end").rows()
    shift = _find_text(row["rendered"], row["prompt"], places)
    if shift is None:
        raise ValueError(f"{players}: its words are not those of {prompts}; rebuild both tables")
    return AnalysedPrompt(
        row["sample_id"],
        row["prompt"],
        row["target"],
        row["target_text"],
        rows["word"].to_list(),
        [(start - shift, end - shift) for _, start, end in places],
    )


def _find_text(rendered: str, text: str, places: Sequence[tuple[str, int, int]]) -> int | None:
    """Where the user text stands in the rendered prompt, which may hold it again outside of it.

    Args:
        places: word, start and end of every player in ``rendered``.
    """
    shift = rendered.rfind(text)
    while shift != -1:
        if all(
            shift <= start and text[start - shift : end - shift] == word
            for word, start, end in places
        ):
            return shift
        shift = rendered.rfind(text, 0, shift + len(text) - 1)
    return None


def read_logical_model(checkpoint: Checkpoint, sample_id: str, salience: Salience) -> LogicalModel:
    """Read the logical model of a sample from the tables of a checkpoint.

    Args:
        checkpoint: with its ``log_odds``, ``interactions`` and ``solve`` table.
        sample_id: the sample.
        salience: rule and threshold of :func:`~sft_interactions.analysis.salience.select_salient`.
    """
    paths = checkpoint.tables
    mine = pl.col("sample_id") == sample_id
    rows = tables.read(paths["interactions"], tables.INTERACTIONS).filter(mine)
    salient = (
        read_salient(paths["interactions"], paths["solve"], salience)
        .filter(mine)
        .sort(-pl.col("effect").abs(), "kind", "pattern")
    )
    values = tables.read(paths["log_odds"], tables.LOG_ODDS).filter(mine).sort("mask")["log_odds"]
    bias = float(rows.filter(pl.col("kind") == "bias")["effect"].item())
    return LogicalModel(
        checkpoint.title,
        checkpoint.step,
        salient.select("kind", "pattern", "order", "effect"),
        log_odds=float(values[-1]),
        bias=bias,
        rest=float(rows["effect"].sum()) - bias - float(salient["effect"].sum()),
    )
