rule prompts:
    input:
        model=model_folder,
        analysis=data_of_run("analysis"),
        players=ancient(players_file()),
    output:
        prompts=f"{RESULTS}/runs/{{run}}/prompts.parquet",
        players=f"{RESULTS}/runs/{{run}}/players.parquet",
    log:
        f"{RESULTS}/logs/prompts/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/prompts/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: FIRST
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        settings=run_settings(),
        players=config["players"],
        content=content_of(players_file()),
        inference=prompt_settings(),
        seed=config["seed"],
    message:
        "Rendering the prompts of {wildcards.run} and locating their players"
    script:
        "../scripts/prompts.py"


rule mask_embedding:
    input:
        model=model_folder,
        prompts=f"{RESULTS}/runs/{{run}}/prompts.parquet",
    output:
        f"{RESULTS}/runs/{{run}}/mask_embedding.parquet",
    log:
        f"{RESULTS}/logs/mask_embedding/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/mask_embedding/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/torch.yaml"
    threads: COMPUTE["threads"]
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        settings=config["inference"]["learned_mask_embedding"],
        compute=COMPUTE,
        seed=config["seed"],
    message:
        "Learning the mask embedding of {wildcards.run}"
    script:
        "../scripts/mask_embedding.py"


rule inference:
    input:
        model=model_folder,
        checkpoints=lambda wildcards: checkpoints_of(
            wildcards, steps_from(wildcards.run, int(wildcards.step))
        ),
        prompts=f"{RESULTS}/runs/{{run}}/prompts.parquet",
        learned=branch(
            is_masked_by_learned, then=[f"{RESULTS}/runs/{{run}}/mask_embedding.parquet"]
        ),
    output:
        temp(directory(f"{RESULTS}/runs/{{run}}/inference/from-step-{{step}}-shard-{{shard}}")),
    log:
        f"{RESULTS}/logs/inference/{{run}}/from-step-{{step}}-shard-{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/inference/{{run}}/from-step-{{step}}-shard-{{shard}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
        shard=r"\d+",
    priority: SECOND
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


use rule inference as inference_of_mask_embedding with:
    output:
        temp(
            directory(
                f"{RESULTS}/runs/{{run}}/mask-embedding-{{mask_embedding}}/inference/from-step-{{step}}-shard-{{shard}}"
            )
        ),
    log:
        f"{RESULTS}/logs/inference/{{run}}/mask-embedding-{{mask_embedding}}/from-step-{{step}}-shard-{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/inference/{{run}}/mask-embedding-{{mask_embedding}}/from-step-{{step}}-shard-{{shard}}.tsv"
    priority: 0
    message:
        "Masked inference of {wildcards.run} from step {wildcards.step}, shard {wildcards.shard}, "
        "mask embedding {wildcards.mask_embedding}"


rule log_odds:
    input:
        shards=inference_shards,
        prompts=f"{RESULTS}/runs/{{run}}/prompts.parquet",
    output:
        f"{RESULTS}/runs/{{run}}/log_odds/step-{{step}}.parquet",
    log:
        f"{RESULTS}/logs/log_odds/{{run}}/step-{{step}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/log_odds/{{run}}/step-{{step}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    message:
        "Merging the log-odds of {wildcards.run}, step {wildcards.step}"
    script:
        "../scripts/log_odds.py"


use rule log_odds as log_odds_of_mask_embedding with:
    output:
        f"{RESULTS}/runs/{{run}}/mask-embedding-{{mask_embedding}}/log_odds/step-{{step}}.parquet",
    log:
        f"{RESULTS}/logs/log_odds/{{run}}/mask-embedding-{{mask_embedding}}/step-{{step}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/log_odds/{{run}}/mask-embedding-{{mask_embedding}}/step-{{step}}.tsv"
    priority: 0
    message:
        "Merging the log-odds of {wildcards.run}, step {wildcards.step}, "
        "mask embedding {wildcards.mask_embedding}"
