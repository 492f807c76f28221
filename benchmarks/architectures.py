"""Every architecture that transformers can build as a causal LM, with tiny random weights: is it right?

    python benchmarks/architectures.py               all of them into docs/architectures.md; a few minutes
    python benchmarks/architectures.py llama gemma2  some, on the screen

Each model is saved, loaded as the workflow loads it, and its log-odds under all maskings of two prompts are
compared with plain forward passes: the ids of masked words are replaced by the id whose embedding masks
them, and every prompt goes through the model whole and alone. Every model runs in a process of its own,
with a time limit.
"""

import argparse
import contextlib
import multiprocessing
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from sft_interactions.masking.log_odds import (  # noqa: E402
    MaskedPrompt,
    log_odds,
    masked_log_odds,
)
from sft_interactions.masking.mask_embedding import make_mask_embedding  # noqa: E402
from sft_interactions.masking.prefix_tree import NotBranchableError  # noqa: E402
from sft_interactions.models.loading import load_base  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
VOCABULARY = 160
MASK = 5  # id whose embedding masks a word
ALLOWED = 1e-4  # difference in log-odds
SECONDS = 20
PLAYERS = (
    [-1, -1, 0, -1, 1, 1, -1, 2, -1, -1, -1, -1, -1, -1],
    [-1, 2, -1, 0, -1, 1, -1, -1],
)
# Small values of what configurations call the same thing in many ways.
SIZES = {
    VOCABULARY: ("vocab_size", "vocab_size_per_layer_input", "text_vocab_size"),
    32: (
        "hidden_size",
        "n_embd",
        "d_model",
        "dim",
        "embedding_size",
        "word_embed_proj_dim",
        "emb_dim",
        "attention_hidden_size",
        "dim_model",
        "embed_dim",
        "lru_width",
        "embedding_dim",
    ),
    64: ("mamba_d_ssm",),
    48: (
        "intermediate_size",
        "ffn_dim",
        "n_inner",
        "d_ff",
        "d_inner",
        "dff",
        "dim_ff",
        "decoder_ffn_dim",
        "encoder_ffn_dim",
        "ffn_hidden_size",
        "intermediate_size_mlp",
        "feed_forward_size",
        "ffn_intermediate_size",
        "block_ff_dim",
        "dense_intermediate_size",
    ),
    16: (
        "moe_intermediate_size",
        "shared_expert_intermediate_size",
        "shared_intermediate_size",
        "expert_ffn_hidden_size",
        "moe_shared_expert_intermediate_size",
        "index_head_dim",
    ),
    4: (
        "num_hidden_layers",
        "n_layer",
        "num_layers",
        "n_layers",
        "decoder_layers",
        "encoder_layers",
        "num_decoder_layers",
        "num_encoder_layers",
        "num_blocks",
        "num_attention_heads",
        "n_head",
        "n_heads",
        "num_heads",
        "decoder_attention_heads",
        "encoder_attention_heads",
        "num_decoder_attention_heads",
        "num_encoder_attention_heads",
        "num_experts",
        "n_routed_experts",
        "num_local_experts",
        "moe_num_experts",
        "index_n_heads",
        "index_topk",
        "mamba_n_heads",
        "linear_num_value_heads",
    ),
    2: (
        "num_key_value_heads",
        "num_kv_heads",
        "multi_query_group_num",
        "num_experts_per_tok",
        "num_experts_per_token",
        "moe_topk",
        "moe_k",
        "linear_num_key_heads",
        "swa_num_key_value_heads",
        "num_global_key_value_heads",
        "num_zero_experts",
    ),
    8: (
        "head_dim",
        "kv_channels",
        "d_kv",
        "v_head_dim",
        "kv_lora_rank",
        "q_lora_rank",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
        "attention_head_dim",
        "global_head_dim",
        "swa_head_dim",
        "swa_v_head_dim",
        "linear_key_head_dim",
        "linear_value_head_dim",
        "mamba_d_state",
        "mamba_head_dim",
        "mamba_d_head",
        "state_size",
        "ssm_state_size",
        "hidden_size_per_layer_input",
        "time_step_rank",
        "mamba_dt_rank",
        "chunk_size",
        "mamba_chunk_size",
    ),
    6: ("sliding_window", "attention_window", "window_size", "attention_window_size"),
    1: (
        "n_group",
        "topk_group",
        "n_shared_experts",
        "num_shared_experts",
        "mamba_n_groups",
        "n_groups",
    ),
    256: (
        "max_position_embeddings",
        "n_positions",
        "n_ctx",
        "max_seq_len",
        "max_sequence_length",
        "max_target_positions",
        "max_source_positions",
        "context_length",
    ),
}
SMALL = {name: value for value, names in SIZES.items() for name in names}
# Where one name has another meaning, or sizes must fit each other.
OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "lsh"] * 2},
    "xlnet": {"d_head": 8},
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8},
    "granitemoehybrid": {"mamba_n_heads": 8, "mamba_d_head": 8},
    "falcon_h1": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64},
    "dots3_note": {"num_key_value_heads": 4, "num_attention_heads": 4},
    "deepseek_v2": {
        "num_key_value_heads": 4,
        "num_experts_per_tok": 2,
        "topk_group": 1,
        "n_group": 1,
    },
    "gemma3n_text": {"num_kv_shared_layers": 0, "laurel_rank": 4},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "gemma4_unified_assistant": {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0},
    "zamba2": {
        "layer_types": ["mamba", "hybrid"] * 2,
        "hybrid_layer_ids": [1, 3],
        "num_mem_blocks": 1,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
    },
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    "bailing_hybrid": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": 2},
    "ministral": {"head_dim": 8},
    "lfm2_moe": {"num_dense_layers": 1, "layer_types": ["conv", "full_attention"] * 2},
    "deepseek_v32": {"index_head_dim": 16},
}


