"""What stops a run in the middle: signals, memory and disks that run out."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
from kills.study import STAGE_OF, Job

TRACEBACK = "Traceback (most recent call last)"
SIGNALS = {
    "SIGKILL of all": (signal.SIGKILL, "all"),
    "SIGKILL of a job": (signal.SIGKILL, "job"),
    "SIGKILL of Snakemake": (signal.SIGKILL, "snakemake"),
    "SIGTERM of all": (signal.SIGTERM, "all"),
    "SIGTERM of Snakemake": (signal.SIGTERM, "snakemake"),
    "SIGINT of all": (signal.SIGINT, "all"),
    "SIGINT of Snakemake": (signal.SIGINT, "snakemake"),
}
MEMORY = ("memory of the machine", "memory of a process")
KINDS = (*SIGNALS, *MEMORY, "disk")
_KILLED, _STOPPED = "it was killed", "stopped by a signal; the same command goes on from here"
# One of these is on a line after each kind; nothing where Snakemake itself was killed.
LINES = {
    "SIGKILL of a job": (_KILLED,),
    "SIGTERM of all": (_STOPPED,),
    "SIGTERM of Snakemake": (_STOPPED,),
    "SIGINT of all": (_STOPPED,),
    "SIGINT of Snakemake": (_STOPPED,),
    "memory of the machine": (_KILLED,),
    # The second is OpenBLAS's own, which ends the process itself.
    "memory of a process": ("memory is used up", "Memory allocation still failed", _KILLED),
    # The second is Snakemake's own, where it cannot write what a job is started by.
    "disk": ("the disk is full", "No space left on device"),
}
_MARGIN = 2**20  # bytes that a process may still have


def processes_of(session: int) -> list[psutil.Process]:
    """Processes of a session that are at work."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


def ends(run: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether a run ends by itself; after that time all of it is killed."""
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        for process in processes_of(run.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return False
    return True


def scripts_at_work(session: int) -> list[tuple[psutil.Process, str]]:
    """Processes of a session that run a script, and the scripts' names."""
    found = []
    for process in processes_of(session):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = process.cmdline()
            # Not the shell, whose second word is an option.
            if len(command) == 2 and "/.snakemake/scripts/" in command[1]:
                found.append((process, command[1].split(".")[-2]))
    return found


class Moment:
    """A moment of a job, drawn at random.

    Attributes:
        phase: ``begin``, as soon as it is there; ``start``, while it imports its libraries; ``work``, after
            that; ``write``, when a number of files has appeared where it writes, finished or not.
    """

    def __init__(self, job: Job, draw: random.Random, phases: Sequence[str]) -> None:
        self.job = job
        self.phase = draw.choice(phases)
        self.seconds = draw.uniform(0, {"begin": 0, "start": 1}.get(self.phase, 0.5))
        self.n_files = draw.randint(1, 60 if job.rule == "finetune" else len(job.outputs) + 1)
        self._script: psutil.Process | None = None

    def __str__(self) -> str:
        if self.phase == "write":
            return f"{self.n_files} files written"
        return f"{self.seconds:.2f} s of {self.phase}"

    @property
    def is_past_start(self) -> bool:
        """Whether the job that was waited for is at work and has its libraries; asked when it has come."""
        is_there = self._script is not None and self._script.is_running()
        return is_there and self.phase in ("work", "write")

    def wait(self, folder: Path, run: subprocess.Popen[bytes]) -> bool:
        """Wait for the moment, or for the end of the job; whether the run is still at work."""
        log, script = folder / self.job.log, None
        log.unlink(missing_ok=True)
        while script is None and run.poll() is None:
            time.sleep(0.02)
            script = _script_of(self.job, run.pid)
        self._script = script
        if self.phase in ("work", "write"):
            # Its log is there once its libraries are.
            _await(run, lambda: log.is_file() or not script.is_running())
        before = self.job.n_files(folder)
        end = time.monotonic() + self.seconds
        if self.phase == "write":
            wanted = before + self.n_files
            _await(run, lambda: self.job.n_files(folder) >= wanted or not script.is_running())
        else:
            _await(run, lambda: time.monotonic() >= end)
        return run.poll() is None


def _script_of(job: Job, session: int) -> psutil.Process | None:
    name = "figure" if STAGE_OF[job.rule] == "figures" else job.rule
    started = [process for process, script in scripts_at_work(session) if script in name]
    return started[0] if started else None


def _await(run: subprocess.Popen[bytes], has_come: Callable[[], bool]) -> None:
    while run.poll() is None and not has_come():
        time.sleep(0.001)


@contextlib.contextmanager
def inflicted(
    kind: str, run: subprocess.Popen[bytes], folder: Path, draw: random.Random
) -> Iterator[None]:
    """Inflict a fault on a run, and at the end of the ``with`` block take away what would last."""
    if kind in SIGNALS:
        number, whom = SIGNALS[kind]
        _send(number, whom, run, draw)
        yield
    elif kind == "memory of a process":
        for process, _ in scripts_at_work(run.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                limit = process.memory_info().vms + _MARGIN
                process.rlimit(resource.RLIMIT_AS, (limit, limit))
        yield
    elif kind == "memory of the machine":
        with _group_without_memory() as group:
            for process, _ in scripts_at_work(run.pid):
                with contextlib.suppress(OSError):
                    (group / "cgroup.procs").write_text(str(process.pid))
            yield
            while processes_of(run.pid):
                time.sleep(0.1)
    else:
        with _full_disk(folder):
            yield


def _send(number: int, whom: str, run: subprocess.Popen[bytes], draw: random.Random) -> None:
    if whom == "snakemake":
        run.send_signal(number)
        return
    processes = processes_of(run.pid)
    if whom == "job":
        scripts = [process for process, _ in scripts_at_work(run.pid)]
        processes = [draw.choice(scripts)] if scripts else []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def can_limit_memory() -> bool:
    """Whether a group of processes can be given little memory here."""
    try:
        with _group_without_memory():
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _group_without_memory() -> Iterator[Path]:
    """A memory cgroup in which the kernel kills what takes more than a little (of version 1 or 2)."""
    root = Path("/sys/fs/cgroup")
    is_first = (root / "memory").is_dir()
    group = (root / "memory" if is_first else root) / f"kills-{os.getpid()}"
    group.mkdir()
    try:
        limit = "memory.limit_in_bytes" if is_first else "memory.max"
        (group / limit).write_text(str(_MARGIN))
        yield group
    finally:
        group.rmdir()


@contextlib.contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[bool]:
    """A small file system at a folder, where one can be mounted; whether it was."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "kills", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    filler = folder / "filler"
    with filler.open("wb") as file:
        while free := os.statvfs(folder).f_bavail:
            size = os.fstat(file.fileno()).st_size
            with contextlib.suppress(OSError):  # somebody else took some of it
                os.posix_fallocate(file.fileno(), size, free * os.statvfs(folder).f_frsize)
    try:
        yield
    finally:
        filler.unlink()
