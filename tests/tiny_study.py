"""A study of two tiny LLMs and a dozen sentences, and Snakemake on it from the command line."""

import os
import subprocess
import sys
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
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile")]
    command += ["--configfile", str(folder / "config.yaml"), "--directory", str(folder)]
    command += ["--cores", "2"]
    return subprocess.run(
        [*command, *arguments],
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,  # against a hang; a machine may be slow
    )
