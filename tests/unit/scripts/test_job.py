"""What every script starts with, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "workflow" / "scripts"
SCRIPT = """
import logging, sys, warnings
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
from job import progress_bar, start
class Wildcards(list):
    get = {"run": "run-a", "step": 3}.get
snakemake = SimpleNamespace(
    log=[sys.argv[2]],
    rule="rule",
    config={"inference": {}, "results": "results"},
    wildcards=Wildcards(["run-a", 3]),
    params={},
    input=[],
)
print(start(snakemake)["created_by"])
logging.info("as told")
warnings.warn_explicit("of a library", FutureWarning, "site-packages/lib/x.py", 1, "lib.x")
warnings.warn_explicit("its own", DeprecationWarning, "site-packages/lib/x.py", 2, "lib.x")
ours = sys.argv[1] + "/../sft_interactions/tables.py"
warnings.warn_explicit("of ours", DeprecationWarning, ours, 3, "sft_interactions.tables")
with progress_bar(snakemake, 4, "step") as bar:
    bar.update(4)
"""
CLOCK = """
import time, tqdm.std
NOW = time.monotonic()
time.monotonic = tqdm.std.time = lambda: NOW
"""


def run(tmp_path, *options, then=""):
    log = tmp_path / "logs" / "rule" / "run-a.log"
    command = [sys.executable, *options, "-c", SCRIPT + then, str(SCRIPTS), str(log)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done, log.read_text()


def assert_in_one_line(tmp_path, done, log, line):
    """On the terminal and in the log, which Snakemake shows; the traceback is beside it."""
    assert done.returncode != 0
    where = tmp_path / "logs" / "rule" / "run-a.traceback"
    assert done.stderr.splitlines()[-1].startswith(line)
    assert log.splitlines()[-2] == done.stderr.splitlines()[-1]
    assert log.splitlines()[-1] == f"(traceback: {where})"
    assert "Traceback" not in done.stderr + log
    assert where.read_text().startswith("Traceback")


def test_warnings_are_in_the_log_and_not_on_the_terminal(tmp_path):
    done, log = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "rule\n"
    assert "as told" in log
    assert "as told" in done.stderr
    for text in ("x.py:1: FutureWarning: of a library", "tables.py:3: DeprecationWarning: of ours"):
        assert text in log
    assert "its own" not in log
    assert "Warning" not in done.stderr


def test_the_bar_of_a_short_job_is_in_its_log_alone(tmp_path):
    done, log = run(tmp_path)
    assert log.count("rule run-a 3: 100%") == 1
    assert "rule run-a 3:" not in done.stderr
    later = f"{CLOCK}with progress_bar(snakemake, 3, 'step') as bar:\n    NOW += 10\n    bar.update(3)\n"
    done, log = run(tmp_path, then=later)
    for text in (log, done.stderr):
        assert text.count("3/3") == 1  # tqdm shows the end twice
    assert "0/3" in log
    assert "0/3" not in done.stderr


def test_what_few_need_is_in_the_log_alone(tmp_path):
    done, log = run(tmp_path, then="logging.info('0 left out', extra={'in_log_alone': True})\n")
    assert "0 left out" in log
    assert "0 left out" not in done.stderr


def test_settings_of_the_shell_are_gone_before_other_imports(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done, log = run(tmp_path, then="import matplotlib, os\nassert 'WORLD_SIZE' not in os.environ\n")
    assert done.returncode == 0, done.stderr
    assert "are left out: MPLBACKEND, WORLD_SIZE" in log


def test_an_interrupt_is_told_in_one_line(tmp_path):
    done, log = run(tmp_path, then="raise KeyboardInterrupt\n")
    assert_in_one_line(tmp_path, done, log, "rule: stopped from the keyboard")


def test_asked_for_warnings_as_errors_they_are(tmp_path):
    done, log = run(tmp_path, "-W", "error::FutureWarning")
    assert done.returncode == 1
    assert "FutureWarning: of a library" in log


def test_what_a_user_can_mend_is_told_in_one_line(tmp_path):
    done, log = run(tmp_path, then="raise ValueError('too few; lower n')")
    assert_in_one_line(tmp_path, done, log, "rule: too few; lower n")
    done, _ = run(tmp_path)
    assert done.returncode == 0
    assert not list(tmp_path.rglob("*.traceback"))  # it was of the job before


def test_a_defect_is_told_with_its_place(tmp_path):
    done, log = run(tmp_path, then="raise KeyError('too few; lower n')")
    assert done.returncode == 1
    for text in (log, done.stderr):
        assert "Traceback" in text
        assert "KeyError: 'too few; lower n'" in text
    assert not list(tmp_path.rglob("*.traceback"))


@pytest.mark.parametrize(
    "write",
    [
        "open('/dev/full', 'w', buffering=1).write('half\\n')",
        "raise RuntimeError('IO error: Disk quota exceeded (os error 122)')",  # as Rust says it
    ],
)
def test_a_full_disk_is_told_in_one_line(tmp_path, write):
    done, log = run(tmp_path, then=write)
    assert_in_one_line(tmp_path, done, log, "rule: the disk is full, or a quota is used up (")


@pytest.mark.parametrize(
    "error",
    [
        "MemoryError()",
        "RuntimeError('[enforce fail] DefaultCPUAllocator: can\\'t allocate memory: you tried\\n.')",
        "RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB.')",
        "OSError(12, 'Cannot allocate memory')",
        "BaseException('could not spawn threads: ThreadPoolBuildError')",  # a panic of Rust
    ],
)
def test_too_little_memory_is_told_in_one_line(tmp_path, error):
    done, log = run(tmp_path, then=f"raise {error}")
    assert_in_one_line(tmp_path, done, log, "rule: memory is used up, or limited for this job (")


def test_what_may_not_be_written_is_told_in_one_line(tmp_path):
    done, log = run(tmp_path, then="raise PermissionError(13, 'Permission denied', 'results/x')")
    assert_in_one_line(
        tmp_path, done, log, "rule: results/x may not be read or written (permission denied); see "
    )


def test_a_log_that_cannot_be_written_is_no_traceback(tmp_path):
    log = tmp_path / "full.log"
    log.symlink_to("/dev/full")
    command = [sys.executable, "-c", SCRIPT, str(SCRIPTS), str(log)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "as told" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(("then", "is_told"), [("", True), ("raise MemoryError", False)])
def test_after_an_error_torch_does_not_tell_of_compilations(tmp_path, then, is_told):
    library = """
import atexit
def tell(): print("compilations")
atexit.register(tell)
sys.modules["torch._dynamo.utils"] = SimpleNamespace(dump_compile_times=tell)
"""
    done, _ = run(tmp_path, then=library + then)
    assert ("compilations" in done.stdout) == is_told
