import json
import logging
from collections import Counter
from dataclasses import asdict

import polars as pl

from job import start
from sft_interactions import tables
from sft_interactions.data.players import make_chooser
from sft_interactions.data.words import UnsuitableSampleError
from sft_interactions.models.positions import check_length, read_position_limit
from sft_interactions.models.prompts import (
    describe_scored_tokens,
    make_prompt,
    mask_token_id,
    text_offsets,
)
from sft_interactions.models.templates import (
    describe_rendered,
    describe_written,
    frames_of,
)
from sft_interactions.models.tokenizing import load_tokenizer
from sft_interactions.origin import digest_prompts

provenance = start(snakemake)
settings, inference = snakemake.params.settings, snakemake.params.inference
choose = make_chooser(snakemake.params.players, snakemake.params.seed)
tokenizer = load_tokenizer(snakemake.input.model)
frame_of = frames_of(
    tokenizer, settings["template"], settings["instruction"], settings["template_date"]
)
limit = read_position_limit(snakemake.input.model)
prompts, texts, targets, skipped = [], [], [], Counter()
for row in tables.read_samples(snakemake.input.analysis).iter_rows(named=True):
    frame = frame_of(row["earlier"])
    offsets = text_offsets(tokenizer, frame, row["prompt"])
    try:
        words = choose(row["sample_id"], row["prompt"], offsets)
    except UnsuitableSampleError as error:
        skipped[error.reason] += 1
        continue
    prompt = make_prompt(
        tokenizer,
        frame,
        row["sample_id"],
        row["prompt"],
        row["target"],
        words,
        inference["target_tokens"],
    )
    # The last scored token is not read.
    n_tokens = len(prompt.token_ids) + len(prompt.target_token_ids) - 1
    check_length(n_tokens, limit, f"sample {row['sample_id']}")
    prompts.append(prompt)
    texts.append(row["prompt"])
    targets.append(row["target"])

for reason, count in sorted(skipped.items()):
    logging.info("%d of %d samples skipped: %s", count, count + len(prompts), reason)
if not prompts:
    raise ValueError(f"no sample can give its players ({dict(skipped)}); lower players.n")
scored = describe_scored_tokens(prompts, targets)
notes = [*describe_written(frame), *describe_rendered(frame, texts, targets)]
for note in [*scored.notes, *notes]:
    logging.warning(note)
metadata = {
    "mask_embedding": inference["mask_embedding"],
    "template_date": settings["template_date"],
    **scored.counts,
    "skipped": json.dumps(dict(sorted(skipped.items()))),
}
if inference["mask_embedding"] in ("token", "learned") or inference.get("mask_token"):
    metadata["mask_token_id"] = str(mask_token_id(tokenizer, settings["mask_token"]))
rows = tables.check(
    pl.DataFrame([asdict(prompt) for prompt in prompts]), tables.PROMPTS, snakemake.output.prompts
)
metadata[tables.PROMPTS_DIGEST] = digest_prompts(rows)
tables.write(rows, snakemake.output.prompts, tables.PROMPTS, metadata=metadata, **provenance)
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
