import numpy as np
import polars as pl

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.masking.devices import pick_device, use_reproducible_float32
from sft_interactions.masking.job import read_prompts
from sft_interactions.masking.mask_embedding import learn_mask_embedding, make_mask_embedding
from sft_interactions.models.loading import load_checkpoint

provenance = start(snakemake)
settings, compute = snakemake.params.settings, snakemake.params.compute
device = pick_device(compute["device"])
use_reproducible_float32(compute["threads"])
model = load_checkpoint(snakemake.input.model, None, device)
token_id = int(tables.read_metadata(snakemake.input.prompts)["mask_token_id"])
prompts = list(read_prompts(snakemake.input.prompts).values())
with progress_bar(snakemake, settings["steps"], "step") as bar:

    def report(loss):
        bar.set_postfix_str(f"{loss:.3f} log-odds", refresh=False)
        bar.update()

    vector = learn_mask_embedding(
        model,
        prompts,
        make_mask_embedding(model, "token", token_id),
        **settings,
        seed=snakemake.params.seed,
        progress=report,
    )
values = vector.cpu().numpy()
tables.write(
    pl.DataFrame({"dimension": np.arange(len(values)), "value": values}),
    snakemake.output[0],
    tables.MASK_EMBEDDING,
    **provenance,
)
