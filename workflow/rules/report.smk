from sft_interactions import verdict_table


rule report:
    input:
        rules.figures.input,
        rules.tables.input,
        analysis=[data_table(run, "analysis") for run in RUNS],
        prompts=every_run("prompts.parquet"),
        players=every_run("players.parquet"),
        dynamics=every_run("dynamics.parquet"),
        metrics=every_run("metrics.parquet"),
        sensitivity=every_run("sensitivity.parquet"),
        stages=every_run("stages.json"),
        log_odds=every_step("log_odds/step-{step}.parquet", RUNS),
        interactions=every_step(f"{INTERACTIONS}/step-{{step}}.parquet", RUNS),
        verdict=rules.verdict.output.csv,
        verdict_page=rules.verdict.output.page,
        findings=rules.findings.output.findings,
        parts=rules.findings.output.parts,
        protocol=rules.protocol.output.protocol,
        turnover=rules.protocol.output.turnover,
        figures=expand(f"{RESULTS}/figures/{{figure}}.svg", figure=DRAWN),
        captions=expand(f"{workflow.basedir}/workflow/report/{{figure}}.rst", figure=DRAWN),
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(15),
    params:
        runs=[
            {
                "name": run,
                "label": label,
                "steps": RUNS[run]["steps"],
                "losses_are": losses_are(run),
                "about": about_run(run),
            }
            for run, label in zip(RUNS, labels_of(RUNS))
        ],
        figures={name: dict(getattr(rules, name).params.items()) for name in DRAWN},
        files=sorted(
            str(Path(path).relative_to(RESULTS))
            for path in rules.tables.input
            if str(path).endswith(".csv")
        ),
        benchmarks=f"{RESULTS}/benchmarks",
        logs=f"{RESULTS}/logs",
        config=GIVEN_CONFIG,
        seed=config["seed"],
    message:
        "Putting figures, findings, interactions and run times into one page"
    script:
        "../scripts/report.py"


onstart:
    # Snakemake has the lock now, so nothing else makes these files.
    if processes.is_alone(".snakemake"):
        orphans.remove_partial([RESULTS, DOWNLOADS], is_deep=True)
        orphans.remove_partial([".snakemake"], is_deep=False)
    if configfiles:
        config_file.note_owner(RESULTS, configfiles, digest(config))
    # After Snakemake has set what the signal does.
    processes.end_jobs_when_stopped()
    # With any limit of jobs a second, Snakemake looks for jobs that can start once a second for each job that has
    # ended, until it does nothing else (snakemake/snakemake#3744). So there is none, unless another one is given.
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


onerror:
    keep_folder_dates()
    said = "".join(
        Path(path).read_text("utf-8", "replace") for path in log if Path(path).is_file()
    )
    for line in processes.tell_failed(said) + processes.tell_killed(said):
        print(line, file=sys.stderr)


onsuccess:
    # What an engineer asks first, without a file to open. Not to standard output, where a letter that its
    # encoding lacks (PYTHONIOENCODING) is an error.
    verdict = Path(RESULTS) / "tables" / "verdict.csv"
    # A part of the study (--until, a file) may be made where this table is of another config.
    up_to_date = {Path(file) for job in workflow.dag.jobs for file in job.output}
    keep_folder_dates(list(workflow.dag.jobs))
    if verdict in up_to_date:
        try:
            for row in verdict_table.read(verdict, f"{RESULTS}/verdict.md"):
                print(f"{row['run']}:", file=sys.stderr)
                for key in verdict_table.SENTENCES:
                    if row[key]:
                        print(f"  - {row[key]}", file=sys.stderr)
            print(f"More in {RESULTS}/verdict.md.", file=sys.stderr)
        except ValueError as error:
            print(f"No verdict is printed: {error}.", file=sys.stderr)
        if IS_OWN:
            measured = own_study.inference_seconds(
                f"{RESULTS}/benchmarks/inference", OWN.preview
            )
            print(own_study.what_next(OWN, measured, workflow.cores), file=sys.stderr)
    elif verdict.exists():
        print(
            f"What this run was not asked for, such as {verdict}, is as it was, and may be of another config; "
            "snakemake -n lists what is.",
            file=sys.stderr,
        )
