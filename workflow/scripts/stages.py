from job import start
from sft_interactions import tables
from sft_interactions.analysis.stages import detect_stages

start(snakemake)
params, files = snakemake.params, snakemake.input
stages = detect_stages(
    tables.read(files.dynamics, tables.DYNAMICS),
    tables.read(files.training[0], tables.TRAINING) if files.training else None,
    tables.read(files.solve, tables.SOLVE, ["sample_id"])["sample_id"].to_list(),
    params.steps,
    params.n_players,
    share=params.stages["removed_share"],
    seed=params.seed,
    **params.bootstrap,
)
tables.write_json({"run": snakemake.wildcards.run, **stages}, snakemake.output[0])
