import polars as pl

from job import start
from sft_interactions import tables
from sft_interactions.analysis.runs import overall_metrics, read_stages
from sft_interactions.analysis.stages import counted_losses
from sft_interactions.analysis.turnover import detect
from sft_interactions.analysis.verdict import Facts, judge, write_page

start(snakemake)
files, params = snakemake.input, snakemake.params
with_losses = dict(zip(params.with_losses, files.losses, strict=True))
facts = []
for run, title, steps, losses_are, *paths in zip(
    params.runs,
    params.labels,
    params.steps,
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
    told = tables.read(prompts, tables.PROMPTS, ["sample_id", "rendered", "target_text"]).join(
        tables.read_samples(data).select("sample_id", "target"),
        on="sample_id",
        maintain_order="left",
    )
    losses = read_stages(stages)["evidence"]["validation_loss"]
    facts.append(
        Facts(
            title=title,
            steps=steps,
            n_samples=len(samples),
            n_players=params.n_players,
            metrics=overall_metrics(tables.read(metrics, tables.METRICS)),
            stage=detect(rows, samples, steps, params.level),
            losses={int(step): loss for step, loss in losses.items()},
            whose_losses=losses_are,
            sample_losses=counted_losses(tables.read(with_losses[run], tables.LOSSES))
            if run in with_losses
            else None,
            skipped=params.skipped,
            level=params.level,
            read=told.select("rendered", "target_text", "target").row(0),
            n_parts=told.filter(
                pl.col("target_text").str.strip_chars() != pl.col("target").str.strip_chars()
            ).height,
        )
    )
verdicts = [judge(run) for run in facts]
with tables.replacing(snakemake.output.page) as temporary:
    temporary.write_text(write_page(facts, verdicts), "utf-8")
table = pl.DataFrame(
    {
        "run": params.runs,
        "kept_step": pl.Series([one.kept_step for one in verdicts], dtype=pl.Int64),
        "checkpoint": [one.checkpoint for one in verdicts],
        "learning": [one.learning for one in verdicts],
        "interactions": [one.interactions for one in verdicts],
        "stage": [one.stage for one in verdicts],
    }
)
with tables.replacing(snakemake.output.csv) as temporary:
    table.write_csv(temporary)
