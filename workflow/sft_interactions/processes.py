"""The processes of a run: which ones work in a folder, how a signal ends them, and what failed ones said.

Imports the standard library and psutil only.
"""

import atexit
import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import psutil  # type: ignore[import-untyped]  # its stubs are one more package, for two calls

_SAME_START = 1.0  # seconds; the clock of the kernel is read anew after a restart
_ROUND = 0.2  # seconds
# The kernel's own, and how libraries in C++ and Rust end where they get no memory.
_KILLS = (signal.SIGKILL, signal.SIGABRT, signal.SIGBUS)
# As Snakemake words them; a shell may stand between it and the script.
_ENDED = re.compile(r"/scripts/\w+\.(\w+\.py)' died with <Signals\.\w+: (\d+)>")
_STATUS = re.compile(r"/scripts/\w+\.(\w+\.py)' returned non-zero exit status (1[34]\d)\.")
# A failed job's log, as Snakemake names it, and what `job.py` ends that log with.
_LOG = re.compile(r"^ +log: (.+) \(check log file", re.M)
_SAID = re.compile(r"^(\w+: .*)\n\(traceback: .*\)\s*\Z", re.M)


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


def is_alone(folder: str | Path) -> bool:
    """Whether no process but this one is noted in a folder, here or on another machine."""
    own = f"{os.getpid()}@{socket.gethostname()}"
    return all(note.name == own for note in (Path(folder) / "processes").glob("*"))


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


def end_jobs_when_stopped() -> None:
    """Make SIGTERM and SIGINT end the jobs of this process at once; they then do what they did until now.

    Snakemake by itself waits for them after SIGTERM, which for a fine-tuning can take days.
    """
    told = threading.Event()
    after_term = signal.getsignal(signal.SIGTERM)
    after_int = signal.getsignal(signal.SIGINT)

    def end(then: Callable[[], object]) -> None:
        if not told.is_set():
            told.set()
            threading.Thread(target=_end_jobs, args=(then,), daemon=True).start()

    def terminate(number: int, frame: FrameType | None) -> None:
        # In another thread: Snakemake's own handler takes a lock that the main thread may hold where it is
        # interrupted, and would wait for itself.
        end(lambda: after_term(number, None) if callable(after_term) else None)

    def interrupt(number: int, frame: FrameType | None) -> None:
        end(lambda: None)
        if callable(after_int):
            after_int(number, frame)

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, interrupt)


def _end_jobs(then: Callable[[], object]) -> None:
    print("stopped by a signal; the same command goes on from here", file=sys.stderr, flush=True)
    then()
    while True:  # one may just be starting
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        time.sleep(_ROUND)


def tell_killed(log: str) -> list[str]:
    """What to do about jobs that a signal ended which nobody but the system sends.

    Such a job can say nothing itself.

    Args:
        log: what Snakemake wrote of a run.

    Returns:
        A line for each of them.
    """
    ended = [(script, int(number)) for script, number in _ENDED.findall(log)]
    ended += [(script, int(status) - 128) for script, status in _STATUS.findall(log)]
    return [
        f"{script}: it was killed ({signal.Signals(number).name}), most likely for want of memory; give it "
        "more, or the run fewer cores, and give the same command again"
        for script, number in ended
        if number in _KILLS
    ]


def tell_failed(log: str, folder: str | Path = ".") -> list[str]:
    """The one line of each job that failed, once more: by the end of a run it may be far above.

    Args:
        log: what Snakemake wrote of a run.
        folder: what the paths of the jobs' logs are relative to.

    Returns:
        What the jobs' own logs end with, as `rule: what is wrong`; nothing for a job whose log does not
        end with it, such as one that was killed, or that succeeded when it was tried again.
    """
    lines = []
    for path in dict.fromkeys(_LOG.findall(log)):
        try:
            text = (Path(folder) / path).read_text("utf-8", "replace")
        except OSError:
            continue
        lines += _SAID.findall(text)
    return lines
