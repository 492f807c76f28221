"""Fine-tuning on a CPU: batches in parts of similar lengths against whole ones, the same steps in one run.

    snakemake --cores 2 --configfile config/stopping.yaml -- \\
        results/stopping/models/smollm2 results/stopping/data/{tweets,dolly}/train.parquet
    python benchmarks/finetuning.py

The first command makes model and data. Printed are, for each data set and way: tokens of a batch with
their padding, in parts of those without; CPU seconds of a step, the median; the loss of the last step. The
last line of a data set is the ratio of the two times. About three minutes of one core.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from sft_interactions import config_file, tables  # noqa: E402
from sft_interactions.config import resolve  # noqa: E402
from sft_interactions.masking.devices import use_reproducible_float32  # noqa: E402
from sft_interactions.models import finetuning  # noqa: E402
from sft_interactions.models.examples import (  # noqa: E402
    Example,
    make_examples,
    padding_token,
    parts_of_batch,
)
from sft_interactions.models.templates import frames_of  # noqa: E402
from sft_interactions.models.tokenizing import load_tokenizer  # noqa: E402


def time_steps(
    model: Path, examples: Sequence[Example], settings: dict[str, Any], pad_id: int, in_parts: bool
) -> tuple[float, float, float]:
    """Padded tokens over all tokens, CPU seconds of a step, and the loss of the last one."""
    padded = tokens = 0
    ends: list[float] = []

    def split(batch: dict[str, Any]) -> list[dict[str, Any]]:
        nonlocal padded, tokens
        parts = parts_of_batch(batch) if in_parts else [batch]
        padded += sum(part["input_ids"].numel() for part in parts)
        tokens += int(batch["attention_mask"].sum())
        return parts

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(finetuning, "parts_of_batch", split),
    ):
        rows = finetuning.finetune(
            model,
            examples,
            examples[:1],
            settings,
            folder,
            pad_id=pad_id,
            seed=0,
            device=torch.device("cpu"),
            progress=lambda _: ends.append(time.process_time()),
        )
    steps = [after - before for before, after in pairwise(ends)]
    return padded / tokens, median(steps), float(rows[-1]["train_loss"] or 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "stopping")
    parser.add_argument("--data", nargs="+", default=["tweets", "dolly"])
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    use_reproducible_float32(1)
    given, places = config_file.read([ROOT / "config" / "stopping.yaml"])
    config = resolve(given, places)
    model = options.results / "models" / "smollm2"
    tokenizer = load_tokenizer(model)
    settings = {**config["finetune"], "steps": options.steps, "checkpoints": [options.steps]}
    print(f"{'data':8} {'a batch':8} {'padded':>7} {'s a step':>9} {'loss':>8}")
    for data in options.data:
        rows = tables.read_samples(options.results / "data" / data / "train.parquet")
        frames = frames_of(
            tokenizer,
            config["models"]["smollm2"]["template"],
            config["datasets"][data]["instruction"],
            "2026-11-29",
        )
        examples = make_examples(rows.rows(), tokenizer, frames, None, settings["max_length"])
        times = {}
        for way in ("whole", "in parts"):
            padded, times[way], loss = time_steps(
                model, examples, settings, padding_token(tokenizer, model), way == "in parts"
            )
            print(f"{data:8} {way:8} {padded:7.2f} {times[way]:9.2f} {loss:8.4f}", flush=True)
        print(f"{data:8} {'ratio':8} {'':7} {times['whole'] / times['in parts']:9.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
