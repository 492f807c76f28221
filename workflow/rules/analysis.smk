rule dynamics:
    input:
        interactions=of_steps(f"{INTERACTIONS}/step-{{step}}.parquet"),
        solve=of_steps("interactions/step-{step}.solve.parquet"),
        reference=reference_interactions,
    output:
        f"{RESULTS}/runs/{{run}}/dynamics.parquet",
    log:
        f"{RESULTS}/logs/dynamics/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/dynamics/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        steps=steps_of_run,
        salience=config["salience"],
        n_players=config["players"]["n"],
    message:
        "Following the interactions of {wildcards.run} along its checkpoints"
    script:
        "../scripts/dynamics.py"


rule readings:
    input:
        interactions=of_steps(f"{SINGLE}/step-{{step}}.parquet"),
        solve=of_steps("interactions/step-{step}.solve.parquet"),
        ranges=of_steps("ranges/step-{step}.parquet"),
        joint=f"{RESULTS}/runs/{{run}}/joint.parquet",
        reference=reference_by_readings,
    output:
        f"{RESULTS}/runs/{{run}}/readings.parquet",
    log:
        f"{RESULTS}/logs/readings/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/readings/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        steps=steps_of_run,
        salience=config["salience"],
        reading=config["optima"]["reading"],
        n_players=config["players"]["n"],
    message:
        "Following the interactions of {wildcards.run} that the data determine"
    script:
        "../scripts/readings.py"


rule stability:
    input:
        log_odds=of_steps("log_odds/step-{step}.parquet"),
        reference=reference_interactions,
    output:
        stability=f"{RESULTS}/runs/{{run}}/stability.parquet",
        unchanged=f"{RESULTS}/runs/{{run}}/unchanged.parquet",
        unchanged_interactions=f"{RESULTS}/runs/{{run}}/unchanged_interactions.parquet",
        unchanged_solve=f"{RESULTS}/runs/{{run}}/unchanged_interactions.solve.parquet",
    log:
        f"{RESULTS}/logs/stability/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/stability/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        steps=steps_of_run,
        stability=config["stability"],
        salience=config["salience"],
        optima=config["optima"],
        extraction=config["extraction"],
        n_players=config["players"]["n"],
        seed=config["seed"],
    message:
        "Measuring how far the interactions of {wildcards.run} move under noise alone"
    script:
        "../scripts/stability.py"


rule salience_sensitivity:
    input:
        interactions=of_steps(f"{UNSELECTED}/step-{{step}}.parquet"),
        solve=of_steps("interactions/step-{step}.solve.parquet"),
        reference=reference_interactions,
    output:
        csv=f"{RESULTS}/tables/salience-{{run}}.csv",
        md=f"{RESULTS}/tables/salience-{{run}}.md",
    log:
        f"{RESULTS}/logs/salience_sensitivity/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/salience_sensitivity/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        size=lambda wildcards: size_of([wildcards.run]),
        steps=steps_of_run,
        choices=config["sensitivity"]["salience"],
        n_players=config["players"]["n"],
    message:
        "Tabulating {wildcards.run} under other salience rules"
    script:
        "../scripts/salience_sensitivity.py"


rule sensitivity_of_own_extraction:
    input:
        interactions=of_steps(f"{INTERACTIONS}/step-{{step}}.parquet"),
        solve=of_steps("interactions/step-{step}.solve.parquet"),
        reference=both_reference_interactions,
        log_odds=of_steps("log_odds/step-{step}.parquet"),
        unchanged=f"{RESULTS}/runs/{{run}}/unchanged_interactions.parquet",
        unchanged_solve=f"{RESULTS}/runs/{{run}}/unchanged_interactions.solve.parquet",
    output:
        f"{RESULTS}/runs/{{run}}/sensitivity/{{job}}.parquet",
    log:
        f"{RESULTS}/logs/sensitivity_of_own_extraction/{{run}}/{{job}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sensitivity_of_own_extraction/{{run}}/{{job}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
        job=OWN_JOB,
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        steps=steps_of_run,
        choices=choices_of_job,
        l1_tolerance=config["optima"]["l1_tolerance"],
        stability=churn_floor_settings(),
        bootstrap=config["bootstrap"],
        removed_share=config["stages"]["removed_share"],
        n_players=config["players"]["n"],
        seed=config["seed"],
    message:
        "Testing the findings of {wildcards.run} under other choices: {wildcards.job}"
    script:
        "../scripts/sensitivity_of_own_extraction.py"


