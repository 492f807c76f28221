RUN_LABELS = [RUNS[run].get("label", run) for run in RUNS]


rule fig2:
    input:
        metrics=every_run("metrics.parquet"),
        stages=every_run("stages.json"),
    output:
        pdf=f"{RESULTS}/figures/fig2.pdf",
        png=report(
            f"{RESULTS}/figures/fig2.png",
            caption="../report/fig2.rst",
            category="Figures",
        ),
    log:
        "logs/figures/fig2.log",
    benchmark:
        "logs/benchmarks/figures/fig2.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        labels=RUN_LABELS,
        level=config["bootstrap"]["level"],
    message:
        "Drawing figure 2: how the classes of interactions evolve"
    script:
        "../scripts/fig2.py"


rule fig3:
    input:
        metrics=every_run("metrics.parquet"),
        stages=every_run("stages.json"),
    output:
        pdf=f"{RESULTS}/figures/fig3.pdf",
        png=report(
            f"{RESULTS}/figures/fig3.png",
            caption="../report/fig3.rst",
            category="Figures",
        ),
    log:
        "logs/figures/fig3.log",
    benchmark:
        "logs/benchmarks/figures/fig3.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        labels=RUN_LABELS,
        level=config["bootstrap"]["level"],
    message:
        "Drawing figure 3: quality of the classes"
    script:
        "../scripts/fig3.py"


rule fig4:
    input:
        metrics=every_run("metrics.parquet"),
        stages=every_run("stages.json"),
    output:
        pdf=f"{RESULTS}/figures/fig4.pdf",
        png=report(
            f"{RESULTS}/figures/fig4.png",
            caption="../report/fig4.rst",
            category="Figures",
        ),
    log:
        "logs/figures/fig4.log",
    benchmark:
        "logs/benchmarks/figures/fig4.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        labels=RUN_LABELS,
        level=config["bootstrap"]["level"],
    message:
        "Drawing figure 4: which interactions carry the prediction"
    script:
        "../scripts/fig4.py"


rule figures:
    input:
        rules.fig2.output,
        rules.fig3.output,
        rules.fig4.output,
    message:
        "All figures are there"
