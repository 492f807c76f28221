import csv


rule report:
    input:
        rules.figures.input,
        rules.tables.input,
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(15),
    params:
        python=sys.executable,
        snakefile=workflow.main_snakefile,
        config=GIVEN_CONFIG,
    message:
        "Putting figures, tables and run times into one page"
    script:
        "../scripts/report.py"


onstart:
    if configfiles:
        config_file.note_owner(RESULTS, configfiles, digest(config))
    # After Snakemake has set what the signal does.
    processes.end_jobs_when_terminated()


onerror:
    keep_folder_dates()


onsuccess:
    # What an engineer asks first, without a file to open. Not to standard output, where a letter that its
    # encoding lacks (PYTHONIOENCODING) is an error.
    folder = Path(RESULTS) / "tables"
    stages, protocol = folder / "stages.csv", folder / "protocol.csv"
    # A part of the study (--until, a file) may be made where these tables are of another config.
    up_to_date = {Path(file) for job in workflow.dag.jobs for file in job.output}
    keep_folder_dates(list(workflow.dag.jobs))
    if stages in up_to_date:
        ends = {}
        if protocol in up_to_date:
            with protocol.open(encoding="utf-8", newline="") as file:
                ends = {row["run"]: row["denoising_ends"] for row in csv.DictReader(file)}
        with stages.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                end = ends.get(row["run"], "unknown")
                print(
                    f"{row['run']}: lowest validation loss: step "
                    f"{row['lowest_validation_loss_step'] or 'unknown'}. End of the denoising stage: "
                    f"{'step ' if end.isdigit() else ''}{end} by docs/protocol.md, step "
                    f"{row['boundary_step']} as published. Interactions emerge faster after step "
                    f"{row['best_checkpoint_step']} ({row['best_ci_low_step']} to "
                    f"{row['best_ci_high_step']}); it has not been shown that this is the checkpoint to keep.",
                    file=sys.stderr,
                )
        more = f"More in {folder} and {folder.parent / 'figures'}."
        print(more, file=sys.stderr)
    elif stages.exists():
        print(
            f"What this run was not asked for, such as {stages}, is as it was, and may be of another config; "
            "snakemake -n lists what is.",
            file=sys.stderr,
        )
