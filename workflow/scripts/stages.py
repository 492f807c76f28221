from job import start
from sft_interactions import tables
from sft_interactions.analysis.stages import (
    counted_losses,
    detect_stages,
    mean_losses,
    validation_losses,
)
from sft_interactions.analysis.verdict import overfits_after

provenance = start(snakemake)
params, files = snakemake.params, snakemake.input
# A run that brings its checkpoints may bring what its trainer has measured.
losses = {int(step): loss for step, loss in (params.validation_losses or {}).items()}
sample_losses = None
if files.training:
    losses = validation_losses(tables.read(files.training[0], tables.TRAINING))
if files.losses:
    responses = tables.read(files.losses[0], tables.LOSSES)
    losses, sample_losses = mean_losses(responses), counted_losses(responses)
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
# Figures draw overfitting where the verdict says so.
evidence = {
    **stages["evidence"],
    "overfits_after_step": overfits_after(losses, sample_losses, params.bootstrap["level"]),
}
tables.write_json(
    {"run": snakemake.wildcards.run, **stages, "evidence": evidence},
    snakemake.output[0],
    results=provenance["results"],
    made_of=provenance["made_of"],
)
