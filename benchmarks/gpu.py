"""What is to be known about a GPU: errors of v, speed against the floor, training, sharing, memory.

    python benchmarks/gpu.py --output gpu.json                a GPU, under eight minutes
    python benchmarks/gpu.py --model results/models/smollm2   with the real model too
    python benchmarks/gpu.py --device cpu --tiny              the same lines of code, on any machine

Needs torch, transformers, peft and numpy, and this checkout. Random-weight models have the shapes of
real ones; prompts have 60 tokens, as the tweets of the default study. A part that fails is reported and the
others go on; a part that no time is left for is left out, and named.

    errors    v of a prefix tree in float32, TF32 and bfloat16, and of whole prompts in float32, against
              whole prompts in float64; whether a second evaluation gives the same bits
    speed     prompts a minute at n = 10, times the floor, memory, with the fastest batch of those tried.
              The floor is the time of the bare matrix products in the shapes of the forward passes.
              And the time of a tree whose levels decide on one player each
    training  LoRA steps a second, batch 8; whether a second run gives the same losses
    sharing   two jobs on one device at once, and a third that is refused
    memory    out of memory on purpose: the batch is halved, and v stays what it was
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

# cuBLAS reads it when it starts; the study's jobs set it too.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from inference import Forwarded, Timer, bare_products, memory, random_prompt, reset_peak_memory
from sft_interactions.masking import prefix_tree
from sft_interactions.masking.devices import allow_tf32, pick_device, use_reproducible_float32
from sft_interactions.masking.log_odds import masked_log_odds
from sft_interactions.masking.mask_embedding import make_mask_embedding
from sft_interactions.masking.memory import BatchSize
from sft_interactions.models.finetuning import finetune
from sft_interactions.models.loading import in_dtype, load_checkpoint, multiply_head_once

SECONDS = 8 * 60
MASK_TOKEN = 0
LARGE = {"vocab_size": 128256, "num_key_value_heads": 8, "tie_word_embeddings": True}
SHAPES = {
    "SmolLM2-135M": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "Llama 1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        **LARGE,
    },
    "Llama 3B": {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        **LARGE,
    },
    "Llama 8B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        **LARGE,
        "tie_word_embeddings": False,
    },
}
TINY = {
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
}
FINETUNE = {
    "method": "lora",
    "batch_size": 8,
    "gradient_accumulation": 1,
    "learning_rate": 1e-4,
    "schedule": "constant",
    "warmup_ratio": 0.0,
    "weight_decay": 0.0,
    "lora_rank": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "lora_target_modules": "all-linear",
}


@dataclass(frozen=True)
class Plan:
    """What is run, by the device and its size."""

    device: torch.device
    tiny: bool
    players: int
    batches: tuple[int, ...]
    steps: int
    cpu: bool = False  # wall times, as the Timer of the other benchmark wants to be told

    @property
    def shapes(self):
        return TINY if self.tiny else SHAPES

    @property
    def smallest(self):
        return next(iter(self.shapes))

    @property
    def dtypes(self):
        return (
            ("float32", "tf32", "bfloat16")
            if self.device.type == "cuda"
            else ("float32", "bfloat16")
        )


class Clock:
    """Time that is left of the eight minutes."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    @property
    def left(self):
        return self.end - time.monotonic()


def random_model(shape, device):
    torch.manual_seed(0)
    with device:
        model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    multiply_head_once(model)
    return model


def prompt_of(model, n):
    prompt, _ = random_prompt(n)
    vocabulary = model.config.vocab_size
    ids = [token % vocabulary for token in prompt.token_ids]
    return type(prompt)(ids, prompt.player_of_token, [500 % vocabulary])


def evaluate(model, dtype, n, batch, method="prefix_tree"):
    allow_tf32(dtype == "tf32")
    try:
        mask_embedding = make_mask_embedding(model, "token", MASK_TOKEN)
        return masked_log_odds(
            model, prompt_of(model, n), mask_embedding, batch=batch, method=method
        )
    finally:
        allow_tf32(False)


def measure_errors(plan, clock, options):
    """Rows of |Δv| against whole prompts in float64 on the same device, and whether v repeats."""
    n = min(plan.players, 8)
    models = {
        f"{plan.smallest}, random weights": lambda: random_model(
            plan.shapes[plan.smallest], plan.device
        )
    }
    if options.model:
        models[Path(options.model).name] = lambda: load_checkpoint(options.model, None, plan.device)
    ways = [("whole prompts", "float32"), *(("prefix tree", dtype) for dtype in plan.dtypes)]
    rows = []
    for name, load in models.items():
        exact = load().double()
        exact.get_output_embeddings()._forward_pre_hooks.clear()  # they make its inputs float32
        reference = evaluate(
            exact, "float64", n, BatchSize.of_device(plan.device), "full_length"
        ).astype(float)
        del exact
        model = load()
        for way, dtype in ways:
            method = "full_length" if way == "whole prompts" else "prefix_tree"
            converted = in_dtype(model, dtype)
            values, again = (
                evaluate(converted, dtype, n, BatchSize.of_device(plan.device), method)
                for _ in range(2)
            )
            error = np.abs(values - reference)
            rows.append(
                {
                    "model": name,
                    "way": way,
                    "dtype": dtype,
                    "max_error": float(error.max()),
                    "rms_error": float(np.sqrt(np.mean(error**2))),
                    "range_of_v": float(np.ptp(reference)),
                    "repeats_to_the_bit": bool(np.array_equal(values, again)),
                }
            )
    return rows


