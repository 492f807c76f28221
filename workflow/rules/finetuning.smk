rule finetune:
    input:
        model=model_folder,
        train=data_of_run("train"),
        validation=data_of_run("validation"),
    output:
        checkpoints=directory(f"{RESULTS}/runs/{{run}}/checkpoints"),
        training=f"{RESULTS}/runs/{{run}}/training.parquet",
    log:
        "logs/finetune/{run}.log",
    benchmark:
        "logs/benchmarks/finetune/{run}.tsv"
    wildcard_constraints:
        run=one_of(TUNED_RUNS),
    conda:
        "../../envs/torch.yaml"
    threads: COMPUTE["threads"]
    resources:
        mem_mb=growing(8000),
        runtime=growing(1440),
    params:
        settings=run_settings("finetune", "seed"),
        compute=COMPUTE,
    message:
        "Fine-tuning {wildcards.run}"
    script:
        "../scripts/finetune.py"


rule own_checkpoints:
    input:
        model=model_folder,
        files=own_checkpoint_files,
    output:
        checkpoints=directory(f"{RESULTS}/runs/{{run}}/checkpoints"),
    log:
        "logs/own_checkpoints/{run}.log",
    benchmark:
        "logs/benchmarks/own_checkpoints/{run}.tsv"
    wildcard_constraints:
        run=one_of(OWN_RUNS),
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        checkpoints=lookup(within=RUNS, dpath="{run}/checkpoints"),
        content=lambda wildcards: content_of(own_checkpoint_files(wildcards)),
        model=lambda wildcards: MODELS[RUNS[wildcards.run]["model"]],
    message:
        "Checking and linking the checkpoints of {wildcards.run}"
    script:
        "../scripts/own_checkpoints.py"
