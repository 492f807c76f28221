from pathlib import Path

from job import start
from sft_interactions import tables
from sft_interactions.masking.parts import merge, shared_inputs_digest, shared_made_of

provenance = start(snakemake)
run, step = snakemake.wildcards.run, snakemake.wildcards.step
shards = [Path(folder) / f"step-{step}.parquet" for folder in snakemake.input.shards]
prompts = tables.read(snakemake.input.prompts, tables.PROMPTS)
log_odds = merge(
    [tables.read(path, tables.LOG_ODDS) for path in shards], prompts, f"{run}, step {step}"
)
# Not that of the shards as files, which say how samples are divided into jobs.
provenance["inputs_digest"] = shared_inputs_digest(shards)
provenance["made_of"] = shared_made_of(shards)
about = {}
for path in shards:
    metadata = tables.read_metadata(path)
    about |= {key: metadata[key] for key in tables.LOG_ODDS_METADATA if key in metadata}
tables.write(log_odds, snakemake.output[0], tables.LOG_ODDS, metadata=about, **provenance)
