"""Masked inference: the prefix tree against the plain ways to evaluate all maskings of a prompt.

    python benchmarks/inference.py            n = 6, 8, 10, 12; about half an hour on one core
    python benchmarks/inference.py --quick    n = 6, 8 on the first model; about 4 minutes

Needs the model folders of the default study (results/models), or others as --models. Prompts are real
tweets (`inference_prompts.jsonl`) in the study's frame; the players are spread evenly over their words.

    loop           one masked prompt at a time
    all logits     batches of whole prompts, logits at every position
    needed logits  batches of whole prompts, logits at the last position
    tree           the prefix tree, with torch's linear layers
    ours           the prefix tree, with packed weights on a CPU

Every row runs in a process of its own. Batches of whole prompts take the best of 8, 16 and 32 rows. Where a
plain way runs only some of the maskings (--maskings), its time is scaled and marked "~", and max |Δv| is
over those. |Δv| is against whole prompts in float32. Memory is what a run adds to its peak, beside the
model. The floor is the time of the bare matrix products of our token positions, in the shapes of our
forward passes, measured in the same process before and after. Times are wall times, or CPU times with
--cpu.
"""

import argparse
import contextlib
import ctypes
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from sft_interactions.masking.devices import (  # noqa: E402
    allow_tf32,
    pick_device,
    use_reproducible_float32,
)
from sft_interactions.masking.log_odds import (  # noqa: E402
    MaskedPrompt,
    log_odds,
    masked_log_odds,
)
from sft_interactions.masking.mask_embedding import make_mask_embedding  # noqa: E402
from sft_interactions.models.loading import (  # noqa: E402
    in_dtype,
    load_checkpoint,
    multiply_head_once,
)
from sft_interactions.models.packed_linear import PackedLinear, pack_linear_layers  # noqa: E402

INSTRUCTION = "Sentiment: positive, negative or neutral?\n{prompt}"
BATCHES = (8, 16, 32)
METHODS = ("loop", "all logits", "needed logits", "tree", "ours")
LLAMAS = {
    "1b": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32},
    "3b": {"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24},
}


