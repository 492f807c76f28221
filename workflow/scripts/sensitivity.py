from itertools import product

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.analysis.sensitivity import (
    BEFORE_SFT,
    TUNED,
    Choice,
    choices,
    vary_findings,
)
from sft_interactions.extraction.interactions import to_values

provenance = start(snakemake)
params = snakemake.params
varied, mask_embeddings = params.sensitivity, params.mask_embeddings


def read_values(path):
    return to_values(tables.read(path, tables.LOG_ODDS), path)


def read_error(path):
    return float(tables.read_metadata(path)["log_odds_error_rms"])


values = {mask_embedding: {} for mask_embedding in mask_embeddings}
errors = {mask_embedding: {} for mask_embedding in mask_embeddings}
for (mask_embedding, step), path in zip(
    product(mask_embeddings, params.steps), snakemake.input.log_odds, strict=True
):
    samples, values[mask_embedding][step] = read_values(path)
    errors[mask_embedding][step] = read_error(path)

references = {mask_embedding: {} for mask_embedding in mask_embeddings}
reference_errors = {mask_embedding: {} for mask_embedding in mask_embeddings}
has_reference = bool(snakemake.input.reference)
if has_reference:
    for (mask_embedding, model), path in zip(
        product(mask_embeddings, (BEFORE_SFT, TUNED)), snakemake.input.reference, strict=True
    ):
        _, references[mask_embedding][model] = read_values(path)
        reference_errors[mask_embedding][model] = read_error(path)

own = Choice(
    params.salience,
    params.extraction["noise_ratio"],
    params.extraction["noise_scale"],
    params.extraction["tie_break"],
    reference_model=BEFORE_SFT if params.reference_checkpoint == "first" else TUNED,
    mask_embedding=mask_embeddings[0],
)
tested = choices(
    own,
    varied["salience"],
    varied["noise_ratio"],
    varied["noise_scales"],
    varied["tie_breaks"],
    mask_embeddings,
    has_reference,
)
with progress_bar(snakemake, len(tested), "choice") as bar:
    findings = vary_findings(
        values,
        references,
        samples,
        tested,
        stability=params.stability,
        bootstrap=params.bootstrap,
        removed_share=params.stages["removed_share"],
        seed=params.seed,
        errors=errors,
        reference_errors=reference_errors,
        selection=params.stability["selection"],
        tolerance=params.optima["l1_tolerance"],
        progress=bar.update,
    )
tables.write(findings, snakemake.output[0], tables.SENSITIVITY, **provenance)
