rule prompts:
    input:
        model=model_folder,
        analysis=data_table("analysis"),
        players=players_file(),
    output:
        prompts=f"{RESULTS}/runs/{{run}}/prompts.parquet",
        players=f"{RESULTS}/runs/{{run}}/players.parquet",
    log:
        "logs/prompts/{run}.log",
    benchmark:
        "logs/benchmarks/prompts/{run}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        settings=run_settings(),
        players=config["players"],
        inference=config["inference"],
        seed=config["seed"],
    message:
        "Rendering the prompts of {wildcards.run} and locating their players"
    script:
        "../scripts/prompts.py"


rule outputs:
    input:
        model=model_folder,
        checkpoints=f"{RESULTS}/runs/{{run}}/checkpoints",
        prompts=f"{RESULTS}/runs/{{run}}/prompts.parquet",
    output:
        f"{RESULTS}/runs/{{run}}/outputs/step-{{step}}.parquet",
    log:
        "logs/outputs/{run}/step-{step}.log",
    benchmark:
        "logs/benchmarks/outputs/{run}/step-{step}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    conda:
        "../../envs/torch.yaml"
    threads: COMPUTE["threads"]
    resources:
        mem_mb=8000,
        runtime=720,
        gpu=COMPUTE["gpus"],
    params:
        compute=COMPUTE,
    message:
        "Masked inference of {wildcards.run}, step {wildcards.step}"
    script:
        "../scripts/outputs.py"
