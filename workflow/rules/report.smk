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
        configfile=(workflow.overwrite_configfiles or workflow.configfiles)[0],
    message:
        "Putting figures, tables and run times into one page"
    shell:
        # It reads the records of this very run, so it needs no lock of its own.
        "{params.python} -m snakemake --snakefile {params.snakefile} --configfile {params.configfile}"
        " --nolock --report {output} > {log} 2>&1"
