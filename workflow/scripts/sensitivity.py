from itertools import product

from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.interactions import to_values
from sft_interactions.sensitivity import Choice, choices, vary_findings

provenance = start(snakemake)
params = snakemake.params
kinds = params.masking_baselines


def read_values(path):
    return to_values(tables.read(path, tables.OUTPUTS), path)


values, errors, baseline = ({kind: {} for kind in kinds} for _ in range(3))
for (kind, step), path in zip(product(kinds, params.steps), snakemake.input.outputs, strict=True):
    samples, values[kind][step] = read_values(path)
    errors[kind][step] = float(tables.read_metadata(path)["log_odds_error_rms"])
names = ("before SFT", "tuned")
for (kind, name), path in zip(product(kinds, names), snakemake.input.baseline, strict=False):
    baseline[kind][name] = read_values(path)[1]
own = Choice(
    params.salience,
    params.extraction["noise_ratio"],
    baseline_llm=dict(zip(("first", "last"), names, strict=True))[params.baseline_checkpoint],
    masking_baseline=kinds[0],
)
varied = params.sensitivity
tested = choices(
    own,
    varied["salience"],
    varied["noise_ratio"],
    varied["tie_breaks"],
    kinds,
    bool(snakemake.input.baseline),
)
with progress_bar(snakemake, len(tested), "choice") as bar:
    findings = vary_findings(
        values,
        baseline,
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