use rule sensitivity_of_own_extraction as sensitivity_of_reading with:
    input:
        readings=f"{RESULTS}/runs/{{run}}/readings.parquet",
        solve=lambda wildcards: first_solve(wildcards.run),
        reference=readings_of_reference,
        log_odds=of_steps("log_odds/step-{step}.parquet"),
        unchanged=f"{RESULTS}/runs/{{run}}/unchanged_interactions.parquet",
        unchanged_solve=f"{RESULTS}/runs/{{run}}/unchanged_interactions.solve.parquet",
    output:
        f"{RESULTS}/runs/{{run}}/sensitivity/{{job}}.parquet",
    log:
        f"{RESULTS}/logs/sensitivity_of_reading/{{run}}/{{job}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sensitivity_of_reading/{{run}}/{{job}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
        job=one_of(READING_JOBS),
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        reference_step=reference_step,
    message:
        "Testing the findings of {wildcards.run} under other choices: {wildcards.job}"


rule extraction_of_choice:
    input:
        log_odds_of_job,
    output:
        dynamics=f"{RESULTS}/runs/{{run}}/sensitivity/{{job}}/dynamics.parquet",
        unchanged=f"{RESULTS}/runs/{{run}}/sensitivity/{{job}}/unchanged.parquet",
    log:
        f"{RESULTS}/logs/extraction_of_choice/{{run}}/{{job}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/extraction_of_choice/{{run}}/{{job}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
        job=one_of(EXTRACTION_JOBS),
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(720),
    params:
        steps=steps_of_run,
        choice=extraction_of_job,
        l1_tolerance=config["optima"]["l1_tolerance"],
        gap_tolerance=config["extraction"]["gap_tolerance"],
        stability=churn_floor_settings(),
        seed=config["seed"],
    message:
        "Extracting interactions of {wildcards.run} under another choice: {wildcards.job}"
    script:
        "../scripts/extraction_of_choice.py"


rule sensitivity_of_extraction:
    input:
        dynamics=of_extraction_jobs("dynamics"),
        unchanged=of_extraction_jobs("unchanged"),
        reference=dynamics_of_reference,
        solve=lambda wildcards: first_solve(wildcards.run),
    output:
        f"{RESULTS}/runs/{{run}}/sensitivity/extractions.parquet",
    log:
        f"{RESULTS}/logs/sensitivity_of_extraction/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sensitivity_of_extraction/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        steps=steps_of_run,
        reference_step=reference_step,
        choices=choices_of_extraction,
        draws=config["stability"]["draws"],
        unchanged_samples=config["stability"]["samples"],
        bootstrap=config["bootstrap"],
        removed_share=config["stages"]["removed_share"],
        n_players=config["players"]["n"],
        seed=config["seed"],
    message:
        "Testing the findings of {wildcards.run} under other extractions"
    script:
        "../scripts/sensitivity_of_extraction.py"


rule sensitivity:
    input:
        lambda wildcards: expand(
            f"{RESULTS}/runs/{wildcards.run}/sensitivity/{{part}}.parquet",
            part=[OWN_JOB, *READING_JOBS, *(["extractions"] if EXTRACTION_JOBS else [])],
        ),
    output:
        f"{RESULTS}/runs/{{run}}/sensitivity.parquet",
    log:
        f"{RESULTS}/logs/sensitivity/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sensitivity/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(15),
    params:
        choices=lambda wildcards: list(tested_choices(wildcards.run)),
    message:
        "Gathering the findings of {wildcards.run} under other choices"
    script:
        "../scripts/sensitivity.py"


rule metrics:
    input:
        dynamics=f"{RESULTS}/runs/{{run}}/dynamics.parquet",
        unchanged=f"{RESULTS}/runs/{{run}}/unchanged.parquet",
        readings=f"{RESULTS}/runs/{{run}}/readings.parquet",
        solve=lambda wildcards: first_solve(wildcards.run),
    output:
        f"{RESULTS}/runs/{{run}}/metrics.parquet",
    log:
        f"{RESULTS}/logs/metrics/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/metrics/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        steps=steps_of_run,
        level=config["bootstrap"]["level"],
        n_players=config["players"]["n"],
        unchanged_samples=config["stability"]["samples"],
        draws=config["stability"]["draws"],
    message:
        "Computing the metrics of {wildcards.run}"
    script:
        "../scripts/metrics.py"


