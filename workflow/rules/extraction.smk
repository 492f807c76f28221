rule interactions:
    input:
        f"{RESULTS}/runs/{{run}}/log_odds/step-{{step}}.parquet",
    output:
        interactions=f"{RESULTS}/runs/{{run}}/interactions/step-{{step}}.parquet",
        solve=f"{RESULTS}/runs/{{run}}/interactions/step-{{step}}.solve.parquet",
    log:
        "logs/interactions/{run}/step-{step}.log",
    benchmark:
        "logs/benchmarks/interactions/{run}/step-{step}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
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
