from pathlib import Path

import polars as pl
from transformers import AutoTokenizer

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.masking.devices import pick_device, use_reproducible_float32
from sft_interactions.models.examples import make_example
from sft_interactions.models.finetuning import finetune
from sft_interactions.models.prompts import encode, make_frame

provenance = start(snakemake)
settings = snakemake.params.settings
compute = snakemake.params.compute
use_reproducible_float32(compute["threads"])
tokenizer = AutoTokenizer.from_pretrained(snakemake.input.model)
frame = make_frame(tokenizer, settings["template"], settings["instruction"])


def examples(path):
    return [
        make_example(
            *encode(tokenizer, frame.render(row["prompt"]), frame.response(row["target"])),
            settings["finetune"]["max_length"],
        )
        for row in tables.read(path, tables.DATA).iter_rows(named=True)
    ]


checkpoints = Path(snakemake.output.checkpoints)
checkpoints.mkdir(parents=True, exist_ok=True)
pad_id = tokenizer.pad_token_id
with progress_bar(snakemake, settings["finetune"]["steps"], "step") as bar:
    rows = finetune(
        snakemake.input.model,
        examples(snakemake.input.train),
        examples(snakemake.input.validation),
        settings["finetune"],
        checkpoints,
        pad_id=tokenizer.eos_token_id if pad_id is None else pad_id,
        seed=settings["seed"],
        device=pick_device(compute["device"]),
        progress=lambda step: bar.update(step - bar.n),
    )
tables.write(
    pl.DataFrame(rows, schema=tables.TRAINING.columns),
    snakemake.output.training,
    tables.TRAINING,
    **provenance,
)
