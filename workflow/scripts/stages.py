import json

from job import start
from sft_interactions import tables
from sft_interactions.analysis.stages import detect_stages

start(snakemake)
samples = tables.read(snakemake.input.solve, tables.SOLVE, ["sample_id"])["sample_id"]
training = snakemake.input.training
stages = detect_stages(
    tables.read(snakemake.input.dynamics, tables.DYNAMICS),
    tables.read(training, tables.TRAINING) if training else None,
    samples.to_list(),
    snakemake.params.steps,
    snakemake.params.n_players,
    share=snakemake.params.stages["removed_share"],
    seed=snakemake.params.seed,
    **snakemake.params.bootstrap,
)
with tables.replacing(snakemake.output[0]) as temporary:
    temporary.write_text(json.dumps({"run": snakemake.wildcards.run, **stages}, indent=2) + "\n")
