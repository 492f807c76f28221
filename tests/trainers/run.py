"""Read output folders of real trainers, and hold what is read against the trainer's own batches and model.

    python tests/trainers/run.py --trl PYTHON --llamafactory PYTHON

Each case trains a tiny LLM by the tool (train.py, in the Python that has it), and reads the folder as
`snakemake own` does. Token ids of prompts and first scored tokens must be those of the trainer's own data
loader, log-odds at every checkpoint those of the live model when it was saved (within 1e-4). Cases that
cannot be read right must be refused in a line. --base takes a model in place of the tiny one.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "workflow")]

from own_run_checks import compare, read  # noqa: E402
from tiny_models import build_model, build_tokenizer, for_images_too  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

TOLERANCE = 1e-4
N_TRAINED = 8
SUBJECTS = ("film", "morning", "ending", "story", "rain", "dog", "quick", "cold")
SYSTEM = "Positive or negative?"
# As SmolLM2's: a text for the system that it writes by itself.
DEFAULT_SYSTEM = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As TRL wants it for a loss on answers alone.
GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pairs():
    """Prompts and responses, in an order that has all responses among those held out."""
    return [
        (f"I think that the {s} was truly {w}, friend, in the rain!", label)
        for s in SUBJECTS
        for w, label in (("wonderful", "positive"), ("sad", "negative"))
    ]


def turns(prompt, response, roles=("user", "assistant"), keys=("role", "content")):
    said = zip(roles, (prompt, response), strict=True)
    return [{keys[0]: role, keys[1]: text} for role, text in said]


def messages(system=None, earlier=()):
    before = [{"role": "system", "content": system}] if system else []
    before += [turn for pair in earlier for turn in turns(*pair)]
    return [{"messages": [*before, *turns(*pair)]} for pair in pairs()]


def texts(before=" "):
    return [{"prompt": prompt, "completion": before + response} for prompt, response in pairs()]


def split_turns():
    rows = (turns(*pair) for pair in pairs())
    return [{"prompt": row[:1], "completion": row[1:]} for row in rows]


def alpaca(system=None, history=None):
    return [
        {
            "instruction": "Is it positive or negative?",
            "input": prompt,
            "output": response,
            **({"system": system} if system else {}),
            **({"history": history} if history is not None else {}),
        }
        for prompt, response in pairs()
    ]


def sharegpt(system=None, earlier=()):
    names = ("human", "gpt"), ("from", "value")
    before = [turn for pair in earlier for turn in turns(*pair, *names)]
    return [
        {
            "conversations": [*before, *turns(*pair, *names)],
            **({"system": system} if system else {}),
        }
        for pair in pairs()
    ]


@dataclass
class Case:
    """A training, and what is given for reading it.

    Attributes:
        tool: of train.py.
        rows: trained and held-out rows.
        lora: whether an adapter is trained, else all weights.
        chat: the base's chat template; True for that of the tiny models, None for none.
        bos: whether the tokenizer puts a token before each text.
        options: further ones of train.py.
        given: what the command line gives.
        refused: a part of the line that it must stop with; None where it must be read.
        resized: embeddings to add to the base, in the folder resized.
        architecture: of tiny_models.py; Gemma-3 is one for images and text.
    """

    tool: str
    rows: list
    lora: bool = True
    chat: str | bool | None = True
    bos: bool = True
    options: dict = field(default_factory=dict)
    given: dict = field(default_factory=dict)
    refused: str | None = None
    resized: int = 0
    architecture: str = "llama"


def factory(template, columns=None, **settings):
    """Options of LLaMA-Factory."""
    return {"columns": columns or {}, "settings": {"template": template, **settings}}


SHAREGPT = {"formatting": "sharegpt", "columns": {"messages": "conversations"}}
SHAREGPT_SYSTEM = {**SHAREGPT, "columns": {"messages": "conversations", "system": "system"}}
ALPACA_SYSTEM = {
    "columns": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "system": "system",
    }
}
ALPACA_HISTORY = {
    "columns": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "history": "history",
    }
}
BASE = {"base": "{folder}/base"}
CASES = {
    "Trainer, LoRA, messages": Case("transformers", messages(SYSTEM)),
    "Trainer, all weights, model card": Case("transformers", messages(), lora=False, given=BASE),
    "Trainer, earlier turns": Case("transformers", messages(SYSTEM, [pairs()[0]])),
    "Trainer, joined texts": Case(
        "transformers", texts(), chat=None, given={"template": "concatenate"}
    ),
    "Trainer, default system text": Case("transformers", messages(), chat=DEFAULT_SYSTEM),
    "Trainer, pad token without embedding": Case(
        "transformers", messages(), options={"pad": "added"}
    ),
    "Trainer, resized, all weights": Case(
        "transformers", messages(), lora=False, options={"pad": "resized"}, given=BASE
    ),
    "Trainer, resized, LoRA": Case("transformers", messages(), options={"pad": "resized"}),
    "Trainer, images and text, all weights": Case(
        "transformers", messages(), lora=False, given=BASE, architecture="gemma3"
    ),
    "Trainer, images and text, LoRA": Case("transformers", messages(), architecture="gemma3"),
    "TRL, LoRA, messages": Case("trl", messages()),
    "TRL, all weights, messages, system": Case("trl", messages(SYSTEM), lora=False, given=BASE),
    "TRL, earlier turns": Case("trl", messages(SYSTEM, [pairs()[0]])),
    "TRL, prompt and completion as turns": Case("trl", split_turns()),
    "TRL, prompt and completion as text": Case(
        "trl", texts(), chat=None, given={"template": "concatenate"}
    ),
    "TRL, text, no token of the beginning": Case(
        "trl", texts(), chat=None, bos=False, given={"template": "concatenate"}
    ),
    "TRL, text, the template is not used": Case("trl", texts(), refused="template=concatenate"),
    "TRL, text, in spite of a template": Case("trl", texts(), given={"template": "concatenate"}),
    "TRL, default system text": Case("trl", messages(), chat=DEFAULT_SYSTEM),
    "TRL, loss on answers alone": Case(
        "trl",
        messages(SYSTEM),
        chat=GENERATION,
        options={"settings": {"assistant_only_loss": True}},
    ),
    "LLaMA-Factory, alpaca, default": Case(
        "llamafactory", alpaca(), options=factory("default"), bos=False
    ),
    "LLaMA-Factory, alpaca, all weights": Case(
        "llamafactory", alpaca(), options=factory("default"), bos=False, lora=False, given=BASE
    ),
    "LLaMA-Factory, alpaca, system": Case(
        "llamafactory",
        alpaca(SYSTEM),
        options=factory("default", ALPACA_SYSTEM),
        bos=False,
    ),
    "LLaMA-Factory, alpaca, history": Case(
        "llamafactory",
        alpaca(history=[list(pairs()[0])]),
        options=factory("default", ALPACA_HISTORY),
        bos=False,
        refused="history",
    ),
    "LLaMA-Factory, template alpaca": Case(
        "llamafactory",
        alpaca(),
        options=factory("alpaca"),
        chat=None,
        bos=False,
        refused="train with another template",
    ),
    "LLaMA-Factory, template qwen3, which thinks": Case(
        "llamafactory",
        sharegpt(),
        options=factory("qwen3", SHAREGPT),
        chat=None,
        bos=False,
        refused="an empty thought",
    ),
    "LLaMA-Factory, sharegpt, qwen, no template saved": Case(
        "llamafactory", sharegpt(), options=factory("qwen", SHAREGPT), chat=None, bos=False
    ),
    "LLaMA-Factory, sharegpt, system": Case(
        "llamafactory",
        sharegpt(SYSTEM),
        options=factory("qwen", SHAREGPT_SYSTEM),
        chat=None,
        bos=False,
    ),
    "LLaMA-Factory, sharegpt, earlier turns": Case(
        "llamafactory",
        sharegpt(earlier=[pairs()[0]]),
        options=factory("qwen", SHAREGPT),
        chat=None,
        bos=False,
    ),
    "LLaMA-Factory, sharegpt, default, earlier turns": Case(
        "llamafactory",
        sharegpt(SYSTEM, earlier=[pairs()[0]]),
        options=factory("default", SHAREGPT_SYSTEM),
        bos=False,
    ),
    "LLaMA-Factory, qwen beside the model's own": Case(
        "llamafactory",
        sharegpt(),
        options=factory("qwen", SHAREGPT),
        chat=DEFAULT_SYSTEM,
        refused="LLaMA-Factory",
    ),
    "LLaMA-Factory, qwen, its template given": Case(
        "llamafactory",
        sharegpt(),
        options=factory("qwen", SHAREGPT),
        chat=DEFAULT_SYSTEM,
        given={"template": "{folder}/own.jinja"},
    ),
    "LLaMA-Factory, llama3, resized": Case(
        "llamafactory",
        sharegpt(),
        options=factory("llama3", SHAREGPT, resize_vocab=True),
        chat=None,
        lora=False,
        given=BASE,
        refused="resize_token_embeddings",
    ),
    "LLaMA-Factory, llama3, base resized": Case(
        "llamafactory",
        sharegpt(),
        options=factory("llama3", SHAREGPT, resize_vocab=True),
        chat=None,
        lora=False,
        given={"base": "{folder}/resized"},
        resized=11,
    ),
    "LLaMA-Factory, LoRA, qwen, resized": Case(
        "llamafactory",
        sharegpt(),
        options=factory("qwen", SHAREGPT, resize_vocab=True, add_tokens="<|one|>,<|two|>"),
        chat=None,
    ),
}


def prepare(folder, case, base):
    """Write the base, the rows and the case."""
    folder.mkdir(parents=True)
    if base is None:
        tokenizer = build_tokenizer(400, chat=case.chat is True, bos=case.bos)
        if isinstance(case.chat, str):
            tokenizer.chat_template = case.chat
        model = build_model(case.architecture, len(tokenizer))
        if case.architecture == "gemma3":
            model = for_images_too(model)
        model.save_pretrained(folder / "base")
        tokenizer.save_pretrained(folder / "base")
    else:
        shutil.copytree(base, folder / "base")
    if case.resized:
        model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype="auto")
        model.resize_token_embeddings(model.vocab_size + case.resized)
        shutil.copytree(folder / "base", folder / "resized")
        model.save_pretrained(folder / "resized")
    for name, rows in (("train", case.rows[:N_TRAINED]), ("heldout", case.rows[N_TRAINED:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"tool": case.tool, "lora": case.lora, **case.options}
    (folder / "case.json").write_text(json.dumps(options))


def train(folder, python):
    command = [python, str(TESTS / "trainers" / "train.py"), str(folder)]
    quiet = {"DISABLE_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the training failed: {done.stderr[-3000:]}")


def outcome(folder, case):
    """What came of reading, in words; and whether it is what it must be."""
    given = {key: value.format(folder=folder) for key, value in case.given.items()}
    try:
        n, largest = compare(read(folder, **given), json.loads((folder / "seen.json").read_text()))
    except (AssertionError, ValueError) as error:
        lines = str(error).replace(f"{folder}/", "").splitlines()  # one for each checkpoint
        expected = case.refused is not None and isinstance(error, ValueError)
        return f"stops: {lines[0]}", expected and all(case.refused in line for line in lines)
    told = f"{n} prompts, tokens equal, log-odds within {largest:.1e}"
    return told, case.refused is None and n > 0 and largest <= TOLERANCE


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trl", help="Python that has TRL")
    parser.add_argument("--llamafactory", help="Python that has LLaMA-Factory")
    parser.add_argument("--base", type=Path, help="folder of a model in place of the tiny one")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--keep", type=Path, help="folder to keep the trainings in")
    options = parser.parse_args()
    pythons = {
        "transformers": sys.executable,
        "trl": options.trl,
        "llamafactory": options.llamafactory,
    }
    print(f"read by transformers {version('transformers')}, peft {version('peft')}")
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="sft-trainers-") as temporary:
        for number, (name, case) in enumerate(CASES.items()):
            python = pythons[case.tool]
            if options.only not in name or python is None:
                continue
            folder = (options.keep or Path(temporary)) / f"{number:02d}"
            if not (folder / "seen.json").is_file():
                prepare(folder, case, options.base)
                train(folder, python)
            told, is_right = outcome(folder, case)
            wrong += not is_right
            print(f"{'right' if is_right else 'WRONG'} | {name} | {told}", flush=True)
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
