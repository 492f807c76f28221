import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import min_version

min_version("9.0")

# The bash of each job would read that file first, as of a cluster's modules, which may change its folder.
os.environ.pop("BASH_ENV", None)

# The checkout's own package, whatever else is installed; scripts do the same in job.py.
sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from sft_interactions import brief, config_file, orphans, processes
from sft_interactions.config import ConfigError, digest, resolve
from sft_interactions.environment import check_account, check_interpreter, check_packages
from sft_interactions.own_run import study as own_study

try:
    check_interpreter()
    check_account(os.environ)
    check_packages()
except ValueError as error:
    raise WorkflowError(str(error))

configfiles = []
# The command line names an own fine-tuning run, of which the config is made.
IS_OWN = not workflow.modifier.skip_configfile and own_study.is_asked(
    workflow.config_settings.config
)
try:
    if workflow.modifier.skip_configfile:  # a module of another workflow, which gives the config
        GIVEN_CONFIG, places = config, {}
    else:
        # Snakemake's own YAML takes 0500 for 320 and no for false.
        config_file.check_command_line(sys.argv)
        config_file.check_profiles(sys.argv, os.environ)
        given = workflow.config_settings.config
        if IS_OWN:
            OWN = own_study.prepare(given, Path("config"), may_write=workflow.is_main_process)
            configfiles, GIVEN_CONFIG, places = [OWN.file], OWN.preview, OWN.places
        else:
            configfiles = workflow.overwrite_configfiles or ["config/config.yaml"]
            GIVEN_CONFIG, places = config_file.read(configfiles, given)
    RESOLVED_CONFIG = resolve(GIVEN_CONFIG, places)
    # Of the study that a preview belongs to.
    FULL_CONFIG = resolve(OWN.content, places) if IS_OWN else None
    # Snakemake's own page is made from another file, of all that was given.
    if configfiles and "--report" not in sys.argv:
        config_file.check_owner(RESOLVED_CONFIG["results"], configfiles)
    if configfiles and not workflow.is_main_process:
        config_file.check_unchanged(RESOLVED_CONFIG["results"], digest(RESOLVED_CONFIG))
except ValueError as error:
    raise WorkflowError(f"The configuration is not valid:\n{error}")

if configfiles and workflow.is_main_process and own_study.has_written(configfiles):
    brief.shorten(logger, sys.argv)
if IS_OWN and workflow.is_main_process:
    for line in OWN.told:
        logger.info(line)

if not workflow.overwrite_configfiles and not IS_OWN:

    # So that Snakemake's archive and report hold it; what it reads is replaced.
    configfile: "config/config.yaml"


config = RESOLVED_CONFIG

orphans.name_run(os.environ)
is_run = workflow.is_main_process and not workflow.dryrun
if note := processes.enter(".snakemake", may_unlock=is_run):
    logger.warning(note)


include: "workflow/rules/common.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/finetuning.smk"
include: "workflow/rules/inference.smk"
include: "workflow/rules/extraction.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/report.smk"


if workflow.is_main_process:
    keep_folder_dates()


localrules:
    all,
    check,
    download,
    figures,
    tables,
    own,
    own_checkpoints,
    stopping,


rule all:
    default_target: not IS_OWN
    input:
        rules.figures.input,
        rules.tables.input,


rule own:
    default_target: IS_OWN
    input:
        lambda _: f"{RESULTS}/verdict.md" if IS_OWN else stop(own_study.ASKED),
    message:
        "The preview of the run is there"
