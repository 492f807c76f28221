import polars as pl

from job import start
from sft_interactions import report_table, tables
from sft_interactions.analysis import (
    agreement,
    carriers,
    faithfulness,
    sparsity,
    stages,
    strongest,
    verdicts,
)
from sft_interactions.analysis.paper import compare
from sft_interactions.analysis.protocol import examine, tabulate_over_seeds
from sft_interactions.analysis.runs import (
    best_checkpoints,
    checkpoints_by_run,
    concat_runs,
    overall_metrics,
    read_runs,
    read_stages,
    tell_few_checkpoints,
)
from sft_interactions.analysis.seeds import compute_metrics_over_seeds

start(snakemake)
files, params = snakemake.input, snakemake.params
notes: list[str] = []
intervals = None
match snakemake.rule:
    case "metrics_table":
        metrics = [overall_metrics(tables.read(path, tables.METRICS)) for path in files.metrics]
        table = concat_runs(params.runs, metrics)
    case "stages_table":
        # Of runs that bring their checkpoints the training data are not known.
        sizes = iter(
            [
                tables.scan(path, tables.DATA).select(pl.len()).collect().item()
                for path in files.train
            ]
        )
        trainings = [
            None if batches is None else stages.Training(next(sizes), *batches)
            for batches in params.batches
        ]
        found = [read_stages(path) for path in files.stages]
        table = stages.tabulate(found, trainings)
        notes = tell_few_checkpoints(
            {one["run"]: sorted(map(int, one["evidence"]["removed_count"])) for one in found}
        )
    case "class_prediction_table":
        table = carriers.tabulate(read_runs(params.runs, files.metrics, files.stages))
    case "faithfulness_table":
        checkpoints = checkpoints_by_run(
            params.runs,
            params.steps,
            log_odds=files.log_odds,
            interactions=files.interactions,
            solve=files.solve,
        )
        table = faithfulness.tabulate(checkpoints, params.salience, level=params.level)
    case "sparsity_table":
        checkpoints = checkpoints_by_run(
            params.runs, params.steps, interactions=files.interactions, solve=files.solve
        )
        table = sparsity.tabulate(
            checkpoints, params.n_players, params.salience, level=params.level
        )
    case "sensitivity_table":
        tested = [tables.read(path, tables.SENSITIVITY) for path in files.sensitivity]
        table = concat_runs(params.runs, tested).drop("position", "statement", "threshold")
    case "verdicts_table":
        tested = [tables.read(path, tables.SENSITIVITY) for path in files.sensitivity]
        table = concat_runs(params.runs, [verdicts.tabulate(one) for one in tested])
    case "seeds_table" | "seed_verdicts_table" | "seed_agreement_table":
        if not params.repeated:
            raise ValueError(
                "runs: no two differ in the seed alone, so there is no table over seeds; add such a run"
            )
        parts, dynamics = [], iter(files.dynamics)
        for (name, runs), steps, solve in zip(
            params.repeated.items(), params.steps, files.solve, strict=True
        ):
            of_seeds = [tables.read(next(dynamics), tables.DYNAMICS) for _ in runs]
            samples = tables.read(solve, tables.SOLVE, ["sample_id"])["sample_id"].to_list()
            if snakemake.rule == "seed_verdicts_table":
                tested = [
                    examine(rows, samples, steps, params.n_players, level=params.level)
                    for rows in of_seeds
                ]
                rows = tabulate_over_seeds(tested, params.level)
            elif snakemake.rule == "seed_agreement_table":
                rows = agreement.tabulate(of_seeds, samples, steps, params.level)
            else:
                rows = compute_metrics_over_seeds(
                    of_seeds, samples, steps, params.n_players, level=params.level
                )
            columns = [pl.lit(name).alias("runs"), pl.lit(len(runs)).alias("n_seeds"), pl.all()]
            parts.append(rows.select(columns))
        table = pl.concat(parts)
        if snakemake.rule != "seed_agreement_table":
            intervals = report_table.OVER_SEEDS
    case "strongest_table":
        players, prompts, dynamics = (
            [tables.read(path, table, columns) for path in paths]
            for paths, table, columns in (
                (files.players, tables.PLAYERS, ["sample_id", "player", "word"]),
                (files.prompts, tables.PROMPTS, ["sample_id", "target_text"]),
                (
                    files.dynamics,
                    tables.DYNAMICS,
                    ["sample_id", "step", "kind", "pattern", "class"],
                ),
            )
        )
        best = best_checkpoints(
            checkpoints_by_run(
                params.runs, params.steps, interactions=files.interactions, solve=files.solve
            ),
            files.stages,
        )
        table = strongest.tabulate(best, dynamics, players, prompts, params.salience, params.most)
    case "paper_table":
        runs = read_runs(params.labels, files.metrics, files.stages)
        table = compare(pl.read_csv(files.paper, glob=False), runs)
report_table.write(
    table,
    snakemake.output.csv,
    snakemake.output.md,
    **params.size,
    intervals=intervals,
    notes=notes,
    # The words are of the parts of the findings, not of those of the protocol.
    in_words=snakemake.rule == "sensitivity_table",
)
