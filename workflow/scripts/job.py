"""What every script starts with: its log, its progress bar, its error message, its provenance."""

import atexit
import contextlib
import gc
import logging
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm

# Snakemake appends a script's folder to the module path, so an installed copy of the package would win
# over the checkout's. Every script imports this module first.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sft_interactions.environment import check_packages, clear_environment
from sft_interactions.orphans import end_with_run
from sft_interactions.shortage import shortage_behind

# What a script imports stays: to look through it for garbage took an eighth of the time of importing.
gc.disable()
# Libraries that a script imports next read some of them when they are imported.
CLEARED = clear_environment(os.environ)

# Snakemake's working folder has it, which is that of the jobs.
DIGESTS = ".snakemake/digests.json"
SECONDS_BETWEEN_LINES = 10


def _in_one_line(error: BaseException) -> str | None:
    """What an error that a user can mend comes down to; None for a defect."""
    # First, since what memory or a disk that ran out led to may look like a damaged file.
    match shortage_behind(error):
        case "disk", first:
            return (
                f"the disk is full, or a quota is used up ({first}); make room for the folders of results, "
                "logs and temporary files, and start again"
            )
        case "memory", first:
            return (
                f"memory is used up, or limited for this job (ulimit -v, a scheduler, the GPU; {first}); "
                "give it more, or lower inference.memory_gb or finetune.batch_size"
            )
    if isinstance(error, ValueError):
        return str(error).replace("\n", " ")
    if isinstance(error, KeyboardInterrupt):
        return "stopped from the keyboard"
    if isinstance(error, PermissionError):
        return (
            f"{error.filename} may not be read or written (permission denied); see who owns it, or name "
            "another place"
        )
    return None


def _report_early(
    error_type: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    # The name of a script is between two that Snakemake gives: tmpabc.finetune.py.
    line = _in_one_line(error)
    if line is None:
        traceback.print_exception(error_type, error, trace)
    else:
        print(f"{Path(sys.argv[0]).stem.rpartition('.')[2]}: {line}", file=sys.stderr)


# While a script imports its libraries. It has no log yet.
sys.excepthook = _report_early


class _Lines:
    """Stream for a progress bar that puts every refresh on a line of its own, also in the log.

    Several jobs share the terminal, so a bar that rewrites its line would overwrite the others. Nor has it
    lines of the first seconds, which say no more than that the job has started.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._last = ""

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text and text != self._last:
            self._last = text
            is_early = time.monotonic() - self._began < SECONDS_BETWEEN_LINES
            logging.getLogger("progress").info(text, extra={"in_log_alone": is_early})

    def flush(self) -> None:
        pass


def start(snakemake: Any) -> dict[str, Any]:
    """Send logging and errors to the job's log file and to the terminal, and look at the tables it reads.

    Warnings go to the log file alone, and so does what is logged with ``extra={"in_log_alone": True}``.

    Returns:
        What is to be passed to ``tables.write``: where a table comes from.
    """
    gc.freeze()
    gc.enable()
    log = Path(snakemake.log[0])
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal = logging.StreamHandler(sys.stderr)
    terminal.addFilter(lambda record: record.name != "py.warnings")
    terminal.addFilter(lambda record: not getattr(record, "in_log_alone", False))
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[logging.FileHandler(log, mode="w", encoding="utf-8"), terminal],
        force=True,
    )
    if CLEARED:
        logging.info(
            "settings of the shell that would change results or stop a job are left out: %s",
            ", ".join(CLEARED),
        )
    logging.captureWarnings(True)
    # A log that cannot be written, on a full disk, would be a traceback.
    logging.raiseExceptions = False
    if not sys.warnoptions:
        # Python hides deprecations outside of the main module. Those that our own calls cause are ours to
        # mend, so the log has them.
        warnings.filterwarnings("default", category=DeprecationWarning, module="sft_interactions")
    for chatty in ("httpx", "datasets", "transformers", "matplotlib", "fontTools"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    if "transformers" in sys.modules:
        sys.modules["transformers"].utils.logging.disable_progress_bar()

    where = log.with_suffix(".traceback")  # apart, so that the log ends with one line
    where.unlink(missing_ok=True)

    def report(
        error_type: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if dynamo := sys.modules.get("torch._dynamo.utils"):
            # It tells of compilations at the end, for which it imports more, and there may be no memory.
            atexit.unregister(dynamo.dump_compile_times)
        whole = "".join(traceback.format_exception(error_type, error, trace))
        line = _in_one_line(error)
        line = line and f"{snakemake.rule}: {line}"
        print(line or whole, file=sys.stderr)
        with contextlib.suppress(OSError, MemoryError), log.open("a", encoding="utf-8") as file:
            print(f"{line}\n(traceback: {where})" if line else whole, file=file)
        if line:
            with contextlib.suppress(OSError, MemoryError):
                where.write_text(whole, encoding="utf-8")

    sys.excepthook = report
    end_with_run(os.environ)
    check_packages()  # an environment of conda has others than Snakemake's
    # Here, because its libraries read settings that are cleared above.
    from sft_interactions.origin import check_inputs, check_sources, inputs_digest, made_of

    results = snakemake.config["results"]
    prompts = check_inputs(snakemake.input, results)
    untold = check_sources(
        snakemake.input, results, cache=DIGESTS, runs=snakemake.config.get("runs")
    )
    if untold:
        others = f" and {len(untold) - 1} others" if len(untold) > 1 else ""
        logging.warning(
            "%s%s: of an older version, which did not note what a table is made of; that it belongs to "
            "what lies beside it is not checked (snakemake --forceall makes all anew)",
            untold[0],
            others,
        )
    settings = {**dict(snakemake.params.items()), "step": snakemake.wildcards.get("step")}
    return {
        "created_by": snakemake.rule,
        "inputs_digest": inputs_digest(settings, snakemake.input, results, DIGESTS),
        "results": results,
        "prompts": prompts,
        "made_of": made_of(snakemake.input, results, DIGESTS),
    }


def progress_bar(snakemake: Any, total: int, unit: str) -> "tqdm[NoReturn]":
    """A tqdm bar named after the job, with a line every ten seconds."""
    from tqdm import tqdm  # the scripts that draw have no need of it

    label = " ".join([snakemake.rule, *map(str, snakemake.wildcards)])
    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        mininterval=SECONDS_BETWEEN_LINES,
        maxinterval=30,
        file=_Lines(),
        ncols=100,
        ascii=" =",
    )
