import polars as pl

from job import start
from sft_interactions import tables
from sft_interactions.analysis.runs import overall_metrics, read_stages
from sft_interactions.analysis.stages import counted_losses
from sft_interactions.analysis.turnover import detect
from sft_interactions.analysis.verdict import Facts, judge, metrics_of_covered, write_page
from sft_interactions.origin import note_of_page
from sft_interactions.verdict_table import SENTENCES

provenance = start(snakemake)
files, params = snakemake.input, snakemake.params
with_losses = dict(zip(params.with_losses, files.losses, strict=True))
facts = []
for run, title, steps, ended, skipped, losses_are, *paths in zip(
    params.runs,
    params.labels,
    params.steps,
    params.ended,
    params.skipped,
    params.losses_are,
    files.metrics,
    files.dynamics,
    files.solve,
    files.stages,
    files.prompts,
    files.analysis,
    strict=True,
):
    metrics, dynamics, solve, stages, prompts, data = paths
    samples = tables.read(solve, tables.SOLVE, ["sample_id"])["sample_id"].to_list()
    rows = tables.read(dynamics, tables.DYNAMICS)
    sample_id, *read = tables.read(
        prompts, tables.PROMPTS, ["sample_id", "rendered", "target_text"]
    ).row(0)
    response = tables.read_samples(data).filter(sample_id=sample_id)["target"].item()
    losses = read_stages(stages)["evidence"]["validation_loss"]
    n_covered = min(params.noise_samples, len(samples))
    covered = metrics_of_covered(
        rows, samples, n_covered, steps, params.n_players, level=params.level
    )
    facts.append(
        Facts(
            title=title,
            steps=steps,
            ended=ended,
            n_samples=len(samples),
            n_players=params.n_players,
            players=params.players,
            metrics=overall_metrics(tables.read(metrics, tables.METRICS)),
            covered=covered,
            n_covered=n_covered,
            stage=detect(rows, samples, steps, params.level),
            losses={int(step): loss for step, loss in losses.items()},
            whose_losses=losses_are,
            sample_losses=counted_losses(tables.read(with_losses[run], tables.LOSSES))
            if run in with_losses
            else None,
            skipped=skipped,
            level=params.level,
            read=(*read, response),
            n_parts=int(tables.read_metadata(prompts)["part_of_response"]),
        )
    )
verdicts = [judge(run) for run in facts]
sources = [*files.metrics, *files.dynamics, *files.stages]
with tables.replacing(snakemake.output.page) as temporary:
    note = note_of_page(sources, provenance["results"])
    temporary.write_text(f"{write_page(facts, verdicts)}\n{note}", "utf-8")
table = pl.DataFrame(
    {
        "run": params.runs,
        "kept_step": pl.Series([one.kept_step for one in verdicts], dtype=pl.Int64),
        **{name: [getattr(one, name) for one in verdicts] for name in SENTENCES},
    }
)
with tables.replacing(snakemake.output.csv) as temporary:
    table.write_csv(temporary)
