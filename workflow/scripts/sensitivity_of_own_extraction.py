from job import progress_bar, start
from sft_interactions import tables
from sft_interactions.analysis.choices import BEFORE_SFT, TUNED, Choice
from sft_interactions.analysis.dynamics import salient_at
from sft_interactions.analysis.sensitivity import ExtractedRun, vary_findings
from sft_interactions.analysis.stability import UnchangedRun, noise_perturbation
from sft_interactions.extraction.interactions import to_values
from sft_interactions.parallel import Workers

provenance = start(snakemake)
params, files = snakemake.params, snakemake.input
floor, steps = params.stability, params.steps
tested = {name: Choice(**settings) for name, settings in params.choices.items()}
own = next(iter(tested.values()))
# Those of the rule stable have shares.
table = tables.SELECTION if "selection" in floor else tables.INTERACTIONS


def open_checkpoint(interactions_path, solve_path):
    return tables.scan(interactions_path, table), tables.read(solve_path, tables.SOLVE)


def open_reference():
    """Tables of the reference model, by its name: of the job's own, or of both."""
    pairs = list(zip(files.reference[::2], files.reference[1::2], strict=True))
    models = [own.reference_model] if len(pairs) == 1 else [BEFORE_SFT, TUNED]
    return {
        model: open_checkpoint(*pair)
        for model, pair in zip(models if pairs else [], pairs, strict=True)
    }


samples, first = to_values(tables.read(files.log_odds[0], tables.LOG_ODDS), files.log_odds[0])
checkpoints, references, readings, reference_readings = {}, {}, {}, {}
if files.get("readings") is None:
    checkpoints = {
        step: open_checkpoint(*paths)
        for step, *paths in zip(steps, files.interactions, files.solve, strict=True)
    }
    references = open_reference()
else:
    rows = tables.read(files.readings, tables.READINGS).filter(reading=own.reading)
    readings[own.reading] = rows.drop("reading", "generalizable", "chance")
    for path in files.reference:
        of_reference = tables.read(path, tables.READINGS).filter(reading=own.reading)
        reference_readings[own.reading] = salient_at(of_reference, params.reference_step)
errors = {
    step: float(tables.read_metadata(path)["log_odds_error_rms"])
    for step, path in zip(steps, files.log_odds, strict=True)
}
with (
    progress_bar(snakemake, len(tested), "choice") as bar,
    Workers(snakemake.threads) as workers,
):
    unchanged = UnchangedRun(
        first,
        samples,
        steps,
        noise_perturbation(floor["churn_noise"], own.tie_break),
        noise_ratio=own.noise_ratio,
        noise_scale=own.noise_scale,
        n_samples=floor["samples"],
        draws=floor["draws"],
        seed=params.seed,
        errors=errors,
        solved=(
            tables.read(files.unchanged, tables.UNCHANGED_INTERACTIONS),
            tables.read(files.unchanged_solve, tables.UNCHANGED_SOLVE),
        ),
        mapped=workers.map,
    )
    findings = vary_findings(
        ExtractedRun(
            samples,
            params.n_players,
            checkpoints,
            references,
            unchanged,
            own.reading,
            readings,
            reference_readings,
        ),
        tested,
        bootstrap=params.bootstrap,
        removed_share=params.removed_share,
        seed=params.seed,
        tolerance=params.l1_tolerance,
        progress=bar.update,
    )
tables.write(findings, snakemake.output[0], tables.SENSITIVITY_JOB, **provenance)
