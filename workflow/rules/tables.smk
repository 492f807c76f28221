# All other tables are this rule with other files.
rule metrics_table:
    input:
        metrics=every_run("metrics.parquet"),
    output:
        **table_files("metrics"),
    log:
        f"{RESULTS}/logs/tables/metrics.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/metrics.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        runs=list(RUNS),
        level=config["bootstrap"]["level"],
        size=size_of(RUNS),
    message:
        "Tabulating the metrics of all runs"
    script:
        "../scripts/table.py"


use rule metrics_table as stages_table with:
    input:
        stages=every_run("stages.json"),
        train=[data_table(run, "train") for run in TUNED_RUNS],
    output:
        **table_files("stages"),
    log:
        f"{RESULTS}/logs/tables/stages.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/stages.tsv"
    params:
        batches=[batches_of(run) for run in RUNS],
        has_intervals=config["bootstrap"]["resamples"] > 0,
        removed_share=config["stages"]["removed_share"],
    message:
        "Tabulating where the denoising stages end"


use rule metrics_table as class_prediction_table with:
    input:
        metrics=every_run("metrics.parquet"),
        stages=every_run("stages.json"),
    output:
        **table_files("class-prediction"),
    log:
        f"{RESULTS}/logs/tables/class-prediction.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/class-prediction.tsv"
    message:
        "Tabulating which interactions carry the prediction"


use rule metrics_table as faithfulness_table with:
    input:
        log_odds=every_step("log_odds/step-{step}.parquet", RUNS),
        interactions=every_step(f"{INTERACTIONS}/step-{{step}}.parquet", RUNS),
        solve=every_step("interactions/step-{step}.solve.parquet", RUNS),
    output:
        **table_files("faithfulness"),
    log:
        f"{RESULTS}/logs/tables/faithfulness.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/faithfulness.tsv"
    params:
        steps=steps_of(RUNS),
        salience=config["salience"],
    message:
        "Tabulating faithfulness"


use rule metrics_table as sparsity_table with:
    input:
        interactions=every_step(f"{INTERACTIONS}/step-{{step}}.parquet", RUNS),
        solve=every_step("interactions/step-{step}.solve.parquet", RUNS),
    output:
        **table_files("sparsity"),
    log:
        f"{RESULTS}/logs/tables/sparsity.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/sparsity.tsv"
    params:
        steps=steps_of(RUNS),
        salience=config["salience"],
        n_players=config["players"]["n"],
    message:
        "Tabulating sparsity"


use rule metrics_table as sensitivity_table with:
    input:
        sensitivity=every_run("sensitivity.parquet"),
    output:
        **table_files("sensitivity"),
    log:
        f"{RESULTS}/logs/tables/sensitivity.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/sensitivity.tsv"
    message:
        "Tabulating the findings under other choices"


use rule sensitivity_table as verdicts_table with:
    output:
        **table_files("verdicts"),
    log:
        f"{RESULTS}/logs/tables/verdicts.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/verdicts.tsv"
    message:
        "Tabulating which verdicts the data determine"


use rule metrics_table as seeds_table with:
    input:
        **inputs_over_seeds(),
    output:
        **table_files("seeds"),
    log:
        f"{RESULTS}/logs/tables/seeds.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/seeds.tsv"
    params:
        repeated=REPEATED,
        steps=[RUNS[runs[0]]["steps"] for runs in REPEATED.values()],
        n_players=config["players"]["n"],
    message:
        "Tabulating the metrics of runs with several seeds"


use rule metrics_table as seed_verdicts_table with:
    input:
        **inputs_over_seeds(),
    output:
        **table_files("seed-verdicts"),
    log:
        f"{RESULTS}/logs/tables/seed-verdicts.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/seed-verdicts.tsv"
    params:
        repeated=REPEATED,
        steps=[RUNS[runs[0]]["steps"] for runs in REPEATED.values()],
        n_players=config["players"]["n"],
    message:
        "Testing the five findings over seeds"


use rule seed_verdicts_table as seed_agreement_table with:
    output:
        **table_files("seed-agreement"),
    log:
        f"{RESULTS}/logs/tables/seed-agreement.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/seed-agreement.tsv"
    message:
        "Tabulating which interactions the seeds of a fine-tuning share"


use rule metrics_table as strongest_table with:
    input:
        interactions=every_step(f"{INTERACTIONS}/step-{{step}}.parquet", RUNS),
        solve=every_step("interactions/step-{step}.solve.parquet", RUNS),
        dynamics=every_run("dynamics.parquet"),
        stages=every_run("stages.json"),
        players=every_run("players.parquet"),
        prompts=every_run("prompts.parquet"),
    output:
        **table_files("strongest-interactions"),
    log:
        f"{RESULTS}/logs/tables/strongest-interactions.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/strongest-interactions.tsv"
    params:
        steps=steps_of(RUNS),
        salience=config["salience"],
        most=5,
    message:
        "Tabulating the strongest interactions of every prompt"


use rule metrics_table as paper_table with:
    input:
        paper=f"{workflow.basedir}/workflow/resources/paper_values.csv",
        metrics=every_run("metrics.parquet"),
        stages=every_run("stages.json"),
    output:
        **table_files("paper"),
    log:
        f"{RESULTS}/logs/tables/paper.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/paper.tsv"
    params:
        labels=labels_of(RUNS),
    message:
        "Tabulating the paper's numbers beside those of the study"


TABLES_OVER_SEEDS = [
    *rules.seeds_table.output,
    *rules.seed_verdicts_table.output,
    *rules.seed_agreement_table.output,
]


rule tables:
    input:
        every_run("players.parquet"),
        every_run("metrics.parquet"),
        every_run("stages.json"),
        every_run("stability.parquet"),
        rules.findings.output,
        rules.protocol.output,
        rules.verdict.output,
        rules.stages_table.output,
        rules.metrics_table.output,
        rules.class_prediction_table.output,
        rules.faithfulness_table.output,
        rules.sparsity_table.output,
        rules.sensitivity_table.output,
        rules.verdicts_table.output,
        rules.strongest_table.output,
        rules.paper_table.output,
        TABLES_OVER_SEEDS if REPEATED else [],
        expand(f"{RESULTS}/tables/salience-{{run}}.{{form}}", run=RUNS, form=["csv", "md"]),
    message:
        "All tables are there"
