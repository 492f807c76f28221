"""The terminal of an own run: errors and warnings as they are, a line a job, and no bookkeeping."""

import io
import logging

import pytest
from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

from sft_interactions import brief


@pytest.fixture
def told(tmp_path):
    """What a run of Snakemake tells, by the arguments that it is given."""

    def tell(*arguments):
        stream, file = io.StringIO(), logging.FileHandler(tmp_path / "log", mode="w")
        terminal = ColorizingTextHandler(stream=stream)
        logger = logging.Logger("of-snakemake")
        for handler in (terminal, file):
            handler.addFilter(DefaultFilter(set(), False, False, False, False))
            handler.setFormatter(DefaultFormatter(set()))
            logger.addHandler(handler)
        brief.shorten(logger, ["snakemake", *arguments])
        logger.info("Building DAG of jobs...")
        logger.info("mine: 8 checkpoints")
        logger.info("Job stats:", extra={"event": LogEvent.RUN_INFO, "stats": {"total": 3}})
        job = {"jobid": 4, "rule_name": "model", "reason": "Missing output", "indent": False}
        for done, text in enumerate(("Preparing the model", "Linking", "Drawing")):
            logger.info("Select jobs to execute...")
            about = {"event": LogEvent.JOB_INFO, "rule_msg": text, **job}
            logger.info("job", extra=about)
            logger.info("Finished", extra={"event": LogEvent.JOB_FINISHED, "job_id": 4})
            progress = {"event": LogEvent.PROGRESS, "done": done + 1, "total": 3}
            logger.info("", extra=progress)
        logger.warning("Building DAG of jobs is slow")
        error = {**job, "event": LogEvent.JOB_ERROR, "rule_msg": "Drawing"}
        error |= {"input": ["a"], "output": ["b"], "log": ["logs/a.log"], "conda_env": None}
        logger.error("error", extra={**error, "shellcmd": None, "aux": {}})
        logger.info("Complete log(s): x")
        file.close()
        return stream.getvalue(), (tmp_path / "log").read_text()

    return tell


def test_a_job_is_one_line_and_errors_are_as_they_were(told):
    terminal, log = told("own", "--config", "output=x")
    lines = terminal.splitlines()
    assert lines[0] == "mine: 8 checkpoints"
    assert [line[8:] for line in lines[1:4]] == [
        " 0 of 3 done; Preparing the model",
        " 1 of 3 done; Linking",
        " 2 of 3 done; Drawing",
    ]
    assert lines[4] == "Building DAG of jobs is slow"  # a warning
    assert "Error in rule model:" in terminal
    assert "logs/a.log (check log file(s) for error details)" in terminal
    assert lines[-1] == "Complete log(s): x"
    for text in ("Select jobs", "Finished", "Reason: Missing output", "3 of 3 steps (100%) done"):
        assert text in log
        assert text not in terminal


@pytest.mark.parametrize("option", ["--verbose", "--quiet", "--quiet=rules", "-n", "--dry-run"])
def test_who_says_what_is_to_be_shown_gets_that(told, option):
    terminal, _ = told("own", option, "--config", "output=x")
    assert "Select jobs" in terminal
    assert "of 3 done;" not in terminal
