"""Parts of a batch in several processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from parts_of_work import fail_at_three, kill_itself, own_process, square, threads

from sft_interactions.extraction import extract
from sft_interactions.extraction.joint import extract_joint
from sft_interactions.extraction.ranges import effect_ranges
from sft_interactions.parallel import Workers, in_turn

WORKFLOW = Path(__file__).parents[2] / "workflow"


@pytest.fixture(scope="module")
def two():
    with Workers(2) as workers:
        yield workers


def test_one_process_is_this_one():
    with Workers(1) as workers:
        assert set(workers.map(own_process, range(3))) == {os.getpid()}
    assert list(in_turn(square, range(4))) == [0, 1, 4, 9]
    with pytest.raises(ValueError, match="workers: 0 processes; ask for at least one"):
        Workers(0)


@pytest.mark.slow
def test_results_come_in_the_order_of_the_parts(two):
    assert list(two.map(square, range(50))) == [number**2 for number in range(50)]
    assert os.getpid() not in set(two.map(own_process, range(4)))


@pytest.mark.slow
def test_a_process_has_one_thread_and_the_others_keep_theirs(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("POLARS_MAX_THREADS", raising=False)
    with Workers(2) as workers:
        assert set(workers.map(threads, range(3))) == {("1", "1")}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "POLARS_MAX_THREADS" not in os.environ


@pytest.mark.slow
def test_an_error_is_that_of_the_function_and_ends_no_process(two):
    with pytest.raises(ValueError, match=r"^part 3: not this one$"):
        list(two.map(fail_at_three, range(8)))
    assert list(two.map(square, [5])) == [25]


@pytest.mark.slow
def test_a_killed_process_is_one_line():
    with Workers(2) as workers, pytest.raises(ValueError, match="one of 2 processes was killed, "):
        list(workers.map(kill_itself, range(2)))


SCRIPT = f"""
import sys
import time

sys.path.insert(0, {str(WORKFLOW)!r})
from sft_interactions.parallel import Workers

print("ran", flush=True)
with Workers(2) as workers:
    print(*set(workers.map(abs, [-1, 1])), flush=True)
    if "wait" in sys.argv:
        list(workers.map(time.sleep, [3600]))
"""


@pytest.mark.slow
def test_a_script_without_a_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600)
    assert (done.stdout, done.stderr) == ("ran\n1\n", "")


@pytest.mark.slow
def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert [parent.stdout.readline() for _ in range(2)] == ["ran\n", "1\n"]
        parent.kill()
        # The pipe closes with the last process that holds it, which would sleep for an hour.
        killed = time.monotonic()
        assert parent.stdout.read() == ""
        assert time.monotonic() - killed < 600


def same(one, other):
    """Whether two dataclasses of arrays, or of lists of such, hold the same bits."""
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(one, list):
        return all(same(*pair) for pair in zip(one, other, strict=True))
    return all(same(value, vars(other)[name]) for name, value in vars(one).items())


@pytest.mark.slow
def test_results_are_the_same_to_the_bit(two):
    # More tables than one part has.
    v = np.random.default_rng(0).normal(size=(520, 32))
    done = []
    solved = extract(v)
    assert same(solved, extract(v, mapped=two.map, progress=done.append))
    assert (sum(done), len(done)) == (520, 1 + 3)

    few = [v[:260], v[260:] + v[:260]]
    both = [extract(one) for one in few]
    wanted = np.zeros((260, 2, 32), dtype=bool)
    wanted[:, :, [3, 31]] = True
    ranges = effect_ranges(few[0], both[0], wanted)
    assert same(ranges, effect_ranges(few[0], both[0], wanted, mapped=two.map))
    chains = [one[:6] for one in few], [one.take(slice(6)) for one in both]
    assert same(extract_joint(*chains), extract_joint(*chains, mapped=two.map))


THREADS = """
import numpy as np
from threadpoolctl import threadpool_info
from sft_interactions.parallel import in_turn

def threads(_=None):
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

before = threads()
inside = list(in_turn(threads, range(3)))
print(before, inside, threads(), sep="\\n")
"""


def test_a_part_has_one_thread_of_linear_algebra_whatever_the_shell_says():
    environment = {**os.environ, "OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-c", THREADS],
        capture_output=True,
        text=True,
        check=True,
        cwd=WORKFLOW,
        env=environment,
    )
    before, inside, after = done.stdout.splitlines()
    assert before == after
    assert before != "{1}" or os.cpu_count() == 1
    assert inside == "[{1}, {1}, {1}]"
