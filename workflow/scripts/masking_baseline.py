import numpy as np
import polars as pl

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.baseline import learn_baseline
from sft_interactions.inference import (
    MaskedPrompt,
    load_checkpoint,
    masking_baseline,
    pick_device,
    use_reproducible_float32,
)

provenance = start(snakemake)
settings, compute = snakemake.params.settings, snakemake.params.compute
use_reproducible_float32(compute["threads"])
model = load_checkpoint(snakemake.input.model, None, pick_device(compute["device"]))
token_id = int(tables.read_metadata(snakemake.input.prompts)["baseline_token_id"])
columns = ("token_ids", "player_of_token", "target_token_ids")
prompts = [
    MaskedPrompt(*(row[column] for column in columns))
    for row in tables.read(snakemake.input.prompts, tables.PROMPTS).iter_rows(named=True)
]
with progress_bar(snakemake, settings["steps"], "step") as bar:

    def report(loss):
        bar.set_postfix_str(f"{loss:.3f} log-odds", refresh=False)
        bar.update()

    vector = learn_baseline(
        model,
        prompts,
        masking_baseline(model, "token", token_id),
        **settings,
        seed=snakemake.params.seed,
        progress=report,
    )
values = vector.cpu().numpy()
tables.write(
    pl.DataFrame({"dimension": np.arange(len(values)), "value": values}),
    snakemake.output[0],
    tables.MASKING_BASELINE,
    **provenance,
)
