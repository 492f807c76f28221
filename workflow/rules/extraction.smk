rule interactions:
    input:
        f"{RESULTS}/runs/{{run}}/log_odds/step-{{step}}.parquet",
    output:
        interactions=f"{RESULTS}/runs/{{run}}/interactions/step-{{step}}.parquet",
        solve=f"{RESULTS}/runs/{{run}}/interactions/step-{{step}}.solve.parquet",
    log:
        f"{RESULTS}/logs/interactions/{{run}}/step-{{step}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/interactions/{{run}}/step-{{step}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        extraction=config["extraction"],
    message:
        "Extracting the interactions of {wildcards.run}, step {wildcards.step}"
    script:
        "../scripts/interactions.py"


rule ranges:
    input:
        log_odds=f"{RESULTS}/runs/{{run}}/log_odds/step-{{step}}.parquet",
        interactions=f"{RESULTS}/runs/{{run}}/interactions/step-{{step}}.parquet",
        solve=f"{RESULTS}/runs/{{run}}/interactions/step-{{step}}.solve.parquet",
    output:
        f"{RESULTS}/runs/{{run}}/ranges/step-{{step}}.parquet",
    log:
        f"{RESULTS}/logs/ranges/{{run}}/step-{{step}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/ranges/{{run}}/step-{{step}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        salience=config["salience"],
        optima=config["optima"],
    message:
        "Bounding the effects of {wildcards.run}, step {wildcards.step}"
    script:
        "../scripts/ranges.py"


rule joint:
    input:
        log_odds=of_steps("log_odds/step-{step}.parquet"),
        interactions=of_steps("interactions/step-{step}.parquet"),
        solve=of_steps("interactions/step-{step}.solve.parquet"),
    output:
        joint=f"{RESULTS}/runs/{{run}}/joint.parquet",
        change=f"{RESULTS}/runs/{{run}}/joint_change.parquet",
    log:
        f"{RESULTS}/logs/joint/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/joint/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        steps=steps_of_run,
        optima=config["optima"],
        tie_break=config["extraction"]["tie_break"],
    message:
        "Extracting the checkpoints of {wildcards.run} together"
    script:
        "../scripts/joint.py"


rule joint_of_step:
    input:
        f"{RESULTS}/runs/{{run}}/joint.parquet",
    output:
        f"{RESULTS}/runs/{{run}}/joint/step-{{step}}.parquet",
    log:
        f"{RESULTS}/logs/joint_of_step/{{run}}/step-{{step}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/joint_of_step/{{run}}/step-{{step}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(15),
    message:
        "Taking step {wildcards.step} from the checkpoints of {wildcards.run}"
    script:
        "../scripts/joint_of_step.py"


rule selection:
    input:
        log_odds=f"{RESULTS}/runs/{{run}}/log_odds/step-{{step}}.parquet",
        interactions=f"{RESULTS}/runs/{{run}}/interactions/step-{{step}}.parquet",
    output:
        f"{RESULTS}/runs/{{run}}/selection/step-{{step}}.parquet",
    log:
        f"{RESULTS}/logs/selection/{{run}}/step-{{step}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/selection/{{run}}/step-{{step}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(480),
    params:
        selection=config["stability"]["selection"],
        salience={key: config["salience"][key] for key in ("rule", "threshold")},
        noise_scale=config["extraction"]["noise_scale"],
        seed=config["seed"],
    message:
        "Extracting perturbed interactions of {wildcards.run}, step {wildcards.step}"
    script:
        "../scripts/selection.py"
