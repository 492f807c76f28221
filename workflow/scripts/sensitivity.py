from itertools import product

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.analysis.sensitivity import Choice, choices, vary_findings
from sft_interactions.extraction.interactions import to_values

provenance = start(snakemake)
params = snakemake.params
mask_embeddings = params.mask_embeddings


def read_values(path):
    return to_values(tables.read(path, tables.LOG_ODDS), path)


values, errors, reference = (
    {mask_embedding: {} for mask_embedding in mask_embeddings} for _ in range(3)
)
for (mask_embedding, step), path in zip(
    product(mask_embeddings, params.steps), snakemake.input.log_odds, strict=True
):
    samples, values[mask_embedding][step] = read_values(path)
    errors[mask_embedding][step] = float(tables.read_metadata(path)["log_odds_error_rms"])
names = ("before SFT", "tuned")
for (mask_embedding, name), path in zip(
    product(mask_embeddings, names), snakemake.input.reference, strict=False
):
    reference[mask_embedding][name] = read_values(path)[1]
own = Choice(
    params.salience,
    params.extraction["noise_ratio"],
    reference_model=dict(zip(("first", "last"), names, strict=True))[params.reference_checkpoint],
    mask_embedding=mask_embeddings[0],
)
varied = params.sensitivity
tested = choices(
    own,
    varied["salience"],
    varied["noise_ratio"],
    varied["tie_breaks"],
    mask_embeddings,
    bool(snakemake.input.reference),
)
with progress_bar(snakemake, len(tested), "choice") as bar:
    findings = vary_findings(
        values,
        reference,
        samples,
        tested,
        stability=params.stability,
        bootstrap=params.bootstrap,
        removed_share=params.stages["removed_share"],
        seed=params.seed,
        errors=errors,
        progress=bar.update,
    )
tables.write(findings, snakemake.output[0], tables.SENSITIVITY, **provenance)
