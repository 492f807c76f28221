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
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        settings=run_settings(),
        players=config["players"],
        inference=prompt_settings(),
        seed=config["seed"],
    message:
        "Rendering the prompts of {wildcards.run} and locating their players"
    script:
        "../scripts/prompts.py"


rule masking_baseline:
    input:
        model=model_folder,
        prompts=f"{RESULTS}/runs/{{run}}/prompts.parquet",
    output:
        f"{RESULTS}/runs/{{run}}/masking_baseline.parquet",
    log:
        "logs/masking_baseline/{run}.log",
    benchmark:
        "logs/benchmarks/masking_baseline/{run}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    conda:
        "../../envs/torch.yaml"
    threads: COMPUTE["threads"]
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        settings=config["inference"]["learned_baseline"],
        compute=COMPUTE,
        seed=config["seed"],
    message:
        "Learning the masking baseline of {wildcards.run}"
    script:
        "../scripts/masking_baseline.py"


rule inference:
    input:
        model=model_folder,
        checkpoints=f"{RESULTS}/runs/{{run}}/checkpoints",
        prompts=f"{RESULTS}/runs/{{run}}/prompts.parquet",
        baseline=learned_baseline,
    output:
        temp(directory(f"{RESULTS}/runs/{{run}}/inference/from-step-{{step}}-shard-{{shard}}")),
    log:
        "logs/inference/{run}/from-step-{step}-shard-{shard}.log",
    benchmark:
        "logs/benchmarks/inference/{run}/from-step-{step}-shard-{shard}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
        shard=r"\d+",
    conda:
        "../../envs/torch.yaml"
    threads: COMPUTE["threads"]
    resources:
        mem_mb=growing(8000),
        runtime=growing(720),
    params:
        steps=lambda wildcards: steps_from(wildcards.run, int(wildcards.step)),
        inference=config["inference"],
        compute=COMPUTE,
    message:
        "Masked inference of {wildcards.run} from step {wildcards.step}, shard {wildcards.shard}"
    script:
        "../scripts/inference.py"


use rule inference as inference_of_kind with:
    output:
        temp(
            directory(
                f"{RESULTS}/runs/{{run}}/masking-{{kind}}/inference/from-step-{{step}}-shard-{{shard}}"
            )
        ),
    log:
        "logs/inference/{run}/masking-{kind}/from-step-{step}-shard-{shard}.log",
    benchmark:
        "logs/benchmarks/inference/{run}/masking-{kind}/from-step-{step}-shard-{shard}.tsv"
    message:
        "Masked inference of {wildcards.run} from step {wildcards.step}, shard {wildcards.shard}, "
        "masking baseline {wildcards.kind}"


rule outputs:
    input:
        shards=inference_shards,
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
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    message:
        "Merging the outputs of {wildcards.run}, step {wildcards.step}"
    script:
        "../scripts/outputs.py"


use rule outputs as outputs_of_kind with:
    output:
        f"{RESULTS}/runs/{{run}}/masking-{{kind}}/outputs/step-{{step}}.parquet",
    log:
        "logs/outputs/{run}/masking-{kind}/step-{step}.log",
    benchmark:
        "logs/benchmarks/outputs/{run}/masking-{kind}/step-{step}.tsv"
    message:
        "Merging the outputs of {wildcards.run}, step {wildcards.step}, "
        "masking baseline {wildcards.kind}"
