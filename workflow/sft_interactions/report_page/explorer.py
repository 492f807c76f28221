"""What the explorer of the page shows of a run: its prompts, and their interactions at every step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sft_interactions import tables
from sft_interactions.analysis.faithfulness import logical_log_odds
from sft_interactions.analysis.sparsity import SMALL_DIFFERENCE
from sft_interactions.extraction.interactions import to_values

CLASSES = tables.CLASS.categories.to_list()
KINDS = tables.KIND.categories.to_list()
# Digits of the numbers in the page: more than it shows.
DIGITS = 6


@dataclass(frozen=True)
class RunTables:
    """A run and the files of its tables.

    Attributes:
        name: of the run.
        label: its title.
        steps: analysed checkpoints, sorted.
        analysis: its analysed samples, like ``prompts``, ``players`` and ``dynamics``.
        log_odds: the table of each checkpoint, in the order of ``steps``.
        interactions: those that the study looks at, likewise.
    """

    name: str
    label: str
    steps: Sequence[int]
    analysis: str | Path
    prompts: str | Path
    players: str | Path
    dynamics: str | Path
    log_odds: Sequence[str | Path]
    interactions: Sequence[str | Path]


def explore(run: RunTables) -> dict[str, Any]:
    """Columns of a run for the explorer.

    Returns:
        As JSON can hold it. ``samples``: one entry a sample, in the order of their ids, with lists over
        the checkpoints, in log-odds (``v_all`` v(N), ``v_none`` v(∅), ``phi_all``, ``phi_none``,
        ``range`` max v − min v, ``residual`` max over S of |φ(S) − v(S)|) and ``small``, whether
        |v(N) − v(∅)| is below ``SMALL_DIFFERENCE`` of the range. ``patterns``: every (sample, kind,
        pattern) that is in a class at some checkpoint, with its effects at all of them, one checkpoint
        after the other, 0 where the extraction gives none. ``rows``: the rows of ``dynamics``, with
        places in ``samples``, ``steps``, ``CLASSES`` and ``patterns``; ``general`` is None without a
        reference run.

    Raises:
        ValueError: a table is damaged, or two tables of the run do not have the same samples or words. The
            message starts with the file.
    """
    samples = _read_samples(run)
    ids = [one["id"] for one in samples]
    dynamics = tables.read(run.dynamics, tables.DYNAMICS)
    patterns = (
        dynamics.select("sample_id", "kind", "pattern", "order")
        .unique()
        .sort("sample_id", "kind", "pattern")
    )
    effects = []
    for log_odds, interactions in zip(run.log_odds, run.interactions, strict=True):
        rows = tables.read(interactions, tables.INTERACTIONS)
        _add_checkpoint(samples, log_odds, rows, str(interactions))
        effects.append(_effects_of(patterns, rows))
    unknown = set(dynamics["sample_id"]) - set(ids)
    if unknown or not set(dynamics["step"]) <= set(run.steps):
        raise ValueError(
            f"{run.dynamics}: it has samples or steps that the run has not; delete it and run "
            "snakemake again to rebuild it"
        )
    return {
        "name": run.name,
        "label": run.label,
        "steps": list(run.steps),
        "samples": samples,
        "patterns": {
            "sample": _places(patterns["sample_id"], ids),
            "kind": _places(patterns["kind"].cast(pl.String), KINDS),
            "pattern": patterns["pattern"].to_list(),
            "order": patterns["order"].to_list(),
            "effects": [round_all(column) for column in effects],
        },
        "rows": _rows_of(dynamics, patterns, run.steps, ids),
    }


def _read_samples(run: RunTables) -> list[dict[str, Any]]:
    data = tables.read_samples(run.analysis)
    players = tables.read(run.players, tables.PLAYERS)
    prompts = tables.read(run.prompts, tables.PROMPTS, ["sample_id", "rendered", "target_text"])
    of_samples = players.sort("player").partition_by("sample_id", as_dict=True)
    targets = {row["sample_id"]: row for row in data.iter_rows(named=True)}
    samples = []
    for prompt in prompts.iter_rows(named=True):
        sample_id = prompt["sample_id"]
        if sample_id not in targets:
            raise ValueError(
                f"{run.prompts}: sample {sample_id} is not in {run.analysis}; delete both and run "
                "snakemake again to rebuild them"
            )
        of_sample = of_samples.get((sample_id,), players.clear())
        samples.append(
            {
                "id": sample_id,
                "text": targets[sample_id]["prompt"],
                "target": targets[sample_id]["target"],
                "scored": prompt["target_text"],
                "words": of_sample["word"].to_list(),
                "pieces": _pieces(prompt["rendered"], of_sample, f"{run.players}: {sample_id}"),
                **{
                    key: []
                    for key in (
                        "v_all",
                        "v_none",
                        "phi_all",
                        "phi_none",
                        "range",
                        "residual",
                        "small",
                    )
                },
            }
        )
    return samples


def _pieces(text: str, players: pl.DataFrame, where: str) -> list[list[Any]]:
    """The text cut into [piece, player], the player -1 between the players."""
    pieces: list[list[Any]] = []
    end = 0
    for player, word, start, stop in players.select(
        "player", "word", "char_start", "char_end"
    ).iter_rows():
        if start < end or text[start:stop] != word:
            raise ValueError(
                f"{where}: player {player} is not where the table has it; delete the file and run "
                "snakemake again to rebuild it"
            )
        pieces += [[text[end:start], -1], [word, player]]
        end = stop
    return [piece for piece in [*pieces, [text[end:], -1]] if piece[0]]


def _add_checkpoint(
    samples: list[dict[str, Any]], path: str | Path, interactions: pl.DataFrame, name: str
) -> None:
    """Add to every sample what it is at one more checkpoint."""
    found, llm = to_values(tables.read(path, tables.LOG_ODDS), str(path))
    if found != [one["id"] for one in samples]:
        raise ValueError(
            f"{path}: its samples are not those of the prompts; delete the file and run snakemake "
            "again to rebuild it"
        )
    unknown = set(interactions["sample_id"]) - set(found)
    if unknown:
        raise ValueError(
            f"{name}: sample {min(unknown)} is not one of the run; delete the file and run snakemake "
            "again to rebuild it"
        )
    logical = logical_log_odds(interactions, found, llm.shape[1])
    spread = llm.max(axis=1) - llm.min(axis=1)
    residual = np.abs(logical - llm).max(axis=1)
    small = np.abs(llm[:, -1] - llm[:, 0]) < SMALL_DIFFERENCE * spread
    for row, sample in enumerate(samples):
        sample["small"].append(bool(small[row]))
        for key, value in (
            ("v_all", llm[row, -1]),
            ("v_none", llm[row, 0]),
            ("phi_all", logical[row, -1]),
            ("phi_none", logical[row, 0]),
            ("range", spread[row]),
            ("residual", residual[row]),
        ):
            sample[key] += round_all([value])


def _effects_of(patterns: pl.DataFrame, interactions: pl.DataFrame) -> list[float]:
    """Effect of every pattern at one checkpoint, 0 where the table of interactions has none."""
    rows = interactions.filter(pl.col("kind") != "bias").select(
        "sample_id", pl.col("kind").cast(pl.String).cast(tables.KIND), "pattern", "effect"
    )
    joined = patterns.join(
        rows, on=["sample_id", "kind", "pattern"], how="left", maintain_order="left"
    )
    return joined["effect"].fill_null(0.0).to_list()


def _rows_of(
    dynamics: pl.DataFrame, patterns: pl.DataFrame, steps: Sequence[int], ids: Sequence[str]
) -> dict[str, list[Any]]:
    place = patterns.with_row_index("place").drop("order")
    rows = dynamics.join(
        place, on=["sample_id", "kind", "pattern"], how="left", maintain_order="left"
    ).sort("sample_id", "step", "place", maintain_order=True)
    return {
        "sample": _places(rows["sample_id"], ids),
        "step": _places(rows["step"], steps),
        "class": _places(rows["class"].cast(pl.String), CLASSES),
        "pattern": rows["place"].to_list(),
        "effect": round_all(rows["effect"].to_list()),
        "general": rows["generalizable"].to_list(),
    }


def _places(values: pl.Series, among: Sequence[Any]) -> list[int]:
    places: Mapping[Any, int] = {value: place for place, value in enumerate(among)}
    return [places[value] for value in values]


def round_all(values: Sequence[float]) -> list[float]:
    """Numbers with ``DIGITS`` significant digits, so that the page stays small."""
    return [float(f"{value:.{DIGITS}g}") for value in values]