def measure_speed(plan, clock, options):
    """Rows of prompts a minute, with the floor, the memory and the fastest batch."""
    rows = []
    for name, shape in plan.shapes.items():
        for dtype in plan.dtypes:
            if clock.left < 60:
                rows.append({"model": name, "dtype": dtype, "left_out": "no time is left"})
                continue
            free(plan.device)
            if dtype == "bfloat16":
                model = in_dtype(random_model(shape, plan.device), dtype)
            else:
                model = random_model(shape, plan.device)
            free(plan.device)
            rows.append({"model": name, "dtype": dtype, **speed_of(plan, model, dtype)})
            del model
    return rows


def speed_of(plan, model, dtype):
    timer = Timer(plan, plan.device)
    room = BatchSize.of_device(plan.device).memory
    measured = {}
    for tokens in plan.batches:
        evaluate(model, dtype, plan.players, BatchSize(tokens, room))  # kernels are chosen now
        reset_peak_memory(plan.device)
        before = memory(plan.device, "VmRSS")
        with timer:
            evaluate(model, dtype, plan.players, BatchSize(tokens, room))
        measured[tokens] = timer.seconds, memory(plan.device, "VmHWM") - before
    best = min(measured, key=lambda tokens: measured[tokens][0])
    taken, peak = measured[best]
    with patch.object(prefix_tree, "launch_tokens", lambda model: 0.0):
        evaluate(model, dtype, plan.players, BatchSize(best, room))
        with timer:
            evaluate(model, dtype, plan.players, BatchSize(best, room))
    one_player = timer.seconds
    forwarded = Forwarded(model)
    evaluate(model, dtype, plan.players, BatchSize(best, room))
    forwarded.remove()
    allow_tf32(dtype == "tf32")
    floor = min(bare_products(model, forwarded, timer) for _ in range(3))
    allow_tf32(False)
    return {
        "players": plan.players,
        "batch_tokens": best,
        "seconds": taken,
        "seconds_of_batches": {tokens: seconds for tokens, (seconds, _) in measured.items()},
        "seconds_with_levels_of_one_player": one_player,
        "prompts_per_minute": 60 / taken,
        "times_the_floor": taken / floor,
        "memory_mib": peak,
    }


def measure_training(plan, clock, options):
    """One row: LoRA steps a second, and whether a second run with the same seed has the same losses."""
    rng = np.random.default_rng(0)
    shape = plan.shapes[plan.smallest]
    examples = [
        {"prompt_ids": rng.integers(4, shape["vocab_size"], 60).tolist(), "response_ids": [5, 6]}
        for _ in range(64)
    ]
    times, losses = [], []
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(shape, torch.device("cpu"))
        model.save_pretrained(folder)
        settings = {**FINETUNE, "steps": plan.steps, "checkpoints": [0, plan.steps]}
        for number in range(2):
            times.append([])
            rows = finetune(
                folder,
                examples,
                examples[:8],
                settings,
                Path(folder) / f"checkpoints-{number}",
                pad_id=0,
                seed=0,
                device=plan.device,
                progress=lambda _: times[-1].append(time.perf_counter()),
            )
            losses.append([(row["train_loss"], row["validation_loss"]) for row in rows])
    times = times[-1]
    first = len(times) // 4  # the first steps choose kernels
    rate = (len(times) - 1 - first) / (times[-1] - times[first])
    return [
        {
            "model": plan.smallest,
            "batch_size": 8,
            "steps_per_second": rate,
            "repeats_to_the_bit": losses[0] == losses[1],
        }
    ]


def measure_sharing(plan, clock, options):
    """Two jobs of this machine at once, on what both take for a GPU of their own, and a third."""
    names = "first,second"
    if plan.device.type == "cuda":
        uuid = str(torch.cuda.get_device_properties(0).uuid).removeprefix("GPU-")
        names = f"0,GPU-{uuid}"  # two names of one GPU
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": names}
    command = [sys.executable, __file__, "--job", "--device", plan.device.type]
    command += ["--tiny"] if plan.tiny else []
    free(plan.device)
    (alone,) = run_jobs([start_job(command, environment)])
    jobs = [start_job(command, environment) for _ in range(2)]
    third = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    together = run_jobs(jobs)
    refusal = third.stderr.strip().splitlines()[-1] if third.stderr.strip() else ""
    return [
        {
            "both_ran": all(job.returncode == 0 for job in jobs),
            "same_v": alone["v"] == together[0]["v"] == together[1]["v"],
            "prompts_per_minute_alone": alone["prompts_per_minute"],
            "prompts_per_minute_each": [job["prompts_per_minute"] for job in together],
            "third_refused": third.returncode != 0 and "claimed by other jobs" in refusal,
            "message": refusal,
        }
    ]


