"""What the terminal shows of the study of an own run: one line a job, and all that is no bookkeeping.

Snakemake's log file (``.snakemake/log``) has all of it. Imports the standard library only.
"""

import logging
import time
from collections.abc import Sequence

# Events of Snakemake's log, by their names, that a line of ours stands for.
_FOLDED = {
    "workflow_started",
    "run_info",
    "resources_info",
    "job_started",
    "job_info",
    "job_finished",
    "progress",
}
# Beginnings of what Snakemake tells without an event in every run.
_SAID_ALWAYS = (
    "Assuming unrestricted shared filesystem usage",
    "Building DAG of jobs",
    "Using shell:",
    "Provided cores:",
    "Rules claiming more threads",
    "Conda environments: ignored",
    "Select jobs to execute",
    "Removing temporary output",
)
# Who gives one of these has said what is to be shown.
_OPTIONS = ("--quiet", "-q", "--verbose", "--dry-run", "--dryrun", "-n", "--debug-dag", "--logger")


def shorten(logger: logging.Logger, arguments: Sequence[str]) -> None:
    """Let Snakemake's handler of the terminal leave bookkeeping out, and show a line for every job.

    Errors, warnings and what jobs print stay as they are, and so does the log file.

    Args:
        logger: Snakemake's.
        arguments: of the command line, as ``sys.argv`` has them. With an option that says what is to be
            shown, such as ``--quiet`` or ``--verbose``, nothing is changed.
    """
    if any(word.partition("=")[0] in _OPTIONS for word in arguments):
        return
    for handler in list(logger.handlers):
        if isinstance(handler, logging.StreamHandler) and not isinstance(
            handler, logging.FileHandler
        ):
            handler.addFilter(_is_told)
            logger.addHandler(_Jobs(handler))


def _event(record: logging.LogRecord) -> str | None:
    event = getattr(record, "event", None)
    return None if event is None else str(event)


def _is_told(record: logging.LogRecord) -> bool:
    event = _event(record)
    if event is None and record.levelno <= logging.INFO:
        return not str(record.msg).startswith(_SAID_ALWAYS)
    return event not in _FOLDED


class _Jobs(logging.Handler):
    """Writes a line when a job starts: the time, how many jobs are done, and what this one does."""

    def __init__(self, terminal: logging.StreamHandler) -> None:  # type: ignore[type-arg]
        super().__init__()
        self._terminal = terminal
        self._done = self._total = 0

    def emit(self, record: logging.LogRecord) -> None:
        fields = record.__dict__
        match _event(record):
            case "run_info":
                self._total = fields.get("stats", {}).get("total", 0)
            case "progress":
                self._done, self._total = fields["done"], fields["total"]
            case "job_info":
                what = fields.get("rule_msg") or f"rule {fields.get('rule_name')}"
                now = time.strftime("%H:%M:%S")
                self._terminal.acquire()
                try:
                    self._terminal.stream.write(
                        f"{now} {self._done} of {self._total} done; {what}\n"
                    )
                    self._terminal.flush()
                finally:
                    self._terminal.release()