rule stages:
    input:
        dynamics=f"{RESULTS}/runs/{{run}}/dynamics.parquet",
        solve=lambda wildcards: first_solve(wildcards.run),
        training=branch(is_tuned_here, then=[f"{RESULTS}/runs/{{run}}/training.parquet"]),
        losses=branch(is_without_losses, then=[f"{RESULTS}/runs/{{run}}/losses.parquet"]),
    output:
        f"{RESULTS}/runs/{{run}}/stages.json",
    log:
        f"{RESULTS}/logs/stages/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/stages/{{run}}.tsv"
    wildcard_constraints:
        run=one_of(RUNS),
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        steps=steps_of_run,
        stages=config["stages"],
        n_players=config["players"]["n"],
        bootstrap=config["bootstrap"],
        seed=config["seed"],
        validation_losses=lookup(within=RUNS, dpath="{run}/validation_losses", default=None),
    message:
        "Finding the end of the denoising stage of {wildcards.run}"
    script:
        "../scripts/stages.py"


rule findings:
    input:
        dynamics=every_run("dynamics.parquet"),
        unchanged=every_run("unchanged.parquet"),
        solve=[first_solve(run) for run in RUNS],
        stages=every_run("stages.json"),
    output:
        **table_files("findings"),
        findings=f"{RESULTS}/findings.parquet",
        parts=f"{RESULTS}/finding_parts.parquet",
        parts_csv=f"{RESULTS}/tables/finding-parts.csv",
        parts_md=report_table("finding-parts"),
    log:
        f"{RESULTS}/logs/findings.log",
    benchmark:
        f"{RESULTS}/benchmarks/findings.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        size=size_of(RUNS),
        runs=list(RUNS),
        steps=steps_of(RUNS),
        level=config["bootstrap"]["level"],
        n_players=config["players"]["n"],
        unchanged_samples=config["stability"]["samples"],
        draws=config["stability"]["draws"],
    message:
        "Testing the five findings"
    script:
        "../scripts/findings.py"


rule protocol:
    input:
        dynamics=every_run("dynamics.parquet"),
        solve=[first_solve(run) for run in RUNS],
        findings=rules.findings.output.findings,
    output:
        protocol=f"{RESULTS}/protocol.parquet",
        protocol_csv=f"{RESULTS}/tables/protocol.csv",
        protocol_md=report_table("protocol"),
        parts=f"{RESULTS}/protocol_parts.parquet",
        parts_csv=f"{RESULTS}/tables/protocol-parts.csv",
        parts_md=report_table("protocol-parts"),
        turnover=f"{RESULTS}/turnover.parquet",
        turnover_csv=f"{RESULTS}/tables/turnover.csv",
        turnover_md=report_table("turnover"),
    log:
        f"{RESULTS}/logs/protocol.log",
    benchmark:
        f"{RESULTS}/benchmarks/protocol.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        size=size_of(RUNS),
        runs=list(RUNS),
        steps=steps_of(RUNS),
        level=config["bootstrap"]["level"],
        n_players=config["players"]["n"],
    message:
        "Testing the five findings by the protocol that can say no"
    script:
        "../scripts/protocol.py"


rule verdict:
    input:
        metrics=every_run("metrics.parquet"),
        dynamics=every_run("dynamics.parquet"),
        solve=[first_solve(run) for run in RUNS],
        stages=every_run("stages.json"),
        prompts=every_run("prompts.parquet"),
        analysis=[data_table(run, "analysis") for run in RUNS],
        losses=every_run("losses.parquet", RUNS_WITHOUT_LOSSES),
    output:
        page=report(f"{RESULTS}/verdict.md", caption="../report/verdict.rst", category="Verdict"),
        csv=f"{RESULTS}/tables/verdict.csv",
    log:
        f"{RESULTS}/logs/verdict.log",
    benchmark:
        f"{RESULTS}/benchmarks/verdict.tsv"
    priority: SECOND
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(15),
    params:
        runs=list(RUNS),
        labels=labels_of(RUNS),
        steps=steps_of(RUNS),
        ended=[RUNS[run]["finetune"]["steps"] if run in TUNED_RUNS else None for run in RUNS],
        losses_are=[losses_are(run) for run in RUNS],
        with_losses=RUNS_WITHOUT_LOSSES,
        skipped=[steps_without_interactions(run) for run in RUNS],
        level=config["bootstrap"]["level"],
        noise_samples=config["stability"]["samples"],
        n_players=config["players"]["n"],
        players=PLAYERS_ARE,
    message:
        "Saying what the runs did"
    script:
        "../scripts/verdict.py"
