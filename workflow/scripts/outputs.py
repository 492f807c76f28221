from pathlib import Path

import numpy as np
import polars as pl

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.inference import (
    load_checkpoint,
    masked_log_odds,
    masking_baseline,
    pick_device,
    use_reproducible_float32,
)

provenance = start(snakemake)
compute = snakemake.params.compute
use_reproducible_float32(compute["threads"])
checkpoint = Path(snakemake.input.checkpoints) / f"step-{snakemake.wildcards.step}"
model = load_checkpoint(snakemake.input.model, checkpoint, pick_device(compute["device"]))
metadata = tables.read_metadata(snakemake.input.prompts)
token_id = metadata.get("baseline_token_id")
baseline = masking_baseline(model, metadata["masking_baseline"], token_id and int(token_id))
prompts = tables.read(snakemake.input.prompts, tables.PROMPTS)
parts = []
with progress_bar(snakemake, len(prompts), "sample") as bar:
    for prompt in prompts.iter_rows(named=True):
        values = masked_log_odds(
            model,
            prompt["token_ids"],
            prompt["player_of_token"],
            prompt["target_token_ids"],
            baseline,
            max_rows=compute["max_rows"],
        )
        parts.append(
            pl.DataFrame(
                {"mask": np.arange(len(values), dtype=np.uint32), "log_odds": values}
            ).with_columns(sample_id=pl.lit(prompt["sample_id"]))
        )
        bar.update()
tables.write(pl.concat(parts), snakemake.output[0], tables.OUTPUTS, **provenance)
