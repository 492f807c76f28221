MAIN_RUN = MAIN_RUNS[0]
COMPARED_RUNS = compared_runs()
# Colours, fonts and sizes: a change there draws every figure anew.
STYLE = f"{workflow.basedir}/workflow/sft_interactions/figures/style.py"
NO_OTHER_RUNS = (
    "figures.main_runs: figures 2 and 3 show every run, so that figures 7 and 8 have nothing to show; leave a "
    "run out of figures.main_runs, or do not ask for them"
)


# All other figures are this rule with other files.
rule fig2:
    input:
        style=STYLE,
        metrics=every_run("metrics.parquet", MAIN_RUNS),
        stages=every_run("stages.json", MAIN_RUNS),
        training=every_run("training.parquet", [run for run in MAIN_RUNS if run in TUNED_RUNS]),
    output:
        **figure_files("fig2"),
    log:
        f"{RESULTS}/logs/figures/fig2.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/fig2.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        labels=labels_of(MAIN_RUNS),
        tuned=[run in TUNED_RUNS for run in MAIN_RUNS],
        level=config["bootstrap"]["level"],
    message:
        f"Drawing {FIGURES['fig2'].title}"
    script:
        "../scripts/figure.py"


use rule fig2 as fig1 with:
    input:
        style=STYLE,
        analysis=data_table(MAIN_RUN, "analysis"),
        prompts=f"{RESULTS}/runs/{MAIN_RUN}/prompts.parquet",
        players=f"{RESULTS}/runs/{MAIN_RUN}/players.parquet",
        log_odds=every_step("log_odds/step-{step}.parquet", [MAIN_RUN]),
        interactions=every_step(f"{INTERACTIONS}/step-{{step}}.parquet", [MAIN_RUN]),
        solve=every_step("interactions/step-{step}.solve.parquet", [MAIN_RUN]),
        dynamics=f"{RESULTS}/runs/{MAIN_RUN}/dynamics.parquet",
        metrics=every_run("metrics.parquet", [MAIN_RUN]),
        stages=every_run("stages.json", [MAIN_RUN]),
    output:
        **figure_files("fig1"),
    log:
        f"{RESULTS}/logs/figures/fig1.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/fig1.tsv"
    params:
        labels=labels_of([MAIN_RUN]),
        steps=steps_of([MAIN_RUN]),
        sample=config["figures"].get("sample"),
        salience=config["salience"],
        n_players=config["players"]["n"],
        n_samples=n_samples_of([MAIN_RUN]),
    message:
        f"Drawing {FIGURES['fig1'].title}"


use rule fig2 as fig3 with:
    output:
        **figure_files("fig3"),
    log:
        f"{RESULTS}/logs/figures/fig3.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/fig3.tsv"
    message:
        f"Drawing {FIGURES['fig3'].title}"


use rule fig2 as fig4 with:
    input:
        style=STYLE,
        metrics=every_run("metrics.parquet"),
        stages=every_run("stages.json"),
    output:
        **figure_files("fig4"),
    log:
        f"{RESULTS}/logs/figures/fig4.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/fig4.tsv"
    params:
        labels=labels_of(RUNS),
    message:
        f"Drawing {FIGURES['fig4'].title}"


use rule fig2 as fig5 with:
    input:
        style=STYLE,
        log_odds=every_step("log_odds/step-{step}.parquet", RUNS),
        interactions=every_step(f"{INTERACTIONS}/step-{{step}}.parquet", RUNS),
        solve=every_step("interactions/step-{step}.solve.parquet", RUNS),
        stages=every_run("stages.json"),
    output:
        **figure_files("fig5"),
    log:
        f"{RESULTS}/logs/figures/fig5.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/fig5.tsv"
    params:
        labels=labels_of(RUNS),
        steps=steps_of(RUNS),
        sample=config["figures"].get("sample"),
        salience=config["salience"],
        noise_ratio=config["extraction"]["noise_ratio"],
        noise_scale=config["extraction"]["noise_scale"],
        n_players=config["players"]["n"],
        n_samples=n_samples_of(RUNS),
    message:
        f"Drawing {FIGURES['fig5'].title}"


use rule fig2 as fig6 with:
    input:
        style=STYLE,
        interactions=every_step(f"{INTERACTIONS}/step-{{step}}.parquet", RUNS),
        solve=every_step("interactions/step-{step}.solve.parquet", RUNS),
        stages=every_run("stages.json"),
    output:
        **figure_files("fig6"),
    log:
        f"{RESULTS}/logs/figures/fig6.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/fig6.tsv"
    params:
        labels=labels_of(RUNS),
        steps=steps_of(RUNS),
        salience=config["salience"],
        n_players=config["players"]["n"],
    message:
        f"Drawing {FIGURES['fig6'].title}"


use rule fig2 as fig7 with:
    input:
        style=STYLE,
        metrics=lambda _: every_run("metrics.parquet", OTHER_RUNS) or stop(NO_OTHER_RUNS),
        stages=every_run("stages.json", OTHER_RUNS),
        training=every_run("training.parquet", [run for run in OTHER_RUNS if run in TUNED_RUNS]),
    output:
        **figure_files("fig7"),
    log:
        f"{RESULTS}/logs/figures/fig7.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/fig7.tsv"
    params:
        labels=labels_of(OTHER_RUNS),
        tuned=[run in TUNED_RUNS for run in OTHER_RUNS],
    message:
        f"Drawing {FIGURES['fig7'].title}"


use rule fig7 as fig8 with:
    output:
        **figure_files("fig8"),
    log:
        f"{RESULTS}/logs/figures/fig8.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/fig8.tsv"
    message:
        f"Drawing {FIGURES['fig8'].title}"


use rule fig2 as fig9 with:
    input:
        style=STYLE,
        analysis=data_table(MAIN_RUN, "analysis"),
        prompts=every_run("prompts.parquet", COMPARED_RUNS),
        players=every_run("players.parquet", COMPARED_RUNS),
        log_odds=every_step("log_odds/step-{step}.parquet", COMPARED_RUNS),
        interactions=every_step(f"{INTERACTIONS}/step-{{step}}.parquet", COMPARED_RUNS),
        solve=every_step("interactions/step-{step}.solve.parquet", COMPARED_RUNS),
        stages=every_run("stages.json", COMPARED_RUNS),
    output:
        **figure_files("fig9"),
    log:
        f"{RESULTS}/logs/figures/fig9.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/fig9.tsv"
    params:
        labels=labels_of(COMPARED_RUNS),
        steps=steps_of(COMPARED_RUNS),
        sample=config["figures"].get("sample"),
        salience=config["salience"],
        n_players=config["players"]["n"],
    message:
        f"Drawing {FIGURES['fig9'].title}"


use rule fig2 as survival with:
    input:
        style=STYLE,
        sensitivity=every_run("sensitivity.parquet"),
    output:
        **figure_files("survival"),
    log:
        f"{RESULTS}/logs/figures/survival.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/survival.tsv"
    params:
        labels=labels_of(RUNS),
    message:
        f"Drawing {FIGURES['survival'].title}"


rule figures:
    input:
        expand(f"{RESULTS}/figures/{{figure}}.{{form}}", figure=DRAWN, form=FORMATS),
    message:
        "All figures are there"
