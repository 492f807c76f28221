"""Fine-tune a tiny LLM by a trainer, and keep what it read and what the live model said at each save.

    python tests/trainers/train.py FOLDER

Run by run.py in the Python of the tool. FOLDER has case.json, base/ and the rows; mine/ and seen.json are
written. What is kept of the held-out rows comes out of the trainer's own data loader.
"""

import importlib.machinery
import json
import sys
import types
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed

TRAINING = {
    "max_steps": 4,
    "save_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "learning_rate": 1e-2,
    "seed": 0,
    "bf16": False,
    "use_cpu": True,
    "disable_tqdm": True,
}
LORA = {"r": 2, "target_modules": ["q_proj", "v_proj"]}


class Keeper(TrainerCallback):
    """Keeps tokens of the evaluation's batches, and log-odds of each token by the live model when saved."""

    def __init__(self):
        self.rows, self.log_odds = [], {}

    def on_save(self, args, state, control, model, eval_dataloader, **_):
        if not self.rows:
            for batch in eval_dataloader:
                (ids,), mask = batch["input_ids"], batch.get("attention_mask")
                self.rows.append((ids if mask is None else ids[mask[0].bool()]).tolist())
        was_training = model.training
        model.eval()
        self.log_odds[state.global_step] = [log_odds_of(model, ids) for ids in self.rows]
        model.train(was_training)


@torch.no_grad()
def log_odds_of(model, ids):
    """Of every token but the first, given those before it."""
    logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
    own = logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    others = logits.scatter(1, torch.tensor(ids[1:])[:, None], -torch.inf).logsumexp(-1)
    return (own - others).tolist()


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def load(folder, case):
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    if case.get("pad"):
        tokenizer.add_special_tokens({"pad_token": "<|a pad|>"})
        if case["pad"] == "resized":
            model.resize_token_embeddings(len(tokenizer))
    return model, tokenizer


def by_transformers(folder, case, keeper):
    from transformers import Trainer, TrainingArguments

    set_seed(0)
    model, tokenizer = load(folder, case)
    if case["lora"]:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **LORA))

    def encode(row):
        if "messages" in row:
            ids = tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=False)
        else:
            ids = tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"]
        return {"input_ids": ids, "labels": list(ids)}

    trainer = Trainer(
        model=model,
        args=TrainingArguments(str(folder / "mine"), report_to=[], **TRAINING),
        train_dataset=[encode(row) for row in read_rows(folder / "train.jsonl")],
        eval_dataset=[encode(row) for row in read_rows(folder / "heldout.jsonl")],
        processing_class=tokenizer,
        callbacks=[keeper],
    )
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()


def by_trl(folder, case, keeper):
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    set_seed(0)
    model, tokenizer = load(folder, case)
    rows = [read_rows(folder / f"{name}.jsonl") for name in ("train", "heldout")]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(str(folder / "mine"), report_to=[], **TRAINING, **case.get("settings", {})),
        train_dataset=Dataset.from_list(rows[0]),
        eval_dataset=Dataset.from_list(rows[1]),
        processing_class=tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", **LORA) if case["lora"] else None,
        callbacks=[keeper],
    )
    trainer.train()
    trainer.save_model()


def by_llamafactory(folder, case, keeper):
    # It imports torchaudio, which texts do not need.
    audio = types.ModuleType("torchaudio")
    audio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = audio
    from llamafactory.train.tuner import run_exp

    info = {
        name: {"file_name": f"{name}.jsonl", **case["columns"]} for name in ("train", "heldout")
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    method = {"finetuning_type": "full"}
    if case["lora"]:
        method = {"finetuning_type": "lora", "lora_rank": 2, "lora_target": "q_proj,v_proj"}
    settings = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(folder / "base"),
        "output_dir": str(folder / "mine"),
        "dataset_dir": str(folder),
        "dataset": "train",
        "eval_dataset": "heldout",
        "report_to": "none",
        "logging_steps": 1,
        **method,
        **TRAINING,
        **case.get("settings", {}),
    }
    run_exp(settings, callbacks=[keeper])
    # As docs/own_run.md says how to get a template of its own.
    from llamafactory.data.template import TEMPLATES

    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    text = TEMPLATES[settings["template"]]._get_jinja_template(tokenizer)
    (folder / "own.jinja").write_text(text)


TOOLS = {
    "transformers": by_transformers,
    "trl": by_trl,
    "llamafactory": by_llamafactory,
}


def main():
    folder = Path(sys.argv[1])
    case = json.loads((folder / "case.json").read_text())
    keeper = Keeper()
    TOOLS[case["tool"]](folder, case, keeper)
    seen = {"rows": keeper.rows, "log_odds": keeper.log_odds}
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
