from dataclasses import asdict

import polars as pl
from transformers import AutoTokenizer

from job import start
from sft_interactions import tables
from sft_interactions.players import choose_players, stop_words
from sft_interactions.prompts import baseline_token_id, make_frame, make_prompt

provenance = start(snakemake)
settings, inference = snakemake.params.settings, snakemake.params.inference
excluded = stop_words(snakemake.params.players["stop_words"])
tokenizer = AutoTokenizer.from_pretrained(snakemake.input.model)
frame = make_frame(tokenizer, settings["template"], settings["instruction"])
prompts = []
for row in tables.read(snakemake.input.analysis, tables.DATA).iter_rows(named=True):
    words = choose_players(
        row["sample_id"],
        row["prompt"],
        snakemake.params.players["n"],
        seed=snakemake.params.seed,
        excluded=excluded,
    )
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

metadata = {"masking_baseline": inference["masking_baseline"]}
if inference["masking_baseline"] in ("token", "learned"):
    metadata["baseline_token_id"] = str(baseline_token_id(tokenizer, settings["baseline_token"]))
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
