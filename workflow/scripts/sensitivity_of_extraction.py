from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.analysis.choices import Choice
from sft_interactions.analysis.sensitivity import count_extractions, extract_run, vary_findings
from sft_interactions.extraction.interactions import to_values
from sft_interactions.parallel import Workers

provenance = start(snakemake)
params = snakemake.params
tested = {name: Choice(**settings) for name, settings in params.choices.items()}
choice = next(iter(tested.values()))


def read(keys, paths):
    """v and its measured error, by key, and the sample ids of the last file."""
    values, errors, samples = {}, {}, []
    for key, path in zip(keys, paths, strict=True):
        samples, values[key] = to_values(tables.read(path, tables.LOG_ODDS), path)
        errors[key] = float(tables.read_metadata(path)["log_odds_error_rms"])
    return values, errors, samples


values, errors, samples = read(params.steps, snakemake.input.log_odds)
reference, reference_errors, _ = read(params.reference_steps, snakemake.input.reference)
total = count_extractions(len(samples), len(values), len(reference), params.stability)
with progress_bar(snakemake, total, "extraction") as bar, Workers(snakemake.threads) as workers:
    extracted = extract_run(
        choice,
        values,
        reference,
        samples,
        stability=params.stability,
        seed=params.seed,
        gap_tolerance=params.gap_tolerance,
        tolerance=params.l1_tolerance,
        errors=errors,
        reference_errors=reference_errors,
        selection=params.stability.get("selection"),
        progress=bar.update,
        mapped=workers.map,
    )
    findings = vary_findings(
        extracted,
        tested,
        bootstrap=params.bootstrap,
        removed_share=params.removed_share,
        seed=params.seed,
        tolerance=params.l1_tolerance,
    )
tables.write(findings, snakemake.output[0], tables.SENSITIVITY_JOB, **provenance)
