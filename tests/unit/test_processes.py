"""The lock of a run that was killed is known as such, and no other one is removed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sft_interactions import processes

HERE = processes.socket.gethostname()
ENTER = """
import sys
sys.path.insert(0, {package!r})
from sft_interactions import processes
print(processes.enter(sys.argv[1], may_unlock=True), flush=True)
sys.stdin.readline()
"""
PACKAGE = str(Path(processes.__file__).parents[1])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "locks").mkdir()
    for name in ("0.input.lock", "0.output.lock"):
        (tmp_path / "locks" / name).write_text("results/a.parquet\n")
    (tmp_path / "processes").mkdir()
    return tmp_path


def start(folder):
    """A process that has entered the folder and waits, and what it was told."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENTER.format(package=PACKAGE), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def kill(process):
    process.kill()
    process.communicate()


def look(folder):
    process, told = start(folder)
    process.communicate("\n", timeout=60)
    return told


def is_locked(folder):
    return any((folder / "locks").iterdir())


def test_a_process_is_noted_until_it_ends(tmp_path):
    process, told = start(tmp_path)
    assert told == "None"
    assert [note.name for note in (tmp_path / "processes").iterdir()] == [f"{process.pid}@{HERE}"]
    process.communicate("\n", timeout=60)
    assert not any((tmp_path / "processes").iterdir())


def test_the_lock_of_a_killed_process_is_removed(folder):
    process, _ = start(folder)
    kill(process)
    told = look(folder)
    assert f"the lock of a run that was killed is removed (process {process.pid} has ended)" in told
    assert not is_locked(folder)
    assert not any((folder / "processes").iterdir())


def test_the_lock_of_a_process_at_work_is_kept(folder):
    killed, _ = start(folder)
    alive, _ = start(folder)
    kill(killed)
    assert f"process {alive.pid} of this machine works in it" in look(folder)
    assert is_locked(folder)
    alive.communicate("\n", timeout=60)


def test_another_process_that_got_the_number_is_not_that_run(folder):
    note = folder / "processes" / f"{os.getpid()}@{HERE}"
    note.write_text(repr(psutil.Process().create_time() - 60))
    assert "the lock of a run that was killed is removed" in look(folder)
    assert not is_locked(folder)


def test_a_note_that_was_cut_off_is_that_of_a_process_if_there_is_one(folder):
    (folder / "processes" / f"{os.getpid()}@{HERE}").write_text("")
    assert "works in it" in look(folder)
    assert is_locked(folder)


def test_a_run_on_another_machine_may_be_at_work(folder):
    (folder / "processes" / "17@elsewhere").write_text("1.0")
    told = look(folder)
    assert "a run was started on elsewhere; if it has ended, delete" in told
    assert is_locked(folder)


def test_a_lock_that_nothing_is_known_of_is_kept(folder):
    assert look(folder) == "None"
    assert is_locked(folder)


