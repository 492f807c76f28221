from job import start
from sft_interactions import tables
from sft_interactions.interactions import to_values
from sft_interactions.sensitivity import Choice, choices, vary_findings

provenance = start(snakemake)
params = snakemake.params


def read_values(path):
    return to_values(tables.read(path, tables.OUTPUTS), path)


values = {}
for step, path in zip(params.steps, snakemake.input.outputs, strict=True):
    samples, values[step] = read_values(path)
names = ("before SFT", "tuned")
baseline = {
    name: read_values(path)[1] for name, path in zip(names, snakemake.input.baseline, strict=False)
}
own = Choice(
    params.salience,
    params.extraction["noise_ratio"],
    baseline_llm=dict(zip(("first", "last"), names, strict=True))[params.baseline_checkpoint],
)
varied = params.sensitivity
tested = choices(
    own, varied["salience"], varied["noise_ratio"], varied["tie_breaks"], bool(baseline)
)
findings = vary_findings(
    values,
    baseline,
    samples,
    tested,
    stability=params.stability,
    bootstrap=params.bootstrap,
    removed_share=params.stages["removed_share"],
    seed=params.seed,
)
tables.write(findings, snakemake.output[0], tables.SENSITIVITY, **provenance)
