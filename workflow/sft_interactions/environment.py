"""Settings of the shell that would change what a job computes, or stop it.

Launchers of distributed training, libraries of mixed precision, switches of number formats and notebooks
leave them behind. A study's results are to depend on its config alone.

Imports the standard library only.
"""

import getpass
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from importlib import metadata
from pathlib import Path

# Read by accelerate, torch, transformers and the launchers of several processes.
DISTRIBUTED = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "NODE_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "FORK_LAUNCHED",
)
NUMBER_FORMATS = (
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
)
SAFETY = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",)
# A notebook sets it to a backend of its own, without which matplotlib cannot be imported elsewhere.
DRAWING = ("MPLBACKEND",)
# Builds of packages set it, and empty or in another form it stops numpy and matplotlib.
DATES = ("SOURCE_DATE_EPOCH",)
PREFIXES = (
    "ACCELERATE_",
    "DEEPSPEED_",
    "FSDP_",
    "MEGATRON_LM_",
    "MV2_COMM_WORLD_",
    "OMPI_COMM_WORLD_",
    "PARALLELISM_CONFIG_",
    "PMI_",
    "SMDATAPARALLEL_",
    "TORCHDYNAMO_",
    "TORCHELASTIC_",
    "XLA_",
)
NAMES = frozenset([*DISTRIBUTED, *NUMBER_FORMATS, *SAFETY, *DRAWING, *DATES])
# cuBLAS needs a fixed workspace to add in the same order each time.
FIXED = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}

# Packages whose version decides what a job computes.
PACKAGES = (
    "datasets",
    "highspy",
    "icu4py",
    "jinja2",
    "numpy",
    "peft",
    "polars",
    "rjieba",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
)


def check_packages(path: Sequence[str] | None = None, prefix: str = sys.prefix) -> None:
    """Check that no package from elsewhere hides another version of it in the environment.

    ``PYTHONPATH``, as modules of a cluster set it, comes before an environment, and so does the folder of
    ``pip install --user`` before one of conda.

    Args:
        path: folders that packages are looked for in, by default ``sys.path``.
        prefix: folder of the environment.

    Raises:
        ValueError: one does.
    """
    for name in PACKAGES:
        found = metadata.distributions(name=name, path=list(sys.path if path is None else path))
        places = [(package.version, Path(str(package.locate_file("")))) for package in found]
        own = [version for version, place in places if place.is_relative_to(prefix)]
        if own and own[0] != places[0][0] and not places[0][1].is_relative_to(prefix):
            version, place = places[0]
            raise ValueError(
                f"{name} {version} in {place} hides {name} {own[0]} of the environment {prefix}; unset "
                "PYTHONPATH, or set PYTHONNOUSERSITE=1"
            )


def check_interpreter(
    optimize: int = sys.flags.optimize, warning_filters: str | None = None
) -> None:
    """Check that Python runs jobs as they are meant to be run.

    Args:
        warning_filters: ``PYTHONWARNINGS``, by default that of the shell.

    Raises:
        ValueError: it drops docstrings, of which transformers makes the classes of models (``python -OO``,
            or ``PYTHONOPTIMIZE`` of 2 or more), or warnings of libraries stop it.
    """
    if warning_filters is None:
        warning_filters = os.environ.get("PYTHONWARNINGS", "")
    actions = [part.strip().partition(":")[0] for part in warning_filters.split(",")]
    if any(action and "error".startswith(action) for action in actions):
        raise ValueError(
            f"PYTHONWARNINGS is {warning_filters}, and a warning of a library would stop a job; unset it"
        )
    if optimize >= 2:
        raise ValueError(
            f"PYTHONOPTIMIZE is {optimize}, and no model can be loaded without docstrings; unset it"
        )


def check_account(
    environment: Mapping[str, str], name_of_user: Callable[[], str] = getpass.getuser
) -> None:
    """Check that the account has what Snakemake asks for, but does not tell.

    Args:
        environment: of the shell.
        name_of_user: gives the name, or raises KeyError or OSError.

    Raises:
        ValueError: the user has no name, as where a container runs under a number (``docker run --user``),
            or there is no ``PATH``.
    """
    if "PATH" not in environment:
        raise ValueError(
            "PATH is not set, and programs are looked for there; set it: PATH=/usr/bin:/bin"
        )
    try:
        name_of_user()
    except (KeyError, OSError) as error:  # the latter since Python 3.13
        raise ValueError(
            "USER is not set, and the user that this runs under has a number but no name; set USER to any "
            "name (docker run --env USER=me)"
        ) from error


def clear_environment(environment: MutableMapping[str, str]) -> list[str]:
    """Remove the variables that would change results or stop a job, and set those that results need.

    Must be called before torch and matplotlib are imported. Which GPU and how many threads a job sees is
    left as it is.

    Args:
        environment: ``os.environ``, which is changed.

    Returns:
        Names of what was there and is removed or replaced, sorted.
    """
    changed = [name for name in environment if name in NAMES or name.upper().startswith(PREFIXES)]
    for name in changed:
        del environment[name]
    for name, value in FIXED.items():
        if environment.get(name, value) != value:
            changed.append(name)
        environment[name] = value
    return sorted(changed)