def test_a_job_leaves_the_lock_of_its_run_alone(folder):
    process, _ = start(folder)
    kill(process)
    assert processes.enter(folder, may_unlock=False) is None
    assert is_locked(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_no_error(tmp_path):
    tmp_path.chmod(0o500)
    assert processes.enter(tmp_path / "books", may_unlock=True) is None


def begin(script):
    """A process with a script of these tests, whose output can be read."""
    return subprocess.Popen(
        [sys.executable, "-c", script.format(package=PACKAGE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# With a limit, since Python then waits in short pieces: of a signal just before a wait without end it hears
# after that wait.
PARENT = """
import signal, subprocess, sys, time
sys.path.insert(0, {package!r})
from sft_interactions import processes
signal.signal(signal.SIGTERM, lambda *_: print("and then as before", flush=True))
processes.end_jobs_when_stopped()
job = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
print(job.pid, flush=True)
print(job.wait(timeout=3600), flush=True)
"""


def test_a_signal_ends_the_jobs_and_then_does_what_it_did():
    parent = begin(PARENT)
    job = int(parent.stdout.readline())
    parent.terminate()
    told, errors = parent.communicate(timeout=600)
    assert told.splitlines() == ["and then as before", "-15"]
    assert errors == "stopped by a signal; the same command goes on from here\n"
    assert not psutil.pid_exists(job)


LOCKED = """
import os, signal, sys, threading
sys.path.insert(0, {package!r})
from sft_interactions import processes
lock, has_come = threading.Lock(), threading.Event()
def flag(*_):
    with lock:
        has_come.set()
signal.signal(signal.SIGTERM, flag)
processes.end_jobs_when_stopped()
with lock:  # as Snakemake's scheduler holds it while it looks at jobs that have ended
    os.kill(os.getpid(), signal.SIGTERM)
    sum(range(1000))
has_come.wait()
print("has come", flush=True)
"""


def test_a_signal_that_comes_while_a_lock_is_held_stops_nothing():
    done = subprocess.run(
        [sys.executable, "-c", LOCKED.format(package=PACKAGE)],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stdout) == (0, "has come\n"), done.stderr


INTERRUPTED = """
import subprocess, sys
sys.path.insert(0, {package!r})
from sft_interactions import processes
processes.end_jobs_when_stopped()
# In a session of its own, so that the signal of a terminal does not reach it.
job = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True
)
try:
    print(job.pid, flush=True)
    job.wait(timeout=3600)
except KeyboardInterrupt:
    print(job.wait(), flush=True)
"""


def test_an_interrupt_ends_the_jobs_too_and_reaches_what_waits_for_it():
    parent = begin(INTERRUPTED)
    parent.stdout.readline()
    parent.send_signal(signal.SIGINT)
    told, errors = parent.communicate(timeout=600)
    assert told == "-15\n"
    assert errors == "stopped by a signal; the same command goes on from here\n"


@pytest.mark.parametrize(
    "how", ["died with <Signals.SIGKILL: 9>.", "returned non-zero exit status 137."]
)
def test_a_job_that_the_system_killed_is_told(how):
    log = f"CalledProcessError\nCommand 'set -e;  python /s/.snakemake/scripts/tmp1_a.losses.py' {how}\n"
    (line,) = processes.tell_killed(log)
    assert line.startswith(
        "losses.py: it was killed (SIGKILL), most likely for want of memory; give it "
    )


@pytest.mark.parametrize(
    "how", ["died with <Signals.SIGTERM: 15>.", "returned non-zero exit status 1."]
)
def test_a_job_that_ended_otherwise_has_told_why(how):
    assert processes.tell_killed(f"Command 'python /s/scripts/tmp1_a.losses.py' {how}\n") == []


ERROR = """[Fri Nov 27 13:10:14 2026]
Error in rule data:
    message: None
    jobid: 3
    input: a.jsonl
    output: data/a
    log: logs/data/a.log (check log file(s) for error details)
"""


def log_of_data(folder, text):
    (folder / "logs" / "data").mkdir(parents=True)
    (folder / "logs" / "data" / "a.log").write_text(text)


def test_what_a_failed_job_said_is_told_once_more_at_the_end(tmp_path):
    log_of_data(
        tmp_path, "10:00:00 begun\ndata: a.jsonl: empty; name another\n(traceback: a.traceback)\n"
    )
    told = processes.tell_failed(ERROR + "others\n" + ERROR, tmp_path)
    assert told == ["data: a.jsonl: empty; name another"]


@pytest.mark.parametrize(
    "text",
    [
        "10:00:00 data 40 %\n",  # killed
        "data: no memory\n(traceback: a.traceback)\n10:00:00 tried again, with success\n",
        "Traceback (most recent call last):\nTypeError: data: a defect\n",
    ],
)
def test_of_a_job_that_said_nothing_in_one_line_nothing_is_told(tmp_path, text):
    log_of_data(tmp_path, text)
    assert processes.tell_failed(ERROR, tmp_path) == []
    assert processes.tell_failed(ERROR.replace("a.log", "b.log"), tmp_path) == []


def test_a_process_is_alone_if_no_other_one_is_noted(folder):
    assert processes.is_alone(folder)
    (folder / "processes" / f"{os.getpid()}@{HERE}").write_text("1.0")
    assert processes.is_alone(folder)
    (folder / "processes" / "17@elsewhere").write_text("1.0")
    assert not processes.is_alone(folder)