@dataclass
class Row:
    """What became of one architecture.

    Attributes:
        evaluated: ``prefix tree``, ``whole prompts``, ``refused``, ``not built``; or ``wrong`` or
            ``failed`` (an error of another kind than ours), which should not occur.
        difference: largest one in log-odds from plain forward passes; None where there are none.
        reason: one line, if it is not evaluated by the prefix tree.
    """

    model_type: str
    name: str = ""
    evaluated: str = "not built"
    difference: float | None = None
    reason: str = ""


def shrunk(model_type: str, left_out: Collection[str] = (), **changes: Any) -> Any:
    """A configuration of a model type with small sizes, whatever its class calls them.

    Args:
        left_out: names whose values stay those of the class.
        changes: values beside those of ``SIZES``.
    """
    kind = CONFIG_MAPPING[model_type]
    known = kind().to_dict()
    fitting = {name: value for name, value in changes.items() if name in known}
    return _shrink(kind, left_out, {**OWN.get(model_type, {}), **fitting})


def _shrink(kind: Any, left_out: Collection[str], own: dict[str, Any]) -> Any:
    default = kind()
    given = default.to_dict()
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if name in left_out:
            continue
        if name in SMALL and isinstance(value, int) and not isinstance(value, bool):
            changes[name] = min(SMALL[name], value) if name in SIZES[4] else SMALL[name]
        elif name.endswith("_token_id") and isinstance(value, int) and value >= VOCABULARY:
            changes[name] = 1
        elif name in ("initializer_range", "init_std", "initializer_factor"):
            changes[name] = 0.2
    for name in getattr(kind, "sub_configs", {}):
        if name in given and given[name] is not None:
            changes[name] = _shrink(type(getattr(default, name)), left_out, {})
    return kind(**{**changes, **own})


# Ways to shrink, tried one after the other, since sizes that must fit each other differ by class.
CORE = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"}
HEADS = {"num_attention_heads", "num_key_value_heads"}
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"left_out": ["head_dim"]},
    {"head_dim": 8, "num_key_value_heads": 4},
    {"head_dim": 8, "num_key_value_heads": 2},
    {"num_key_value_heads": 4},
    {"left_out": ["num_hidden_layers"]},
    {"left_out": ["num_hidden_layers", "head_dim"]},
    {"left_out": SMALL.keys() - CORE - HEADS},
    {"left_out": SMALL.keys() - CORE - HEADS, "head_dim": 8},
    {"left_out": SMALL.keys() - CORE},
    {"left_out": ["intermediate_size", "mamba_d_ssm", "mamba_n_heads", "mamba_d_head"]},
    {"left_out": ["num_hidden_layers", "mamba_n_heads", "mamba_d_head", "mamba_d_ssm"]},
)


def measure(model_type: str) -> Row:
    """Build, load and evaluate a tiny model of one type, in the first of ``WAYS`` that runs."""
    kinds = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type, "")
    row = Row(model_type, kinds if isinstance(kinds, str) else kinds[0])
    first = ""
    for way in WAYS:
        torch.manual_seed(0)
        try:
            config = shrunk(model_type, **way)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
            _shake(model)
            with torch.inference_mode():
                model(input_ids=torch.arange(6, 20)[None], use_cache=False)
        except Exception as error:  # what fails depends on the class
            first = first or _line(error)
            continue
        row.name = type(model).__name__
        return _saved_and_evaluated(row, model)
    row.reason = f"no tiny model that runs was found: {first}"
    return row


