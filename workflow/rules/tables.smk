rule metrics_table:
    input:
        metrics=every_run("metrics.parquet"),
    output:
        csv=f"{RESULTS}/tables/metrics.csv",
        md=report_table("metrics"),
    log:
        "logs/tables/metrics.log",
    benchmark:
        "logs/benchmarks/tables/metrics.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        runs=list(RUNS),
        level=config["bootstrap"]["level"],
    message:
        "Tabulating the metrics of all runs"
    script:
        "../scripts/metrics_table.py"


rule stages_table:
    input:
        stages=every_run("stages.json"),
        train=sorted({train for _, train in batches() if train}),
    output:
        csv=f"{RESULTS}/tables/stages.csv",
        md=report_table("stages"),
    log:
        "logs/tables/stages.log",
    benchmark:
        "logs/benchmarks/tables/stages.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        batches=batches(),
        level=config["bootstrap"]["level"],
        removed_share=config["stages"]["removed_share"],
    message:
        "Tabulating where the denoising stages end"
    script:
        "../scripts/stages_table.py"


rule class_prediction_table:
    input:
        metrics=every_run("metrics.parquet"),
        stages=every_run("stages.json"),
    output:
        csv=f"{RESULTS}/tables/class-prediction.csv",
        md=report_table("class-prediction"),
    log:
        "logs/tables/class-prediction.log",
    benchmark:
        "logs/benchmarks/tables/class-prediction.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        runs=list(RUNS),
        level=config["bootstrap"]["level"],
    message:
        "Tabulating which interactions carry the prediction"
    script:
        "../scripts/class_prediction_table.py"


rule faithfulness_table:
    input:
        log_odds=every_step(RUNS, "log_odds/step-{step}.parquet"),
        interactions=interactions_of(RUNS),
        stages=every_run("stages.json"),
    output:
        csv=f"{RESULTS}/tables/faithfulness.csv",
        md=report_table("faithfulness"),
    log:
        "logs/tables/faithfulness.log",
    benchmark:
        "logs/benchmarks/tables/faithfulness.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        runs=list(RUNS),
        steps=[RUNS[run]["steps"] for run in RUNS],
        salience=config["salience"],
        bootstrap=config["bootstrap"],
        seed=config["seed"],
    message:
        "Tabulating faithfulness"
    script:
        "../scripts/faithfulness_table.py"


rule sparsity_table:
    input:
        interactions=interactions_of(RUNS),
        stages=every_run("stages.json"),
    output:
        csv=f"{RESULTS}/tables/sparsity.csv",
        md=report_table("sparsity"),
    log:
        "logs/tables/sparsity.log",
    benchmark:
        "logs/benchmarks/tables/sparsity.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        runs=list(RUNS),
        steps=[RUNS[run]["steps"] for run in RUNS],
        salience=config["salience"],
        bootstrap=config["bootstrap"],
        n_players=config["players"]["n"],
        seed=config["seed"],
    message:
        "Tabulating sparsity"
    script:
        "../scripts/sparsity_table.py"


rule sensitivity_table:
    input:
        sensitivity=every_run("sensitivity.parquet"),
    output:
        csv=f"{RESULTS}/tables/sensitivity.csv",
        md=report_table("sensitivity"),
    log:
        "logs/tables/sensitivity.log",
    benchmark:
        "logs/benchmarks/tables/sensitivity.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        runs=list(RUNS),
        level=config["bootstrap"]["level"],
    message:
        "Tabulating the findings under other choices"
    script:
        "../scripts/sensitivity_table.py"


rule seeds_table:
    input:
        dynamics=[
            path for runs in REPEATED.values() for path in every_run("dynamics.parquet", runs)
        ],
        solve=[
            of_steps(runs[0], "interactions/step-{step}.solve.parquet")[0]
            for runs in REPEATED.values()
        ],
    output:
        csv=f"{RESULTS}/tables/seeds.csv",
        md=report_table("seeds"),
    log:
        "logs/tables/seeds.log",
    benchmark:
        "logs/benchmarks/tables/seeds.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        repeated=REPEATED,
        steps=[RUNS[runs[0]]["steps"] for runs in REPEATED.values()],
        bootstrap=config["bootstrap"],
        n_players=config["players"]["n"],
        seed=config["seed"],
    message:
        "Tabulating the metrics of runs with several seeds"
    script:
        "../scripts/seeds_table.py"


rule paper_table:
    input:
        paper=f"{workflow.basedir}/workflow/resources/paper_values.csv",
        metrics=every_run("metrics.parquet"),
        stages=every_run("stages.json"),
    output:
        csv=f"{RESULTS}/tables/paper.csv",
        md=report_table("paper"),
    log:
        "logs/tables/paper.log",
    benchmark:
        "logs/benchmarks/tables/paper.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        labels=labels_of(RUNS),
    message:
        "Tabulating the paper's numbers beside those of the study"
    script:
        "../scripts/paper_table.py"


rule tables:
    input:
        every_run("players.parquet"),
        every_run("metrics.parquet"),
        every_run("stages.json"),
        every_run("stability.parquet"),
        rules.findings.output,
        rules.stages_table.output,
        rules.metrics_table.output,
        rules.class_prediction_table.output,
        rules.faithfulness_table.output,
        rules.sparsity_table.output,
        rules.sensitivity_table.output,
        rules.paper_table.output,
        list(rules.seeds_table.output) if REPEATED else [],
        expand(f"{RESULTS}/tables/salience-{{run}}.{{form}}", run=RUNS, form=["csv", "md"]),
    message:
        "All tables are there"
