import datetime
import os
import platform
from pathlib import Path

import polars as pl
import yaml

from job import start
from sft_interactions import tables, verdict_table
from sft_interactions.analysis.runs import read_stages
from sft_interactions.origin import check_page
from sft_interactions.report_page import records
from sft_interactions.report_page.explorer import RunTables
from sft_interactions.report_page.page import FigureOnPage, RunOnPage, Study, build

start(snakemake)
files, params = snakemake.input, snakemake.params
results = Path(snakemake.output[0]).parent
check_page(files.verdict_page, [*files.metrics, *files.dynamics, *files.stages], results)
log_odds, interactions = iter(files.log_odds), iter(files.interactions)
runs = []
for run, analysis, prompts, players, dynamics, metrics, sensitivity, stages in zip(
    params.runs,
    files.analysis,
    files.prompts,
    files.players,
    files.dynamics,
    files.metrics,
    files.sensitivity,
    files.stages,
    strict=True,
):
    losses = read_stages(stages)["evidence"]["validation_loss"]
    of_run = [next(log_odds) for _ in run["steps"]]
    runs.append(
        RunOnPage(
            tables=RunTables(
                run["name"],
                run["label"],
                run["steps"],
                analysis,
                prompts,
                players,
                dynamics,
                of_run,
                [next(interactions) for _ in run["steps"]],
            ),
            about={**run["about"], "log-odds": records.describe_log_odds(of_run)},
            metrics=tables.read(metrics, tables.METRICS),
            sensitivity=tables.read(sensitivity, tables.SENSITIVITY),
            losses={int(step): loss for step, loss in losses.items()},
            losses_are=run["losses_are"],
        )
    )
names = {run["name"] for run in params.runs}
others = [folder.name for folder in (results / "runs").iterdir() if folder.name not in names]
parquet = [path for path in files if str(path).endswith(".parquet")]
digests = records.read_digests(parquet, results)
now = datetime.datetime.now(datetime.UTC)
study = Study(
    title=f"What fine-tuning did: {results.name}",
    made=[
        ("page made on", f"{now:%Y-%m-%d %H:%M} UTC"),
        ("tables made by version", ", ".join(sorted(set(digests["code"])))),
        ("page made by version", tables.code_version()),
        ("checkout", records.checkout_of(Path(records.__file__).parents[3])),
        ("page made with", f"Python {platform.python_version()}, polars {pl.__version__}"),
        (
            "page made on machine",
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        ),
        ("seed", str(params.seed)),
    ],
    runs=runs,
    verdict=pl.DataFrame(verdict_table.read(files.verdict, files.verdict_page)),
    findings=tables.read(files.findings, tables.FINDINGS),
    parts=tables.read(files.parts, tables.FINDING_PARTS),
    protocol=tables.read(files.protocol, tables.PROTOCOL),
    turnover=tables.read(files.turnover, tables.TURNOVER),
    figures=[
        FigureOnPage(name, svg, caption, params.figures[name])
        for name, svg, caption in zip(params.figures, files.figures, files.captions, strict=True)
    ],
    files=params.files,
    config=yaml.safe_dump(params.config, allow_unicode=True, sort_keys=False),
    costs=records.read_costs(params.benchmarks, others),
    warned=records.read_warnings(params.logs, others),
    digests=digests,
    skipped=records.read_skipped(dict.fromkeys([*files.analysis, *files.prompts]), results),
)
with tables.replacing(snakemake.output[0]) as temporary:
    temporary.write_text(build(study), "utf-8")
