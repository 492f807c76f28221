rule finetune:
    input:
        model=model_folder,
        train=data_of_run("train"),
        validation=data_of_run("validation"),
    output:
        checkpoints=directory(f"{RESULTS}/runs/{{run}}/checkpoints"),
        training=f"{RESULTS}/runs/{{run}}/training.parquet",
    log:
        f"{RESULTS}/logs/finetune/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/finetune/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(TUNED_RUNS),
    priority: SECOND
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


rule losses_of_step:
    input:
        model=model_folder,
        checkpoints=lambda wildcards: checkpoints_of(wildcards, [wildcards.step]),
        splits=held_out_of_run,
    output:
        f"{RESULTS}/runs/{{run}}/losses/step-{{step}}.parquet",
    log:
        f"{RESULTS}/logs/losses_of_step/{{run}}/step-{{step}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/losses_of_step/{{run}}/step-{{step}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/torch.yaml"
    threads: COMPUTE["threads"]
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        settings=run_settings("finetune"),
        compute=COMPUTE,
    message:
        "Measuring the loss of held-out responses at step {wildcards.step} of {wildcards.run}"
    script:
        "../scripts/losses_of_step.py"


rule losses:
    input:
        lambda wildcards: expand(
            f"{RESULTS}/runs/{wildcards.run}/losses/step-{{step}}.parquet",
            step=steps_with_losses(wildcards),
        ),
    output:
        f"{RESULTS}/runs/{{run}}/losses.parquet",
    log:
        f"{RESULTS}/logs/losses/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/losses/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    message:
        "Putting the losses of {wildcards.run} into one table"
    script:
        "../scripts/losses.py"


rule stopping:
    input:
        every_run("losses.parquet"),
        every_step("log_odds/step-{step}.parquet", RUNS),
        every_run("training.parquet", TUNED_RUNS),
    message:
        "What a choice of a checkpoint can go by, and what it is judged by, is there for every run"


rule own_checkpoints:
    input:
        model=model_folder,
        files=lambda wildcards: ancient(own_checkpoint_files(wildcards)),
    output:
        directory(f"{RESULTS}/runs/{{run}}/checkpoints/step-{{step}}"),
    log:
        f"{RESULTS}/logs/own_checkpoints/{{run}}/step-{{step}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/own_checkpoints/{{run}}/step-{{step}}.tsv"
    wildcard_constraints:
        run=one_of(OWN_RUNS),
    priority: FIRST
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        folder=lambda wildcards: CHECKPOINTS[wildcards.run][wildcards.step],
        block=lambda wildcards: checkpoint_block(wildcards.run, int(wildcards.step)),
        content=content_of_checkpoint,
        model=lambda wildcards: MODELS[RUNS[wildcards.run]["model"]],
    message:
        "Checking and linking the checkpoint of {wildcards.run} at step {wildcards.step}"
    script:
        "../scripts/own_checkpoints.py"
