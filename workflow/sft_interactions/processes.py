"""The processes of a run: which ones work in a folder, and how a signal ends them.

Imports the standard library and psutil only.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

import psutil  # type: ignore[import-untyped]  # its stubs are one more package, for two calls

_SAME_START = 1.0  # seconds; the clock of the kernel is read anew after a restart


def enter(folder: str | Path, *, may_unlock: bool) -> str | None:
    """Note that this process works in a folder, until it ends, and look at what earlier ones left.

    A lock is removed if every process that was noted before ran on this machine and has ended.

    Args:
        folder: where Snakemake keeps its books, ``.snakemake``.
        may_unlock: whether a lock is looked at. A job must not, whose run has the lock.

    Returns:
        What a user should know about the lock; None if there is none, or nothing is known of it.
    """
    notes = Path(folder) / "processes"
    own = notes / f"{os.getpid()}@{socket.gethostname()}"
    try:
        notes.mkdir(parents=True, exist_ok=True)
        message = _look_at_lock(Path(folder), notes) if may_unlock else None
        own.write_text(repr(psutil.Process().create_time()), "utf-8")
    except OSError:  # a folder that may not be written; Snakemake tells it where it matters
        return None
    atexit.register(_leave, own, os.getpid())
    return message


def _leave(note: Path, process: int) -> None:
    if os.getpid() == process:  # a fork has the same functions to call at its end
        with contextlib.suppress(OSError):
            note.unlink()


def _look_at_lock(folder: Path, notes: Path) -> str | None:
    alive, elsewhere, ended = [], [], []
    for note in sorted(notes.iterdir()):
        process, _, host = note.name.partition("@")
        if host != socket.gethostname():
            elsewhere.append(host)
        elif _is_alive(int(process), note):
            alive.append(process)
        else:
            ended.append(process)
            note.unlink(missing_ok=True)
    locks = list((folder / "locks").glob("*.lock"))
    if not locks:
        return None
    if alive:
        return f"this folder is in use: process {', '.join(alive)} of this machine works in it"
    if elsewhere:
        return (
            f"this folder is locked; a run was started on {', '.join(sorted(set(elsewhere)))}; if it has "
            f"ended, delete {notes} and start snakemake --unlock"
        )
    if not ended:
        return None
    for lock in locks:
        lock.unlink(missing_ok=True)
    return f"the lock of a run that was killed is removed (process {', '.join(ended)} has ended)"


def _is_alive(process: int, note: Path) -> bool:
    """Whether a process runs that began when the note says; another one may have got its number."""
    try:
        noted = float(note.read_text("utf-8"))
        started: float = psutil.Process(process).create_time()
        return abs(started - noted) < _SAME_START
    except ValueError:  # its note was cut off
        return bool(psutil.pid_exists(process))
    except (OSError, psutil.NoSuchProcess):
        return False
    except psutil.AccessDenied:
        return True


def end_jobs_when_terminated() -> None:
    """Make SIGTERM end the jobs of this process at once, and then do what it did until now.

    Snakemake by itself waits for them, which for a fine-tuning can take days.
    """
    before = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: FrameType | None) -> None:
        print(
            "stopped by a signal; the same command goes on from here", file=sys.stderr, flush=True
        )
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, end)