class Timer:
    def __init__(self, options, device):
        self.clock = time.process_time if options.cpu else time.perf_counter
        self.device = device

    def __enter__(self):
        self.wait()
        self.start = self.clock()
        return self

    def __exit__(self, *_):
        self.wait()
        self.seconds = self.clock() - self.start

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def load_model(name, device):
    """Model and tokenizer of a folder, or of a random Llama, which has no tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if name not in LLAMAS:
        tokenizer = AutoTokenizer.from_pretrained(name)
        return load_checkpoint(name, None, device), tokenizer
    config = LlamaConfig(
        vocab_size=128256,
        intermediate_size=8192,
        num_key_value_heads=8,
        tie_word_embeddings=True,
        **LLAMAS[name],
    )
    torch.manual_seed(0)
    with device:
        model = LlamaForCausalLM(config).eval()
    multiply_head_once(model)
    return model, None


def real_prompt(tokenizer, n, number):
    # Random prompts, all that gpu.py needs of this file, do without what these import.
    from sft_interactions.data.words import find_words
    from sft_interactions.models.prompts import make_prompt, mask_token_id
    from sft_interactions.models.templates import make_frame

    lines = (Path(__file__).with_name("inference_prompts.jsonl")).read_text().splitlines()
    row = json.loads(lines[number])
    template = "chat" if tokenizer.chat_template else "plain"
    frame = make_frame(tokenizer, template, INSTRUCTION)
    words = find_words(row["text"])
    players = [words[round(place)] for place in np.linspace(0, len(words) - 1, n)]
    made = make_prompt(tokenizer, frame, "benchmark", row["text"], row["target"], players, 1)
    return MaskedPrompt(made.token_ids, made.player_of_token, made.target_token_ids), mask_token_id(
        tokenizer
    )


def random_prompt(n):
    """A prompt of the length and player places that the real ones have."""
    owners = [-1] * 60
    for player, place in enumerate(np.linspace(38, 53, n)):
        owners[round(place)] = player
    ids = np.random.default_rng(0).integers(1000, 100000, len(owners)).tolist()
    return MaskedPrompt(ids, owners, [500]), 0


class Forwarded:
    """Counts the forward passes of a model by token positions, and those of its output head."""

    def __init__(self, model):
        self.passes, self.heads = Counter(), Counter()
        head = model.get_output_embeddings()
        self.handles = [
            model.base_model.register_forward_pre_hook(self.count, with_kwargs=True),
            head.register_forward_pre_hook(self.count_head),
        ]

    def count(self, _, args, kwargs):
        self.passes[kwargs["inputs_embeds"].shape[:2].numel()] += 1

    def count_head(self, _, inputs):
        self.heads[inputs[0].shape[:-1].numel()] += 1

    def remove(self):
        for handle in self.handles:
            handle.remove()


@torch.inference_mode()
def bare_products(model, forwarded, timer):
    """Seconds of the matrix products of some forward passes, without anything between them."""
    head = model.get_output_embeddings()
    kinds = (torch.nn.Linear, PackedLinear)
    layers = [m for m in model.modules() if isinstance(m, kinds) and m is not head]

    def seconds(some, positions):
        sizes = {layer.in_features for layer in some}
        like = {"device": model.device, "dtype": model.dtype if some is layers else torch.float32}
        inputs = {size: torch.randn(positions, size, **like) for size in sizes}
        with timer:
            for layer in some:
                layer(inputs[layer.in_features])
        return timer.seconds

    return sum(
        times * seconds(some, positions)
        for some, counted in ((layers, forwarded.passes), ([head], forwarded.heads))
        for positions, times in counted.items()
    )


def memory(device, field):
    """MiB of this process, or of the GPU, now (VmRSS) or at its peak (VmHWM)."""
    if device.type == "cuda":
        now = field == "VmRSS"
        return (torch.cuda.memory_allocated() if now else torch.cuda.max_memory_allocated()) / 2**20
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if field in line) / 1024


def reset_peak_memory(device):
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):  # loading may have left a higher peak than the run's
            Path("/proc/self/clear_refs").write_text("5")


@torch.inference_mode()
def plain(model, prompt, mask_embedding, masks, rows, all_logits):
    """Log-odds from batches of whole masked prompts, and from how many at a time."""
    embeddings = model.get_input_embeddings()(torch.tensor([prompt.token_ids], device=model.device))
    owners = torch.tensor(prompt.player_of_token, device=model.device)
    target = torch.tensor(prompt.target_token_ids[0], device=model.device)
    values = []
    for part in torch.tensor(masks, device=model.device).split(rows):
        kept = (owners < 0) | ((part[:, None] >> owners.clamp(min=0)) & 1).bool()
        inputs = torch.where(kept[:, :, None], embeddings, mask_embedding)
        output = model(inputs_embeds=inputs, use_cache=False, logits_to_keep=0 if all_logits else 1)
        values.append(log_odds(output.logits[:, -1], target.expand(len(part))))
    return torch.cat(values).cpu().numpy()


def work(task, options):
    """One row of the table, in a process of its own."""
    device = pick_device("auto")
    use_reproducible_float32(torch.get_num_threads())
    model, tokenizer = load_model(task["model"], device)
    model = in_dtype(model, task["dtype"])
    allow_tf32(task["dtype"] == "tf32")
    if task["method"] == "ours":
        pack_linear_layers(model)
    n = task["n"]
    prompt, token_id = real_prompt(tokenizer, n, options.prompt) if tokenizer else random_prompt(n)
    mask_embedding = make_mask_embedding(model, "token", token_id)
    timer = Timer(options, device)

    def run(masks, rows):
        if task["method"] in ("tree", "ours"):
            return masked_log_odds(model, prompt, mask_embedding)
        all_logits = task["method"] == "all logits"
        return plain(model, prompt, mask_embedding, masks, rows, all_logits)

    rows = 1
    plain(model, prompt, mask_embedding, [0] * 4, 4, False)  # warm-up
    if "logits" in task["method"]:
        speeds = {}
        for size in BATCHES:
            with timer:
                run([0] * 32, size)
            speeds[size] = timer.seconds
        rows = min(speeds, key=speeds.get)
    masks = np.unique(np.linspace(0, 2**n - 1, task["maskings"]).astype(int)).tolist()
    floor = None
    if task["method"] in ("tree", "ours"):
        if device.type == "cuda":
            run(masks, rows)  # kernels are chosen at the first call
        forwarded = Forwarded(model)
    reset_peak_memory(device)
    before = memory(device, "VmRSS")
    with timer:
        values = run(masks, rows)
    seconds = timer.seconds
    peak = memory(device, "VmHWM") - before
    if task["method"] in ("tree", "ours"):
        masks = range(2**n)
        positions = sum(size * times for size, times in forwarded.passes.items())
        forwarded.remove()
        floor = min(bare_products(model, forwarded, timer) for _ in range(2))
    else:
        positions = 2**n * len(prompt.token_ids)
        seconds *= 2**n / len(masks)
    result = {
        "seconds": seconds,
        "positions": positions,
        "memory": peak,
        "floor": floor,
        "rows": rows,
        "scaled": len(masks) < 2**n,
        "values": dict(zip(map(int, masks), map(float, values), strict=True)),
    }
    print(json.dumps(result))


def in_own_process(task, options):
    command = [sys.executable, __file__, "--worker", json.dumps(task)]
    command += ["--prompt", str(options.prompt)]
    if options.cpu:
        command.append("--cpu")
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(model, n, options, dtypes):
    row = "{:26}{:>11}{:>10}{:>8}{:>10}{:>10}{:>9}{:>9}"
    columns = ("seconds", "ratio", "max |Δv|", "MiB", "floor, s", "× floor")
    print(f"\n{Path(model).name}, n = {n}")
    print(row.format("", "positions", *columns))
    tasks = [(method, "float32") for method in METHODS]
    tasks += [("ours", dtype) for dtype in dtypes]
    if options.methods:
        tasks = [task for task in tasks if task[0] in options.methods]
    results = {}
    for method, dtype in tasks:
        share = min(2**n, options.maskings // (4 if method == "loop" else 1))
        task = {"model": str(model), "n": n, "method": method, "dtype": dtype, "maskings": share}
        results[method, dtype] = in_own_process(task, options)
    ours = results["ours", "float32"]
    reference = results.get(("needed logits", "float32"), ours)["values"]
    for (method, dtype), r in results.items():
        error = max(
            abs(r["values"][mask] - v) for mask, v in reference.items() if mask in r["values"]
        )
        label = method + (f", {r['rows']} rows" if "logits" in method else "")
        print(
            row.format(
                label + (f", {dtype}" if dtype != "float32" else ""),
                r["positions"],
                f"{'~' if r['scaled'] else ''}{r['seconds']:.2f}",
                f"{r['seconds'] / ours['seconds']:.2f}",
                f"{error:.1e}",
                f"{r['memory']:.0f}",
                f"{r['floor']:.2f}" if r["floor"] else "",
                f"{r['seconds'] / r['floor']:.2f}" if r["floor"] else "",
            )
        )
    if n == 10:
        for (method, dtype), r in results.items():
            if method == "ours":
                print(f"{dtype}: {60 / r['seconds']:.1f} samples a minute and checkpoint")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="n = 6 and 8, the first model only")
    parser.add_argument("--players", type=int, nargs="+", help="numbers of players n")
    parser.add_argument("--models", nargs="+", help="model folders")
    parser.add_argument("--random-llama", choices=tuple(LLAMAS), help="random weights instead")
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument(
        "--maskings", type=int, default=128, help="that the plain ways run; the loop a quarter"
    )
    parser.add_argument("--prompt", type=int, default=0, help="line of the file of prompts")
    parser.add_argument(
        "--cpu", action="store_true", help="CPU times, for a machine that is shared"
    )
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options)
        return
    folder = ROOT / "results" / "models"
    models = options.models or [folder / "smollm2", folder / "gemma3"]
    if options.random_llama:
        models = [options.random_llama]
    players = options.players or ((6, 8) if options.quick else (6, 8, 10, 12))
    on_gpu = torch.cuda.is_available()
    print(
        f"threads: {torch.get_num_threads()}, device: "
        f"{torch.cuda.get_device_name() if on_gpu else 'CPU'}, {'CPU' if options.cpu else 'wall'} times"
    )
    for model in models[: 1 if options.quick else None]:
        for n in players:
            compare(model, n, options, ["tf32", "bfloat16"] if on_gpu else [])


if __name__ == "__main__":
    main()
