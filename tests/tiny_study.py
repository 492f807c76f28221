"""A study of two tiny LLMs and a dozen sentences, and Snakemake on it from the command line."""

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
N = 3
SUBJECTS = ("film", "morning", "ending", "story", "rain", "dog")
VERDICTS = {"wonderful": "positive", "sad": "negative"}
ROWS = [
    {"text": f"I think that the {subject} was truly {word}, friend!", "label": label}
    for subject in SUBJECTS
    for word, label in VERDICTS.items()
]
STEPS = {"llama-tiny": [0, 1, 3], "gemma3-tiny": [0, 3]}
CONFIG = {
    "seed": 1,
    "models": {"llama": {}, "gemma3": {"template": "plain"}},
    "datasets": {
        "lines": {
            "source": "path:lines.jsonl",
            "prompt": "text",
            "target": "label",
            "instruction": "Positive or negative?\n{prompt}",
            "train": 6,
            "validation": 2,
            "analysis": 3,
        }
    },
    "finetune": {
        "steps": 3,
        "checkpoints": STEPS["llama-tiny"],
        "batch_size": 2,
        "gradient_accumulation": 1,
        "learning_rate": 0.02,
        "lora_rank": 2,
    },
    "players": {"n": N},
    "inference": {"checkpoints_per_job": 2},
    "bootstrap": {"resamples": 50},
    "stability": {"draws": 2, "samples": 2},  # fewer than are analysed
    "sensitivity": {
        "noise_ratio": [0.02],
        "noise_scales": ["mean"],
        "tie_breaks": ["hash-1"],
        "mask_embeddings": ["token", "zero"],
    },
    "runs": {
        "llama-tiny": {"dataset": "lines", "reference_run": "gemma3-tiny"},
        "gemma3-tiny": {
            "dataset": "lines",
            "reference_run": "llama-tiny",
            "finetune": {"checkpoints": STEPS["gemma3-tiny"]},
        },
    },
}
# In seconds, against a hang; a machine may be slow.
LONGEST = 3600
# Of nobody; it is looked for in all that a study writes.
HF_TOKEN = "hf_" + "TokenThatNobodyHas" * 2


def environment(folder):
    """Settings of the shell under which nothing is written outside of a folder."""
    for outside in ("home", "temporary"):
        (folder / outside).mkdir(exist_ok=True, parents=True)
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "temporary"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HOME": str(folder / "cache" / "huggingface"),
        "MPLCONFIGDIR": str(folder / "cache" / "matplotlib"),
    }


def snakemake(folder, config, *arguments):
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    given = ["-s", str(ROOT / "Snakefile"), "--configfile", str(folder / "config.yaml")]
    given += ["--directory", str(folder), "--cores", "2", *arguments]
    return run_snakemake(*given, env=environment(folder))


def run_snakemake(*arguments, env, cwd=None):
    """Snakemake as from the command line: its exit status, and all that it said as one text.

    Args:
        arguments: of the command line.
        env: settings of the shell, all of them.
        cwd: the folder where it is started, by default the present one.
    """
    command = [sys.executable, "-m", "snakemake", *arguments]
    if not _ONLY_PLANS.isdisjoint(arguments) and _read_at_start(env) == _OURS:
        with tempfile.NamedTemporaryFile() as said:
            started = (arguments, dict(env), str(cwd or Path.cwd()), said.name)
            process = _FORKS.Process(target=_plan, args=started)
            process.start()
            process.join(LONGEST)
            process.kill()
            told = Path(said.name).read_text()
            return subprocess.CompletedProcess(command, process.exitcode, told)
    return subprocess.run(
        command,
        env=env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST,
    )


def _read_at_start(env):
    """Settings of the shell that Python reads when it starts, and never again."""
    return {key: env[key] for key in env if key.startswith(("PYTHON", "LC_", "LANG"))}


def _plan(arguments, env, folder, said):
    """Let Snakemake plan in this process, and write all that it says into a file."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    output = os.open(said, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.argv = ["snakemake", *arguments]
    from snakemake import cli

    try:
        cli.main()
    finally:
        atexit._run_exitfuncs()


# Half of the time of a plan is that of loading Snakemake, which a fork has at once.
_ONLY_PLANS = {"--dry-run", "--detailed-summary"}
_OURS = _read_at_start(os.environ)
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["pytest", "snakemake.cli", "snakemake_executor_plugin_slurm"])
