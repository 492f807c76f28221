import json
from pathlib import Path

import polars as pl

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.masking.devices import pick_device, use_reproducible_float32
from sft_interactions.models.examples import (
    check_vocabularies,
    make_examples,
    padding_token,
    vocabulary_size,
)
from sft_interactions.models.finetuning import finetune
from sft_interactions.models.positions import read_position_limit
from sft_interactions.models.templates import frames_of
from sft_interactions.models.tokenizing import load_tokenizer
from sft_interactions.origin import made_of, training_digest

provenance = start(snakemake)
settings = snakemake.params.settings
compute = snakemake.params.compute
device = pick_device(compute["device"])
use_reproducible_float32(compute["threads"])
tokenizer = load_tokenizer(snakemake.input.model)
frame_of = frames_of(
    tokenizer, settings["template"], settings["instruction"], settings["template_date"]
)
limit = read_position_limit(snakemake.input.model)


def examples(path):
    rows = tables.read_samples(path)
    max_length = settings["finetune"]["max_length"]
    found = make_examples(rows.rows(), tokenizer, frame_of, limit, max_length)
    model = snakemake.input.model
    check_vocabularies(found, rows["sample_id"], vocabulary_size(model), model)
    return found


checkpoints = Path(snakemake.output.checkpoints)
checkpoints.mkdir(parents=True, exist_ok=True)
with progress_bar(snakemake, settings["finetune"]["steps"], "step") as bar:
    rows = finetune(
        snakemake.input.model,
        examples(snakemake.input.train),
        examples(snakemake.input.validation),
        settings["finetune"],
        checkpoints,
        pad_id=padding_token(tokenizer, snakemake.input.model),
        seed=settings["seed"],
        device=device,
        # Snakemake removes the outputs of a job before it starts it, and of one that was killed.
        store_dir=checkpoints.parent / "store" / "training",
        progress=lambda step: bar.update(step - bar.n),
    )
tables.write(
    pl.DataFrame(rows, schema=tables.TRAINING.columns),
    snakemake.output.training,
    tables.TRAINING,
    metadata={
        "template_date": settings["template_date"],
        tables.CHECKPOINTS: json.dumps(made_of(checkpoints.glob("step-*"), provenance["results"])),
        tables.TRAINING_DIGEST: training_digest(settings),
    },
    **provenance,
)
