import pytest

from sft_interactions.environment import (
    FIXED,
    NAMES,
    PREFIXES,
    check_interpreter,
    clear_environment,
)


@pytest.mark.parametrize(
    "name",
    [*sorted(NAMES), *(f"{prefix}X" for prefix in PREFIXES), "ACCELERATE_MIXED_PRECISION"],
)
def test_what_would_change_results_is_removed_and_named(name):
    environment = {name: "1", "PATH": "/bin"}
    assert clear_environment(environment) == [name]
    assert environment == {"PATH": "/bin", **FIXED}


def test_the_device_and_the_threads_are_left_alone():
    kept = {
        "CUDA_VISIBLE_DEVICES": "1",
        "OMP_NUM_THREADS": "2",
        "HF_HOME": "/x",
        "SLURM_JOB_ID": "3",
    }
    environment = dict(kept)
    assert clear_environment(environment) == []
    assert environment == {**kept, **FIXED}


def test_another_workspace_is_replaced_and_named():
    environment = {"CUBLAS_WORKSPACE_CONFIG": ":16:8"}
    assert clear_environment(environment) == ["CUBLAS_WORKSPACE_CONFIG"]
    assert environment == FIXED
    assert clear_environment(environment) == []


def test_python_without_docstrings_is_refused():
    for optimize in (0, 1):
        check_interpreter(optimize, "")
    with pytest.raises(ValueError, match=r"^PYTHONOPTIMIZE is 2, .*; unset it$"):
        check_interpreter(2)


@pytest.mark.parametrize("filters", ["error", "ignore::ImportWarning,error::FutureWarning", "e"])
def test_warnings_that_stop_a_job_are_refused(filters, monkeypatch):
    for harmless in ("", "ignore", "default::DeprecationWarning", "once,always"):
        check_interpreter(warning_filters=harmless)
    monkeypatch.setenv("PYTHONWARNINGS", filters)
    with pytest.raises(ValueError, match=rf"^PYTHONWARNINGS is {filters}, .*; unset it$"):
        check_interpreter()
