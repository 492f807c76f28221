"""What would outlive a run that was killed: jobs at work, and what they had half written.

Imports the standard library only.
"""

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterable, MutableMapping
from pathlib import Path

# How the names of files and folders begin that are renamed once they are whole.
PARTIAL = ".partial-"
_RUN = "SFT_INTERACTIONS_RUN"
_ROUND = 0.5  # seconds


def name_run(environ: MutableMapping[str, str]) -> None:
    """Tell the jobs that this process will start which process it is."""
    environ[_RUN] = str(os.getpid())


def end_with_run(environ: MutableMapping[str, str]) -> None:
    """End this process when the one that :func:`name_run` named has ended.

    Snakemake that is killed leaves its jobs at work, which the next run would start a second time. Nothing
    is done for a process that cannot be seen from here, as from inside some containers.
    """
    run = environ.get(_RUN, "")
    if run.isdecimal() and _is_there(int(run)):
        threading.Thread(target=_wait_for_end, args=(int(run),), daemon=True).start()


def _wait_for_end(run: int) -> None:
    while _is_there(run):
        time.sleep(_ROUND)
    logging.getLogger(__name__).error(
        "process %d, which started this job, has ended; so does it", run
    )
    os.kill(os.getpid(), signal.SIGTERM)


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:  # of somebody else's process the signal alone is refused
        return isinstance(error, PermissionError)
    return True


def remove_partial(folders: Iterable[str | Path], *, is_deep: bool) -> None:
    """Remove what killed jobs had half written. No other job may be at work.

    Args:
        folders: where to look; those that are not there are left out.
        is_deep: whether folders inside them are looked at too; links are not followed.
    """
    pattern = f"{PARTIAL}*"
    for folder in map(Path, folders):
        for path in list(folder.rglob(pattern) if is_deep else folder.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
