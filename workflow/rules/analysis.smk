def baseline_interactions(wildcards):
    baseline = RUNS[wildcards.run].get("baseline_run")
    if baseline is None:
        return []
    step = RUNS[baseline]["steps"][0]
    return [
        f"{RESULTS}/runs/{baseline}/interactions/step-{step}.parquet",
        f"{RESULTS}/runs/{baseline}/interactions/step-{step}.solve.parquet",
    ]


def training_table(wildcards):
    return [f"{RESULTS}/runs/{wildcards.run}/training.parquet"] * (wildcards.run in TUNED_RUNS)


rule dynamics:
    message:
        "Following the interactions of {wildcards.run} along its checkpoints"
    input:
        interactions=lambda wildcards: of_steps(
            wildcards.run, "interactions/step-{step}.parquet"
        ),
        solve=lambda wildcards: of_steps(
            wildcards.run, "interactions/step-{step}.solve.parquet"
        ),
        baseline=baseline_interactions,
    output:
        f"{RESULTS}/runs/{{run}}/dynamics.parquet",
    log:
        "logs/dynamics/{run}.log",
    benchmark:
        "logs/benchmarks/dynamics/{run}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    params:
        steps=lambda wildcards: RUNS[wildcards.run]["steps"],
        salience=config["salience"],
        n_players=config["players"]["n"],
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    conda:
        "../../envs/analysis.yaml"
    script:
        "../scripts/dynamics.py"


rule stability:
    message:
        "Measuring how far the interactions of {wildcards.run} move under noise alone"
    input:
        outputs=lambda wildcards: of_steps(wildcards.run, "outputs/step-{step}.parquet"),
        baseline=baseline_interactions,
    output:
        stability=f"{RESULTS}/runs/{{run}}/stability.parquet",
        unchanged=f"{RESULTS}/runs/{{run}}/unchanged.parquet",
    log:
        "logs/stability/{run}.log",
    benchmark:
        "logs/benchmarks/stability/{run}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    params:
        steps=lambda wildcards: RUNS[wildcards.run]["steps"],
        stability=config["stability"],
        salience=config["salience"],
        extraction=config["extraction"],
        n_players=config["players"]["n"],
        seed=config["seed"],
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
    conda:
        "../../envs/analysis.yaml"
    script:
        "../scripts/stability.py"


rule salience_sensitivity:
    message:
        "Tabulating {wildcards.run} under other salience rules"
    input:
        interactions=lambda wildcards: of_steps(
            wildcards.run, "interactions/step-{step}.parquet"
        ),
        solve=lambda wildcards: of_steps(
            wildcards.run, "interactions/step-{step}.solve.parquet"
        ),
        baseline=baseline_interactions,
    output:
        csv=f"{RESULTS}/tables/salience-{{run}}.csv",
        md=f"{RESULTS}/tables/salience-{{run}}.md",
    log:
        "logs/salience_sensitivity/{run}.log",
    benchmark:
        "logs/benchmarks/salience_sensitivity/{run}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    params:
        steps=lambda wildcards: RUNS[wildcards.run]["steps"],
        choices=config["sensitivity"]["salience"],
        n_players=config["players"]["n"],
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    conda:
        "../../envs/analysis.yaml"
    script:
        "../scripts/salience_sensitivity.py"


rule metrics:
    message:
        "Computing the metrics of {wildcards.run}"
    input:
        dynamics=f"{RESULTS}/runs/{{run}}/dynamics.parquet",
        unchanged=f"{RESULTS}/runs/{{run}}/unchanged.parquet",
        solve=lambda wildcards: of_steps(
            wildcards.run, "interactions/step-{step}.solve.parquet"
        )[0],
    output:
        f"{RESULTS}/runs/{{run}}/metrics.parquet",
    log:
        "logs/metrics/{run}.log",
    benchmark:
        "logs/benchmarks/metrics/{run}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    params:
        steps=lambda wildcards: RUNS[wildcards.run]["steps"],
        bootstrap=config["bootstrap"],
        n_players=config["players"]["n"],
        unchanged_samples=config["stability"]["samples"],
        seed=config["seed"],
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    conda:
        "../../envs/analysis.yaml"
    script:
        "../scripts/metrics.py"


rule stages:
    message:
        "Finding the end of the denoising stage of {wildcards.run}"
    input:
        dynamics=f"{RESULTS}/runs/{{run}}/dynamics.parquet",
        solve=lambda wildcards: of_steps(
            wildcards.run, "interactions/step-{step}.solve.parquet"
        )[0],
        training=training_table,
    output:
        f"{RESULTS}/runs/{{run}}/stages.json",
    log:
        "logs/stages/{run}.log",
    benchmark:
        "logs/benchmarks/stages/{run}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    params:
        steps=lambda wildcards: RUNS[wildcards.run]["steps"],
        stages=config["stages"],
        bootstrap=config["bootstrap"],
        seed=config["seed"],
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    conda:
        "../../envs/analysis.yaml"
    script:
        "../scripts/stages.py"


rule tables:
    message:
        "All tables are there"
    input:
        every_run("players.parquet"),
        every_run("metrics.parquet"),
        every_run("stages.json"),
        every_run("stability.parquet"),
        expand(f"{RESULTS}/tables/salience-{{run}}.{{form}}", run=RUNS, form=["csv", "md"]),
