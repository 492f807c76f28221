import csv


rule report:
    input:
        rules.figures.input,
        rules.tables.input,
    output:
        f"{RESULTS}/report.html",
    log:
        "logs/report.log",
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


onsuccess:
    # What an engineer asks first, without a file to open. Not to standard output, where a letter that its
    # encoding lacks (PYTHONIOENCODING) is an error.
    table = Path(RESULTS) / "tables" / "stages.csv"
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                print(
                    f"{row['run']}: the denoising stage ends at step {row['boundary_step']} (interval "
                    f"{row['ci_low_step']} to {row['ci_high_step']}), the best checkpoint is step "
                    f"{row['best_checkpoint_step']} ({row['best_ci_low_step']} to "
                    f"{row['best_ci_high_step']}); lowest validation loss at step "
                    f"{row['lowest_validation_loss_step'] or 'unknown'}",
                    file=sys.stderr,
                )
        more = f"More in {table.parent} and {table.parents[1] / 'figures'}."
        print(more, file=sys.stderr)
