"""InteractionCallback in a training by TRL: SmolLM2-135M on the tweets of the default study, with LoRA.

    snakemake --cores 2 results/models/smollm2 results/data/tweets/train.parquet
    pip install trl==1.16.0
    OMP_NUM_THREADS=1 python benchmarks/callback.py

Trains twice, with the callback and without it, and compares weights and losses bit by bit; and holds the
last log-odds against the last checkpoint, loaded anew by transformers and peft alone. What the trainer
logs goes to results/reference/callback/log.txt.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import polars as pl
import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from sft_interactions import InteractionCallback  # noqa: E402

INSTRUCTION = "Sentiment: positive, negative or neutral?\n{prompt}"
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("results/models/smollm2"))
    parser.add_argument("--data", type=Path, default=Path("results/data/tweets"))
    parser.add_argument("--output", type=Path, default=ROOT / "results/reference/callback/log.txt")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--save-steps", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--players", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    held_out = pl.read_parquet(options.data / "analysis.parquet").sort("sample_id")
    prompts = list(held_out.select("prompt", "target").head(options.prompts).iter_rows())
    callback = InteractionCallback(prompts, players=options.players, instruction=INSTRUCTION)
    with tempfile.TemporaryDirectory() as folder:
        measured, seconds = train(options, Path(folder), callback)
        difference = compare_with_checkpoint(options, measured, callback)
    with tempfile.TemporaryDirectory() as folder:
        plain, plain_seconds = train(options, Path(folder), None)
    lines = [
        f"trl {trl.__version__}, transformers {transformers.__version__}, peft {peft.__version__}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} thread",
        f"SmolLM2-135M-Instruct, LoRA, {options.steps} steps of 4 samples; {len(prompts)} held-out "
        f"prompts of {options.players} players, measured at every save",
        "",
        "What the trainer has logged:",
        *(format_row(row) for row in measured.state.log_history),
        "",
        f"Suggestion: {callback.suggestion}",
        f"Measuring has stopped because of: {callback.problem}",
        f"Largest difference of v(N) from plain forwards of the last checkpoint: {difference:.1e}",
        f"Weights without the callback are the same to the bit: {have_equal_weights(measured, plain)}",
        f"Losses without the callback are the same to the bit: {losses(measured) == losses(plain)}",
        f"Seconds: {seconds:.0f} with the callback, {plain_seconds:.0f} without",
    ]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


def train(
    options: argparse.Namespace, folder: Path, callback: InteractionCallback | None
) -> tuple[SFTTrainer, float]:
    """A training with TRL, and the seconds that it took."""
    set_seed(SEED)
    rows = pl.read_parquet(options.data / "train.parquet").sort("sample_id")
    data = [
        {
            "prompt": [{"role": "user", "content": INSTRUCTION.replace("{prompt}", prompt)}],
            "completion": [{"role": "assistant", "content": target}],
        }
        for prompt, target in rows.select("prompt", "target").iter_rows()
    ]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(folder),
            max_steps=options.steps,
            save_steps=options.save_steps,
            logging_steps=5,
            per_device_train_batch_size=4,
            learning_rate=5e-4,
            lr_scheduler_type="cosine",
            warmup_steps=options.steps // 10,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
            disable_tqdm=True,
            seed=SEED,
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(options.model),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=8,
            lora_alpha=16,
            lora_dropout=0.05,
            target_modules="all-linear",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    if callback is not None:
        callback.attach(trainer)
    begin = time.perf_counter()
    trainer.train()
    return trainer, time.perf_counter() - begin


def compare_with_checkpoint(
    options: argparse.Namespace, trainer: SFTTrainer, callback: InteractionCallback
) -> float:
    """Largest difference of v(N) at the last step from that of the saved adapter, unmerged."""
    folder = Path(trainer.args.output_dir) / f"checkpoint-{options.steps}"
    base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    full = 2**options.players - 1
    rows = callback.log_odds.filter(pl.col("step") == options.steps, pl.col("mask") == full)
    differences = []
    for (prompt, target), value in zip(callback.prompts, rows["log_odds"], strict=True):
        user = [{"role": "user", "content": INSTRUCTION.replace("{prompt}", prompt)}]
        asked = tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(asked, add_special_tokens=False, return_tensors="pt")["input_ids"]
        first = tokenizer(target, add_special_tokens=False)["input_ids"][0]
        with torch.no_grad():
            p = model(input_ids=ids).logits[0, -1].double().softmax(-1)
        differences.append(abs(float(torch.logit(p[first])) - value))
    return max(differences)


def losses(trainer: SFTTrainer) -> list[Any]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def have_equal_weights(one: SFTTrainer, other: SFTTrainer) -> bool:
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def format_row(row: dict[str, Any]) -> str:
    left_out = (
        "step",
        "epoch",
        "train_runtime",
        "train_samples_per_second",
        "train_steps_per_second",
    )
    numbers = [
        f"{key.removeprefix('interactions/')} {value:.4g}"
        for key, value in row.items()
        if key not in left_out
    ]
    kind = "interactions: " if any(key.startswith("interactions/") for key in row) else ""
    return f"step {row['step']:>3}  {kind}{', '.join(numbers)}"


if __name__ == "__main__":
    main()
