"""Output folders as trainers leave them, with tiny weights that no model has."""

import json

import torch
from safetensors.torch import save_file

HISTORY = [
    {"step": 10, "loss": 2.0},
    {"step": 10, "eval_loss": 1.9},
    {"step": 20, "loss": 1.5},
    {"step": 20, "eval_loss": 1.4},
]


def write_checkpoint(output, step, *, base="org/base", history=HISTORY, value=0.0, name=None):
    folder = output / (name or f"checkpoint-{step}")
    folder.mkdir(parents=True)
    settings = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "task_type": "CAUSAL_LM",
        "target_modules": ["q_proj"],
        "base_model_name_or_path": base,
        "init_lora_weights": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    weights = {
        f"{layer}.lora_A.weight": torch.full((2, 8), value + step),
        f"{layer}.lora_B.weight": torch.ones(8, 2),
    }
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    if history is not None:
        known = [entry for entry in history if entry["step"] <= step]
        state = {"global_step": step, "log_history": known}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def give_tokenizer(folder, template="{{ messages }}"):
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
