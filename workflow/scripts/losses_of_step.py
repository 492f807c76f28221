from pathlib import Path

import polars as pl

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.files import find_steps
from sft_interactions.masking.devices import pick_device, use_reproducible_float32
from sft_interactions.models.examples import check_vocabularies, make_examples, padding_token
from sft_interactions.models.layers import input_embeddings
from sft_interactions.models.loading import load_checkpoint
from sft_interactions.models.losses import response_losses
from sft_interactions.models.positions import read_position_limit
from sft_interactions.models.templates import frames_of
from sft_interactions.models.tokenizing import load_tokenizer

provenance = start(snakemake)
settings, compute = snakemake.params.settings, snakemake.params.compute
device = pick_device(compute["device"])
use_reproducible_float32(compute["threads"])
tokenizer = load_tokenizer(snakemake.input.model)
frame_of = frames_of(
    tokenizer, settings["template"], settings["instruction"], settings["template_date"]
)
rows = pl.concat(
    tables.read_samples(path).with_columns(split=pl.lit(Path(path).stem))
    for path in snakemake.input.splits
)
examples = make_examples(
    rows.select("sample_id", "prompt", "target", "earlier").rows(),
    tokenizer,
    frame_of,
    read_position_limit(snakemake.input.model),
    settings["finetune"]["max_length"],
)
step = int(snakemake.wildcards.step)
folders = find_steps(snakemake.input.checkpoints, [step])
model = load_checkpoint(snakemake.input.model, folders[step], device)
check_vocabularies(
    examples, rows["sample_id"], input_embeddings(model).num_embeddings, folders[step]
)
with progress_bar(snakemake, len(examples), "response") as bar:
    losses, n_tokens = response_losses(
        model,
        examples,
        pad_id=padding_token(tokenizer, snakemake.input.model),
        progress=bar.update,
    )
table = rows.select(
    pl.lit(step, pl.Int64).alias("step"),
    "split",
    "sample_id",
    loss=pl.Series(losses),
    n_tokens=pl.Series(n_tokens),
)
tables.write(table, snakemake.output[0], tables.LOSSES, **provenance)
