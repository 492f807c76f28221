from pathlib import Path

from job import DIGESTS, progress_bar, start
from sft_interactions import tables
from sft_interactions.files import find_steps
from sft_interactions.masking.devices import pick_device, use_reproducible_float32
from sft_interactions.masking.job import InferenceJob, Progress, read_prompts
from sft_interactions.masking.parts import Parts
from sft_interactions.origin import made_of

provenance = start(snakemake)
compute, folder = snakemake.params.compute, Path(snakemake.output[0])
store = Path(provenance["results"]) / "runs" / snakemake.wildcards.run / "store"
device = pick_device(compute["device"])
use_reproducible_float32(compute["threads"])

metadata = tables.read_metadata(snakemake.input.prompts)
mask_embedding = {
    "name": snakemake.wildcards.get("mask_embedding", metadata["mask_embedding"]),
    "token_id": int(metadata["mask_token_id"]) if "mask_token_id" in metadata else None,
}
if snakemake.input.learned:
    learned = tables.read(snakemake.input.learned[0], tables.MASK_EMBEDDING)
    mask_embedding["vector"] = learned["value"].to_list()

checkpoints = find_steps(snakemake.input.checkpoints, snakemake.params.steps)
inference = InferenceJob(
    model_dir=snakemake.input.model,
    checkpoints=checkpoints,
    prompts=read_prompts(snakemake.input.prompts),
    shard=int(snakemake.wildcards.shard),
    settings=snakemake.params.inference,
    mask_embedding=mask_embedding,
    device=device,
    threads=compute["threads"],
    # What is kept is known by its name, and outlives the files that it was made of.
    parts=Parts(store / "log_odds", **{**provenance, "made_of": None}),
)
with progress_bar(snakemake, inference.n_maskings, "masking") as bar:

    def show(progress: Progress) -> None:
        bar.initial = progress.kept_maskings  # the rate is that of the others
        bar.set_postfix_str(f"{progress.samples} of {inference.n_samples} samples", refresh=False)
        bar.update(progress.maskings - bar.n)

    for step, log_odds, about in inference.evaluate(show):
        path = folder / f"step-{step}.parquet"
        provenance["inputs_digest"] = inference.inputs_digest(step)
        sources = [snakemake.input.model, *snakemake.input.learned, checkpoints[step]]
        provenance["made_of"] = made_of(sources, provenance["results"], DIGESTS)
        tables.write(log_odds, path, tables.LOG_ODDS, metadata=about, **provenance)
