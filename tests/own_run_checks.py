"""What an own run reads of a trainer's folder, against what the trainer read and the live model said."""

from dataclasses import dataclass
from pathlib import Path

import torch

from sft_interactions import config_file
from sft_interactions.config import resolve
from sft_interactions.data.players import make_chooser, unsuitable_for
from sft_interactions.data.sources import parse_source
from sft_interactions.data.splits import build_splits
from sft_interactions.masking.log_odds import MaskedPrompt, masked_log_odds
from sft_interactions.masking.mask_embedding import make_mask_embedding
from sft_interactions.models.loading import load_checkpoint
from sft_interactions.models.own_checkpoints import check_own_checkpoints
from sft_interactions.models.preparing import prepare_model
from sft_interactions.models.prompts import make_prompt
from sft_interactions.models.templates import frames_of
from sft_interactions.models.tokenizing import load_tokenizer
from sft_interactions.own_run.study import prepare


@dataclass
class Reading:
    """What an own run makes of a folder.

    Attributes:
        prompts: of the held-out rows.
        checkpoints: step to folder.
        model_dir: the prepared model before SFT.
    """

    prompts: list
    checkpoints: dict
    model_dir: Path


def read(folder, **given):
    """Read ``folder/mine`` and ``folder/heldout.jsonl`` as ``snakemake own`` does, without Snakemake."""
    brought = {"output": str(folder / "mine"), "heldout": str(folder / "heldout.jsonl"), **given}
    study = prepare(brought, folder / "config", may_write=True)
    content, places = config_file.read([study.file])
    content["players"]["n"] = 4
    config = resolve(content, places)
    (model_name, model), (name, run) = *config["models"].items(), *config["runs"].items()
    model_dir = folder / "model"
    prepare_model(
        parse_source(model["source"]),
        [],
        model_dir,
        name=model_name,
        tokenizer=path_of(model.get("tokenizer")),
        template=path_of(model["template"]),
    )
    checkpoints = {
        int(step): Path(given) for step, given in run["checkpoints"].items() if step != "0"
    }
    check_own_checkpoints(
        checkpoints,
        model_dir,
        where=f"runs.{name}.checkpoints",
        model_names=[model["source"].partition(":")[2]],
        compare_template=model["template"] == "chat",
    )
    return Reading(prompts_of(config, model, model_dir), checkpoints, model_dir)


def path_of(value):
    """The path of a key that may be another word, or missing."""
    is_path = value is not None and value.startswith("path:")
    return Path(value.removeprefix("path:")) if is_path else None


def prompts_of(config, model, model_dir):
    players, seed, dataset = config["players"], config["seed"], config["datasets"]["heldout"]
    template = "plain" if model["template"] == "plain" else "chat"
    splits, _ = build_splits(
        dataset,
        seed=seed,
        name="heldout",
        unsuitable=unsuitable_for(players, seed),
    )
    tokenizer = load_tokenizer(model_dir)
    choose = make_chooser(players, seed)
    frame_of = frames_of(tokenizer, template, dataset["instruction"], model["template_date"])
    return [
        make_prompt(
            tokenizer,
            frame_of(row.get("earlier") or "[]"),
            row["sample_id"],
            row["prompt"],
            row["target"],
            choose(row["sample_id"], row["prompt"], ()),
        )
        for row in splits["analysis"].iter_rows(named=True)
    ]


def compare(reading, seen):
    """Hold token ids against the trainer's batches, and log-odds against the live model's.

    Returns:
        Number of prompts, and the largest difference of log-odds.
    """
    places = [place_of(prompt, seen["rows"]) for prompt in reading.prompts]
    largest = 0.0
    for step, checkpoint in reading.checkpoints.items():
        model = load_checkpoint(reading.model_dir, checkpoint, torch.device("cpu"))
        vector = make_mask_embedding(model, "zero")
        for prompt, (row, n) in zip(reading.prompts, places, strict=True):
            masked = MaskedPrompt(prompt.token_ids, prompt.player_of_token, prompt.target_token_ids)
            whole = 2**masked.n - 1
            (value,) = masked_log_odds(model, masked, vector, method="full_length", masks=[whole])
            largest = max(largest, abs(value - seen["log_odds"][str(step)][row][n - 1]))
    return len(places), largest


def place_of(prompt, rows):
    """Row of the trainer's that a prompt and its scored token begin, and the prompt's length."""
    begun = [*prompt.token_ids, *prompt.target_token_ids]
    found = [row for row, ids in enumerate(rows) if ids[: len(begun)] == begun]
    if not found:
        close = max(rows, key=lambda ids: n_shared(ids, begun))
        n = n_shared(close, begun)
        raise AssertionError(
            f"no batch begins with the prompt {prompt.rendered!r}; the closest one shares {n} of "
            f"{len(begun)} tokens, then has {close[n : n + 5]} where the prompt has {begun[n : n + 5]}"
        )
    return found[0], len(prompt.token_ids)


def n_shared(ids, others):
    n = 0
    while n < min(len(ids), len(others)) and ids[n] == others[n]:
        n += 1
    return n
