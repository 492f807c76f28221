import re
from pathlib import Path

import pytest
from bad_input import refused

from sft_interactions.environment import (
    FIXED,
    NAMES,
    PACKAGES,
    PREFIXES,
    check_account,
    check_interpreter,
    check_packages,
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


@pytest.mark.bad_input(of="command_line")
def test_python_without_docstrings_is_refused():
    for optimize in (0, 1):
        check_interpreter(optimize, "")
    with refused(r"^PYTHONOPTIMIZE is 2, .*; unset it$"):
        check_interpreter(2)


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize("filters", ["error", "ignore::ImportWarning,error::FutureWarning", "e"])
def test_warnings_that_stop_a_job_are_refused(filters, monkeypatch):
    for harmless in ("", "ignore", "default::DeprecationWarning", "once,always"):
        check_interpreter(warning_filters=harmless)
    monkeypatch.setenv("PYTHONWARNINGS", filters)
    with refused(rf"^PYTHONWARNINGS is {filters}, .*; unset it$"):
        check_interpreter()


def without_name(error):
    def name_of_user():
        raise error

    return name_of_user


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize("error", [KeyError("uid not found: 1234"), OSError("No username set")])
def test_a_user_without_a_name_is_told(error):
    """As in a container that runs under a number."""
    check_account({"PATH": ""}, lambda: "me")
    with refused(r"^USER is not set, .* has a number but no name; set USER to any name"):
        check_account({"PATH": ""}, without_name(error))


@pytest.mark.bad_input(of="command_line")
def test_a_shell_without_a_path_is_told():
    with refused(r"^PATH is not set, .*; set it: PATH="):
        check_account({"USER": "me"}, lambda: "me")


def add_package(folder, name, version):
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.bad_input(of="command_line")
def test_a_package_that_hides_one_of_the_environment_is_refused(tmp_path):
    own, other = tmp_path / "env" / "lib", tmp_path / "modules"
    add_package(own, "torch", "2.13.0")
    add_package(other, "numpy", "1.26.0")
    paths = [str(other), str(own)]
    check_packages(paths, str(tmp_path / "env"))
    add_package(other, "torch", "2.1.0")
    check_packages([str(own), str(other)], str(tmp_path / "env"))  # as of --system-site-packages
    message = (
        rf"^torch 2\.1\.0 in {other} hides torch 2\.13\.0 of the environment .*; unset PYTHONP"
    )
    with refused(message):
        check_packages(paths, str(tmp_path / "env"))


def test_the_same_version_twice_does_no_harm(tmp_path):
    for folder in ("env", "modules"):
        add_package(tmp_path / folder, "peft", "0.21.2")
    check_packages([str(tmp_path / "modules"), str(tmp_path / "env")], str(tmp_path / "env"))


def test_the_packages_that_are_looked_at_are_those_of_the_lock():
    lock = (Path(__file__).parents[2] / "envs" / "requirements.lock").read_text()
    for name in PACKAGES:
        assert re.search(rf"^{name}==", lock, re.MULTILINE | re.IGNORECASE), name