def start_job(command, environment):
    """A job that has its GPU and waits to be told to go on."""
    pipe = subprocess.PIPE
    job = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
    job.stdout.readline()
    return job


def run_jobs(jobs):
    """Let jobs load their models, then evaluate at the same time; what they found."""
    for message in ("load", "evaluate"):
        for job in jobs:
            job.stdin.write(f"{message}\n")
            job.stdin.flush()
        answers = [job.stdout.readline() for job in jobs]
    for job in jobs:
        job.stdin.close()
        job.wait(timeout=120)
    return [json.loads(answer) for answer in answers]


def be_a_job(plan):
    """Take a GPU and say so; load a model when told to; evaluate prompts when told to."""
    device = pick_device("auto" if plan.device.type == "cpu" else "cuda")
    print("has its device", flush=True)
    sys.stdin.readline()
    use_reproducible_float32(1)
    model = random_model(plan.shapes[plan.smallest], device)
    evaluate(model, "float32", plan.players, BatchSize.of_device(device))
    print("has its model", flush=True)
    sys.stdin.readline()
    prompts = 2 if plan.tiny else 8
    start = time.perf_counter()
    for _ in range(prompts):
        values = evaluate(model, "float32", plan.players, BatchSize.of_device(device))
    rate = 60 * prompts / (time.perf_counter() - start)
    print(json.dumps({"prompts_per_minute": rate, "v": values.tolist()}), flush=True)


def measure_memory(plan, clock, options):
    """Evaluate with a batch that cannot fit, and compare with one that does."""
    free(plan.device)
    n = plan.players
    model = random_model(plan.shapes[plan.smallest], plan.device)
    calm = BatchSize.of_device(plan.device)
    expected = evaluate(model, "float32", n, calm)
    hungry = BatchSize(2**20, 2**50)  # nothing is thought to be too large
    with exhausted(plan, model):
        values = evaluate(model, "float32", n, hungry)
    return [
        {
            "how": "memory filled" if plan.device.type == "cuda" else "simulated",
            "batch_tokens": [2**20, hungry.tokens],
            "halved": hungry.tokens < 2**20,
            "max_difference": float(np.abs(values.astype(float) - expected).max()),
        }
    ]


@contextlib.contextmanager
def exhausted(plan, model):
    """Little memory: a GPU is filled but for 160 MiB; on a CPU larger passes raise the same error."""
    if plan.device.type == "cuda":
        free(plan.device)  # what earlier evaluations left in torch's cache would be used first
        left = torch.cuda.mem_get_info(plan.device)[0] - 160 * 2**20
        filler = torch.empty(max(0, left), dtype=torch.uint8, device=plan.device)
        yield
        del filler
        free(plan.device)  # torch keeps it for itself else, and other processes have none
        return

    def refuse(_, args, kwargs):
        if kwargs["inputs_embeds"].shape[:2].numel() > 64:
            raise torch.OutOfMemoryError("out of memory, simulated")

    handle = model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    yield
    handle.remove()


def free(device):
    if device.type == "cuda":
        torch.cuda.empty_cache()


PARTS = {
    "errors": measure_errors,
    "memory": measure_memory,
    "sharing": measure_sharing,
    "training": measure_training,
    "speed": measure_speed,
}


def show(part, rows):
    print(f"\n{part}")
    for row in rows:
        cells = (
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()
        )
        print("  " + "; ".join(cells), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, for a trial on a CPU")
    parser.add_argument("--model", help="folder of a real model, for its errors")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time for all parts")
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    plan = Plan(
        torch.device(options.device),
        options.tiny,
        players=5 if options.tiny else 10,
        batches=(64, 256) if options.tiny else (2048, 4096, 8192, 16384),
        steps=8 if options.tiny else 40,
    )
    if options.job:
        be_a_job(plan)
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; use --device cpu --tiny for a trial")
    use_reproducible_float32(torch.get_num_threads())
    clock = Clock(options.seconds)
    on_gpu = options.device == "cuda"
    found = {
        "machine": torch.cuda.get_device_name() if on_gpu else platform.processor() or "CPU",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "plan": {key: str(value) for key, value in asdict(plan).items()},
    }
    print("; ".join(f"{key} {value}" for key, value in found.items() if key != "plan"))
    failed = False
    for part in options.parts:
        try:
            with torch.inference_mode(part != "training"):
                rows = PARTS[part](plan, clock, options)
        except Exception as error:  # the other parts are worth their time
            traceback.print_exc()
            rows, failed = [{"failed": f"{type(error).__name__}: {error}"}], True
        found[part] = rows
        show(part, rows)
        if options.output:
            options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{options.seconds - clock.left:.0f} seconds")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
