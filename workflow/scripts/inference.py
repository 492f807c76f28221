from functools import cache
from pathlib import Path

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.masking.checkpoint import Checkpoint
from sft_interactions.masking.devices import pick_device, use_reproducible_float32
from sft_interactions.masking.log_odds import MaskedPrompt
from sft_interactions.masking.parts import Parts, evaluate, fingerprint, folder_state
from sft_interactions.models.loading import load_base, load_checkpoint

provenance = start(snakemake)
settings, compute = snakemake.params.inference, snakemake.params.compute
model, steps, shard = snakemake.input.model, snakemake.params.steps, int(snakemake.wildcards.shard)
device = pick_device(compute["device"])
use_reproducible_float32(compute["threads"])
metadata = tables.read_metadata(snakemake.input.prompts)
token_id = metadata.get("mask_token_id")
name = snakemake.wildcards.get("mask_embedding", metadata["mask_embedding"])
mask_embedding = {"name": name, "token_id": token_id and int(token_id)}
if snakemake.input.learned:
    learned = tables.read(snakemake.input.learned[0], tables.MASK_EMBEDDING)
    mask_embedding["vector"] = learned["value"].to_list()
rows = tables.read(snakemake.input.prompts, tables.PROMPTS).to_dicts()
columns = ("token_ids", "player_of_token", "target_token_ids")
prompts = {
    row["sample_id"]: MaskedPrompt(*(row[column] for column in columns))
    for row in rows[shard :: settings["shards"]]
}
base = cache(lambda: load_base(model))


def evaluate_step(step, bar):
    path = Path(snakemake.input.checkpoints) / f"step-{step}"
    depends_on = {
        "model": folder_state(model),
        "checkpoint": folder_state(path),
        "mask_embedding": mask_embedding,
        "settings": {
            key: settings[key] for key in ("dtype", "method", "batch_tokens", "memory_gb")
        },
        "device": [device.type, compute["threads"]],
    }
    keys = {
        sample_id: fingerprint(
            prompt=[list(getattr(prompt, column)) for column in columns],
            measured=sample_id == rows[0]["sample_id"],
            **depends_on,
        )
        for sample_id, prompt in prompts.items()
    }

    @cache
    def checkpoint():
        weights = load_checkpoint(model, path, "cpu", base=base if len(steps) > 1 else None)
        return Checkpoint(weights, device, settings, mask_embedding)

    def log_odds(sample_id):
        values = checkpoint().log_odds(prompts[sample_id], bar.update)
        about = {"dtype": settings["dtype"], "method": checkpoint().method}
        if sample_id == rows[0]["sample_id"]:  # of one sample, so that shards do not change it
            about |= checkpoint().error(prompts[sample_id], values)
        return values, about

    def done(sample_id, was_kept):
        if was_kept:
            bar.initial += 2 ** prompts[sample_id].n
            bar.update(2 ** prompts[sample_id].n)
        bar.samples += 1
        bar.set_postfix_str(f"{bar.samples} of {len(prompts) * len(steps)} samples", refresh=False)

    rows_of_step, about = evaluate(parts, keys, log_odds, done)
    path = folder / f"step-{step}.parquet"
    tables.write(rows_of_step, path, tables.LOG_ODDS, metadata=about, **provenance)
    return keys.values()


folder = Path(snakemake.output[0])
parts = Parts(folder.parent / "parts", **provenance)
maskings = len(steps) * sum(2**prompt.n for prompt in prompts.values())
with progress_bar(snakemake, maskings, "masking") as bar:
    bar.samples = 0
    used = [key for step in steps for key in evaluate_step(step, bar)]
parts.remove(used)