def _shake(model: Any) -> None:
    """Make weights differ that start as zeros or ones, so that no part is without effect."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)


def _saved_and_evaluated(row: Row, model: Any) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.save_pretrained(folder)
            loaded = load_base(folder)
        except Exception as error:
            row.evaluated = "refused" if isinstance(error, ValueError) else "failed"
            row.reason = _line(error).replace(f"{folder}/", "").replace(f"{folder}: ", "")
            return row
        return evaluated(row, loaded)


def evaluated(row: Row, model: Any) -> Row:
    """Fill in how a loaded model is evaluated, and its difference from plain forward passes."""
    for method in ("prefix_tree", "full_length"):
        try:
            row.difference = max(_difference(model, prompt, method) for prompt in _prompts())
        except NotBranchableError as error:
            row.reason = _line(error)
        except Exception as error:
            row.evaluated, row.reason = "failed", _line(error)
            return row
        else:
            row.evaluated = {"prefix_tree": "prefix tree", "full_length": "whole prompts"}[method]
            if not row.difference <= ALLOWED:
                row.evaluated, row.reason = "wrong", f"{row.evaluated} {row.reason}"
            return row
    return row


def _prompts() -> Iterator[MaskedPrompt]:
    for owners in PLAYERS:
        ids = np.random.default_rng(0).integers(6, VOCABULARY - 10, len(owners)).tolist()
        yield MaskedPrompt(ids, owners, [17, 90])


def _difference(model: Any, prompt: MaskedPrompt, method: str) -> float:
    embedding = make_mask_embedding(model, "token", MASK)
    found = masked_log_odds(model, prompt, embedding, method=method)
    return float(np.abs(found - _plainly(model, prompt)).max())


@torch.inference_mode()
def _plainly(model: Any, prompt: MaskedPrompt) -> np.ndarray:
    """Log-odds of every masking, one whole prompt of token ids at a time."""
    values = []
    targets = torch.tensor(prompt.target_token_ids)
    for mask in range(2**prompt.n):
        ids = [
            token if player < 0 or mask >> player & 1 else MASK
            for token, player in zip(prompt.token_ids, prompt.player_of_token, strict=True)
        ]
        ids += prompt.target_token_ids[:-1]
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -len(targets) :]
        values.append(float(log_odds(logits.double(), targets).sum()))
    return np.array(values)


def _line(error: Exception) -> str:
    text = " ".join((str(error).strip() or type(error).__name__).split())
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _alone(model_type: str) -> Row:
    """:func:`measure` in a process of its own, which a crash or a hang ends alone."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_send, args=(model_type, sender))
    process.start()
    sender.close()
    row = Row(model_type, reason=f"no answer within {SECONDS} s")
    with contextlib.suppress(EOFError):
        if receiver.poll(SECONDS):
            row.reason = "the process ended without an answer"
            row = receiver.recv()
    process.kill()
    process.join()
    return row


def _send(model_type: str, sender: Connection) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    warnings.simplefilter("ignore")
    try:
        sender.send(measure(model_type))
    except BaseException:
        sender.send(Row(model_type, reason=traceback.format_exc().splitlines()[-1]))


def table(rows: list[Row]) -> str:
    lines = [
        "| model type | class | evaluated by | largest difference | remark |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        difference = "" if row.difference is None else f"{row.difference:.0e}"
        reason = row.reason.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
        lines.append(
            f"| `{row.model_type}` | `{row.name}` | {row.evaluated} | {difference} | {reason[:160]} |"
        )
    return "\n".join(lines)


def page(rows: list[Row]) -> str:
    counts = {kind: sum(row.evaluated == kind for row in rows) for kind in _kinds(rows)}
    summary = "\n".join(f"| {kind} | {count} |" for kind, count in counts.items())
    return f"""# Which architectures are evaluated, and how

Every model type that transformers {transformers.__version__} can build as a causal LM, with a tiny
configuration and random weights. `python benchmarks/architectures.py` makes this page. A model is saved
and loaded as the workflow does it, and its log-odds under all maskings are compared with plain forward
passes of whole prompts of token ids, one at a time; the largest difference allowed is {ALLOWED:g}.

- *prefix tree*: by the [prefix tree](inference.md#the-prefix-tree).
- *whole prompts*: only with `inference.method: auto` or `full_length`; else the job stops with one line.
- *refused*: the job stops with the line in the remark.
- *not built*: no tiny configuration was found that runs, which says nothing of the real model. A study
  compares every model with whole prompts while it runs.

| | model types |
|---|---|
{summary}

{table(rows)}
"""


def _kinds(rows: list[Row]) -> list[str]:
    order = ["prefix tree", "whole prompts", "refused", "not built", "failed", "wrong"]
    return [kind for kind in order if any(row.evaluated == kind for row in rows)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model_types", nargs="*", help="all by default")
    given = parser.parse_args().model_types
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    model_types = given or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    rows = []
    for model_type in model_types:
        rows.append(_alone(model_type))
        print(rows[-1], file=sys.stderr, flush=True)
    if given:
        print(table(rows))
    else:
        PAGE.write_text(page(rows), "utf-8")
    return int(any(row.evaluated in ("wrong", "failed") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
