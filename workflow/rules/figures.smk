rule fig1:
    input:
        analysis=f"{RESULTS}/data/{RUNS[MAIN_RUNS[0]]['dataset']}/analysis.parquet",
        prompts=every_run("prompts.parquet", MAIN_RUNS[:1]),
        players=every_run("players.parquet", MAIN_RUNS[:1]),
        log_odds=every_step(MAIN_RUNS[:1], "log_odds/step-{step}.parquet"),
        interactions=interactions_of(MAIN_RUNS[:1]),
        dynamics=f"{RESULTS}/runs/{MAIN_RUNS[0]}/dynamics.parquet",
        metrics=f"{RESULTS}/runs/{MAIN_RUNS[0]}/metrics.parquet",
        stages=f"{RESULTS}/runs/{MAIN_RUNS[0]}/stages.json",
    output:
        **figure_files("fig1"),
    log:
        "logs/figures/fig1.log",
    benchmark:
        "logs/benchmarks/figures/fig1.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        label=labels_of(MAIN_RUNS)[0],
        sample=config["figures"].get("sample"),
        salience=config["salience"],
        n_players=config["players"]["n"],
        n_samples=n_samples_of(MAIN_RUNS[:1]),
    message:
        "Drawing figure 1: interactions of one prompt, and of all by order"
    script:
        "../scripts/fig1.py"


rule fig2:
    input:
        metrics=every_run("metrics.parquet", MAIN_RUNS),
        stages=every_run("stages.json", MAIN_RUNS),
    output:
        **figure_files("fig2"),
    log:
        "logs/figures/fig2.log",
    benchmark:
        "logs/benchmarks/figures/fig2.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        labels=labels_of(MAIN_RUNS),
        level=config["bootstrap"]["level"],
    message:
        "Drawing figure 2: how the classes of interactions evolve"
    script:
        "../scripts/fig2.py"


rule fig3:
    input:
        metrics=every_run("metrics.parquet", MAIN_RUNS),
        stages=every_run("stages.json", MAIN_RUNS),
    output:
        **figure_files("fig3"),
    log:
        "logs/figures/fig3.log",
    benchmark:
        "logs/benchmarks/figures/fig3.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        labels=labels_of(MAIN_RUNS),
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
        **figure_files("fig4"),
    log:
        "logs/figures/fig4.log",
    benchmark:
        "logs/benchmarks/figures/fig4.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        labels=labels_of(RUNS),
        level=config["bootstrap"]["level"],
    message:
        "Drawing figure 4: which interactions carry the prediction"
    script:
        "../scripts/fig4.py"


rule fig5:
    input:
        log_odds=every_step(RUNS, "log_odds/step-{step}.parquet"),
        interactions=interactions_of(RUNS),
        stages=every_run("stages.json"),
    output:
        **figure_files("fig5"),
    log:
        "logs/figures/fig5.log",
    benchmark:
        "logs/benchmarks/figures/fig5.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        labels=labels_of(RUNS),
        sample=config["figures"].get("sample"),
        salience=config["salience"],
        noise_ratio=config["extraction"]["noise_ratio"],
        n_players=config["players"]["n"],
        n_samples=n_samples_of(RUNS),
    message:
        "Drawing figure 5: faithfulness"
    script:
        "../scripts/fig5.py"


rule fig6:
    input:
        interactions=interactions_of(RUNS),
        stages=every_run("stages.json"),
    output:
        **figure_files("fig6"),
    log:
        "logs/figures/fig6.log",
    benchmark:
        "logs/benchmarks/figures/fig6.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        labels=labels_of(RUNS),
        salience=config["salience"],
        n_players=config["players"]["n"],
    message:
        "Drawing figure 6: sparsity"
    script:
        "../scripts/fig6.py"


use rule fig2 as fig7 with:
    input:
        metrics=every_run("metrics.parquet", OTHER_RUNS),
        stages=every_run("stages.json", OTHER_RUNS),
    output:
        **figure_files("fig7"),
    log:
        "logs/figures/fig7.log",
    benchmark:
        "logs/benchmarks/figures/fig7.tsv"
    params:
        labels=labels_of(OTHER_RUNS),
        level=config["bootstrap"]["level"],
    message:
        "Drawing figure 7: figure 2 for the remaining runs"


use rule fig3 as fig8 with:
    input:
        metrics=every_run("metrics.parquet", OTHER_RUNS),
        stages=every_run("stages.json", OTHER_RUNS),
    output:
        **figure_files("fig8"),
    log:
        "logs/figures/fig8.log",
    benchmark:
        "logs/benchmarks/figures/fig8.tsv"
    params:
        labels=labels_of(OTHER_RUNS),
        level=config["bootstrap"]["level"],
    message:
        "Drawing figure 8: figure 3 for the remaining runs"


rule fig9:
    input:
        analysis=f"{RESULTS}/data/{RUNS[MAIN_RUNS[0]]['dataset']}/analysis.parquet",
        prompts=every_run("prompts.parquet", compared_runs()),
        players=every_run("players.parquet", compared_runs()),
        log_odds=every_step(compared_runs(), "log_odds/step-{step}.parquet"),
        interactions=interactions_of(compared_runs()),
        stages=every_run("stages.json", compared_runs()),
    output:
        **figure_files("fig9"),
    log:
        "logs/figures/fig9.log",
    benchmark:
        "logs/benchmarks/figures/fig9.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        labels=labels_of((compared_runs() * 2)[:2]),
        sample=config["figures"].get("sample"),
        salience=config["salience"],
        n_players=config["players"]["n"],
    message:
        "Drawing figure 9: logical models of one prompt, side by side"
    script:
        "../scripts/fig9.py"


rule survival:
    input:
        sensitivity=every_run("sensitivity.parquet"),
    output:
        **figure_files("survival"),
    log:
        "logs/figures/survival.log",
    benchmark:
        "logs/benchmarks/figures/survival.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        labels=labels_of(RUNS),
        level=config["bootstrap"]["level"],
    message:
        "Drawing which findings survive which choice"
    script:
        "../scripts/survival.py"


rule figures:
    input:
        rules.fig1.output,
        rules.fig2.output,
        rules.fig3.output,
        rules.fig4.output,
        rules.fig5.output,
        rules.fig6.output,
        rules.fig7.output,
        rules.fig8.output,
        rules.fig9.output,
        rules.survival.output,
    message:
        "All figures are there"
