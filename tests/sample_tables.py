"""Tables of a run of two samples with random log-odds, as far as figures of single samples read them."""

import json

import numpy as np
import polars as pl

from sft_interactions import tables
from sft_interactions.analysis.dynamics import add_generalizability, classify
from sft_interactions.analysis.runs import Checkpoint
from sft_interactions.analysis.salience import select_salient
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.program import extract

SALIENCE = {"rule": "max_effect", "threshold": 0.05}
STEPS = (0, 5, 20, 300)
BEST = 20
SAMPLES = ["s0", "s1"]
# As much of a salient interaction as classes are made of.
SALIENT = {
    "sample_id": pl.String,
    "kind": tables.KIND,
    "pattern": pl.UInt32,
    "order": pl.UInt8,
    "effect": pl.Float64,
}
WORDS = ["film", "truly", "wonderful", "friend"]
TEXT = "The film was truly wonderful, friend!"
N = len(WORDS)


def dynamics_of(*checkpoints, steps=None, n_players=5):
    """Rows of a dynamics table from sample id to effects by pattern; by default of steps 0, 10, 20, ..."""
    salient = {}
    steps = steps or [10 * number for number in range(len(checkpoints))]
    for step, samples in zip(steps, checkpoints, strict=True):
        rows = [
            (sample, "and", pattern, pattern.bit_count(), effect)
            for sample, effects in samples.items()
            for pattern, effect in effects.items()
        ]
        salient[step] = pl.DataFrame(rows, schema=SALIENT, orient="row")
    return add_generalizability(classify(salient), None, n_players)


def write(frame, path, table):
    tables.write(frame, path, table, created_by="test", inputs_digest="0")


def write_run(root):
    """Write the tables of the run into a folder."""
    random = np.random.default_rng(0)
    data = {"sample_id": SAMPLES, "prompt": [TEXT, TEXT], "target": ["positive", "negative"]}
    write(pl.DataFrame(data), root / "analysis.parquet", tables.DATA)
    prefix = "<user> Film? The answer:\n"
    prompts = {
        "sample_id": SAMPLES,
        "rendered": [f"{prefix}{TEXT} <assistant>"] * 2,
        "token_ids": [[1], [1]],
        "player_of_token": [[-1], [-1]],
        "target_token_ids": [[2], [2]],
        "target_text": ["positive", "neg"],
    }
    write(pl.DataFrame(prompts), root / "prompts.parquet", tables.PROMPTS)
    players = [
        (sample_id, k, word, len(prefix) + TEXT.index(word), 0, 1)
        for sample_id in SAMPLES
        for k, word in enumerate(WORDS)
    ]
    players = pl.DataFrame(players, schema=tables.PLAYERS.columns, orient="row").with_columns(
        char_end=pl.col("char_start") + pl.col("word").str.len_chars().cast(pl.UInt32)
    )
    write(players, root / "players.parquet", tables.PLAYERS)
    salient = {}
    for step in STEPS:
        values = random.normal(size=(2, 2**N)).astype(np.float32).astype(float)
        salient[step] = write_checkpoint(root, step, SAMPLES, values, noise_ratio=0.04)
    dynamics = add_generalizability(classify(salient), None, N)
    write(dynamics, root / "dynamics.parquet", tables.DYNAMICS)
    (root / "stages.json").write_text(json.dumps({"best_checkpoint_step": BEST}))


def write_checkpoint(root, step, samples, values, *, noise_ratio):
    """Write the log-odds of a checkpoint and their interactions, and return the salient ones."""
    rows, solve = from_extraction(samples, values, extract(values, noise_ratio=noise_ratio))
    paths = checkpoint(root, step).tables
    write(rows, paths["interactions"], tables.INTERACTIONS)
    write(solve, paths["solve"], tables.SOLVE)
    size = values.shape[1]
    log_odds = {
        "sample_id": np.repeat(samples, size),
        "mask": np.tile(np.arange(size), len(samples)),
        "log_odds": values.ravel(),
    }
    write(pl.DataFrame(log_odds), paths["log_odds"], tables.LOG_ODDS)
    return select_salient(rows, solve, **SALIENCE)


def checkpoint(root, step):
    """A checkpoint of the run in a folder, with the files of its tables."""
    stem = root / "interactions" / f"step-{step}"
    return Checkpoint(
        "A model on data",
        step,
        {
            "log_odds": root / "log_odds" / f"step-{step}.parquet",
            "interactions": stem.with_suffix(".parquet"),
            "solve": stem.with_suffix(".solve.parquet"),
        },
    )
