import json
import logging
from collections import Counter
from dataclasses import asdict

import polars as pl
from transformers import AutoTokenizer

from job import start
from sft_interactions import tables
from sft_interactions.data.players import make_chooser
from sft_interactions.data.words import UnsuitableSampleError
from sft_interactions.models.prompts import make_frame, make_prompt, mask_token_id, text_offsets

provenance = start(snakemake)
settings, inference = snakemake.params.settings, snakemake.params.inference
choose = make_chooser(snakemake.params.players, snakemake.params.seed)
tokenizer = AutoTokenizer.from_pretrained(snakemake.input.model)
frame = make_frame(tokenizer, settings["template"], settings["instruction"])
prompts, skipped = [], Counter()
for row in tables.read(snakemake.input.analysis, tables.DATA).iter_rows(named=True):
    offsets = text_offsets(tokenizer, frame, row["prompt"])
    try:
        words = choose(row["sample_id"], row["prompt"], offsets)
    except UnsuitableSampleError as error:
        skipped[error.reason] += 1
        continue
    prompts.append(
        make_prompt(
            tokenizer,
            frame,
            row["sample_id"],
            row["prompt"],
            row["target"],
            words,
            inference["target_tokens"],
        )
    )

for reason, count in sorted(skipped.items()):
    logging.info("%d of %d samples skipped: %s", count, count + len(prompts), reason)
if not prompts:
    raise ValueError(f"no sample can give its players ({dict(skipped)}); lower players.n")
metadata = {
    "mask_embedding": inference["mask_embedding"],
    "skipped": json.dumps(dict(sorted(skipped.items()))),
}
if inference["mask_embedding"] in ("token", "learned") or inference.get("mask_token"):
    metadata["mask_token_id"] = str(mask_token_id(tokenizer, settings["mask_token"]))
tables.write(
    pl.DataFrame([asdict(prompt) for prompt in prompts]),
    snakemake.output.prompts,
    tables.PROMPTS,
    metadata=metadata,
    **provenance,
)
tables.write(
    pl.DataFrame(
        [
            {"sample_id": prompt.sample_id, "player": k, **asdict(player)}
            for prompt in prompts
            for k, player in enumerate(prompt.players)
        ]
    ),
    snakemake.output.players,
    tables.PLAYERS,
    **provenance,
)
