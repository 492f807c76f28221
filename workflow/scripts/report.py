import json
import logging
import subprocess
import tempfile

from job import start
from sft_interactions import tables

start(snakemake)
params = snakemake.params
# One file of all that was given, since config files and --config may have been laid over one another.
with (
    tempfile.NamedTemporaryFile("w", suffix=".json") as config,
    tables.replacing(snakemake.output[0]) as temporary,
):
    json.dump(params.config, config)
    config.flush()
    command = [params.python, "-m", "snakemake", "--snakefile", params.snakefile]
    # It reads the records of this very run, so it needs no lock of its own.
    command += ["--configfile", config.name, "--nolock", "--report", str(temporary)]
    done = subprocess.run(command, capture_output=True, text=True)
    logging.info(done.stdout + done.stderr)
    if done.returncode:
        raise ValueError("the page could not be made; what snakemake says is in the log")
