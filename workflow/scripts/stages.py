from job import start
from sft_interactions import tables
from sft_interactions.analysis.stages import detect_stages, mean_losses, validation_losses

start(snakemake)
params, files = snakemake.params, snakemake.input
# A run that brings its checkpoints may bring what its trainer has measured.
losses = {int(step): loss for step, loss in (params.validation_losses or {}).items()}
if files.training:
    losses = validation_losses(tables.read(files.training[0], tables.TRAINING))
if files.losses:
    losses = mean_losses(tables.read(files.losses[0], tables.LOSSES))
stages = detect_stages(
    tables.read(files.dynamics, tables.DYNAMICS),
    losses,
    tables.read(files.solve, tables.SOLVE, ["sample_id"])["sample_id"].to_list(),
    params.steps,
    params.n_players,
    share=params.stages["removed_share"],
    seed=params.seed,
    **params.bootstrap,
)
tables.write_json({"run": snakemake.wildcards.run, **stages}, snakemake.output[0])
