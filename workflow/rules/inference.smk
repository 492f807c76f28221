rule prompts:
    message:
        "Rendering the prompts of {wildcards.run} and locating their players"
    input:
        model=model_folder,
        analysis=data_table("analysis"),
    output:
        prompts=f"{RESULTS}/runs/{{run}}/prompts.parquet",
        players=f"{RESULTS}/runs/{{run}}/players.parquet",
    log:
        "logs/prompts/{run}.log",
    benchmark:
        "logs/benchmarks/prompts/{run}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    params:
        settings=run_settings(),
        players=config["players"],
        inference=config["inference"],
        seed=config["seed"],
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    conda:
        "../../envs/torch.yaml"
    script:
        "../scripts/prompts.py"


rule outputs:
    message:
        "Masked inference of {wildcards.run}, step {wildcards.step}"
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
    params:
        compute=COMPUTE,
    threads: COMPUTE["threads"]
    resources:
        mem_mb=8000,
        runtime=720,
        gpu=COMPUTE["gpus"],
    conda:
        "../../envs/torch.yaml"
    script:
        "../scripts/outputs.py"
