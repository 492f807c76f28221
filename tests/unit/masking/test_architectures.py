"""Every model class of config/paper.yaml, from its source to its interactions, with random weights.

Tokenizers and chat templates are small ones of the same form as those of the real models.
"""

import json
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from odd_texts import TEXTS
from tiny_models import SENTENCES, build_model, for_images_too
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from sft_interactions.data.players import make_chooser, unsuitable_for
from sft_interactions.data.sources import parse_source
from sft_interactions.data.splits import build_splits
from sft_interactions.data.words import find_words
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.program import extract, reconstruct
from sft_interactions.masking.log_odds import MaskedPrompt, masked_log_odds
from sft_interactions.masking.mask_embedding import make_mask_embedding
from sft_interactions.models.examples import make_example
from sft_interactions.models.finetuning import finetune
from sft_interactions.models.loading import load_checkpoint
from sft_interactions.models.preparing import prepare_model
from sft_interactions.models.prompts import encode, make_prompt, mask_token_id
from sft_interactions.models.templates import make_frame

N = 3
PLAYERS = {"n": N, "choice": "random", "unit": "word", "stop_words": "builtin"}
INSTRUCTION = "Positive or negative?\n{prompt}"
FINETUNE = {
    "checkpoints": [0, 2],
    "steps": 2,
    "batch_size": 1,
    "gradient_accumulation": 2,
    "learning_rate": 0.05,
    "schedule": "cosine",
    "warmup_ratio": 0.1,
    "weight_decay": 0.0,
    "max_length": 256,
    "lora_rank": 2,
    "lora_alpha": 4,
    "lora_dropout": 0.0,
    "lora_target_modules": "all-linear",
}
FIRST_TURN = "{% for m in messages %}{% if m['role'] == 'user' %}"
# Of each family: architecture, special tokens (the first begins a text, the second ends an answer),
# whether words carry their blank as ▁, and the template.
FAMILIES = {
    "qwen2.5": (
        "qwen2",
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "other": ["<|im_start|>"]},
        "<|im_start|>system\nYou are helpful.<|im_end|>\n"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ),
    "llama-2": (
        "llama",
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        FIRST_TURN + "{{ bos_token }}[INST] {{ m.content.strip() }} [/INST]"
        "{% else %} {{ m.content.strip() }} {{ eos_token }}{% endif %}{% endfor %}",
    ),
    "llama-3": (
        "llama",
        {
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
            "other": ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_250|>"],
        },
        "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
        "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content.strip() }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    ),
    "gemma-3": (
        "gemma3",
        {
            "bos_token": "<bos>",
            "eos_token": "<end_of_turn>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "other": ["<start_of_turn>"],
        },
        "{{ bos_token }}{% for m in messages %}<start_of_turn>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content.strip() }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    ),
}
# The whole text for the prompt "So sad." and the response "negative".
RENDERED = {
    "qwen2.5": (
        "<|im_start|>system\nYou are helpful.<|im_end|>\n"
        "<|im_start|>user\nPositive or negative?\nSo sad.<|im_end|>\n<|im_start|>assistant\n",
        "negative<|im_end|>",
    ),
    "llama-2": ("<s>[INST] Positive or negative?\nSo sad. [/INST]", " negative </s>"),
    "llama-3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
        "Positive or negative?\nSo sad.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "negative<|eot_id|>",
    ),
    "gemma-3": (
        "<bos><start_of_turn>user\nPositive or negative?\nSo sad.<end_of_turn>\n"
        "<start_of_turn>model\n",
        "negative<end_of_turn>",
    ),
}


@cache
def build_tokenizer(family):
    _, special, template = FAMILIES[family]
    special = dict(special)
    names = [*special.pop("other", []), *special.values()]
    backend = Tokenizer(models.BPE(unk_token=special.get("unk_token"), byte_fallback=True))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if family in ("llama-2", "gemma-3"):
        # Blanks are ▁; the first has one before every stretch of text, the second has not.
        blanks = [normalizers.Replace(" ", "▁")]
        if family == "llama-2":
            blanks.insert(0, normalizers.Prepend("▁"))
        backend.normalizer = normalizers.Sequence(blanks)
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
        alphabet = sorted({*"▁\n[]/", *"".join(SENTENCES)} - {" "})
        names += [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(names) + len(alphabet) + 120,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in names],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    # One word at a time, so that nothing is learned across words.
    blank = "" if family == "llama-2" else " "
    words = [blank + word for sentence in SENTENCES for word in sentence.split()]
    backend.train_from_iterator([*words, *["positive", "negative"] * 9], trainer)
    if bos := special.get("bos_token"):
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def prepared(family, tmp_path):
    """Folder of the prepared model; that of Gemma-3 comes out of one for images and text."""
    source = tmp_path / "source"
    tokenizer = build_tokenizer(family)
    model = build_model(FAMILIES[family][0], vocab_size=len(tokenizer))
    if family == "gemma-3":
        for_images_too(model).to(torch.bfloat16).save_pretrained(source)
    else:
        model.save_pretrained(source)
    tokenizer.save_pretrained(source)
    prepare_model(parse_source(f"path:{source}"), [], tmp_path / "model", name="tiny")
    return tmp_path / "model"


@pytest.fixture
def splits(tmp_path):
    rows = [
        {"text": f"I think that {subject} was truly {word}, friend!", "label": label}
        for subject in ("film", "morning", "ending", "rain", "dog")
        for word, label in (("wonderful", "positive"), ("sad", "negative"))
    ]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {"source": f"path:{path}", "prompt": "text", "target": "label"}
    sizes = {"train": "all", "validation": 2, "analysis": 2}
    found, skipped = build_splits(
        {**dataset, **sizes}, seed=0, name="lines", unsuitable=unsuitable_for(PLAYERS, 0)
    )
    assert not skipped
    assert len(found["train"]) == len(rows) - 4
    return found


def test_the_template_is_the_familys(family):
    tokenizer = build_tokenizer(family)
    frame = make_frame(tokenizer, "chat", INSTRUCTION)
    assert (frame.render("So sad."), frame.response("negative")) == RENDERED[family]
    pair = encode(tokenizer, frame, "So sad.", "negative", "s")
    prompt_ids, response_ids = pair.prompt_ids, pair.trained_ids
    assert tokenizer.decode(response_ids[-1]) == tokenizer.eos_token
    # The response begins with the token that it would have in the middle of a text.
    start = tokenizer.convert_ids_to_tokens(response_ids[0])
    assert start == {"llama-2": "▁negative"}.get(family, "negative")
    bos = tokenizer.bos_token_id
    assert prompt_ids.count(bos) == (bos is not None)


@pytest.mark.parametrize("template", ["chat", "plain"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_text_has_the_tokens_that_the_tokenizer_gives(family, template, text):
    tokenizer = build_tokenizer(family)
    frame = make_frame(tokenizer, template, INSTRUCTION)
    text = text.strip()  # as templates do, and the reader of data sets
    pair = encode(tokenizer, frame, text, "positive", "s")
    rendered = frame.render(text) + frame.response("positive")
    whole = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert pair.prompt_ids + pair.trained_ids == whole
    prompt = make_prompt(tokenizer, frame, "s", text, "positive", find_words(text))
    assert prompt.target_text
    assert "positive".startswith(prompt.target_text)
    assert whole[: len(prompt.token_ids) + 1] == prompt.token_ids + prompt.target_token_ids


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_names_of_special_tokens_are_text(family, template):
    tokenizer = build_tokenizer(family)
    frame = make_frame(tokenizer, template, INSTRUCTION)
    names = [token for token in tokenizer.get_added_vocab() if not token.startswith("<0x")]
    assert len(names) > 2
    usual = encode(tokenizer, frame, "a film", "positive", "s")
    for name in names:
        pair = encode(tokenizer, frame, f"a {name} film", f"positive {name}.", "s")
        token = tokenizer.convert_tokens_to_ids(name)
        assert pair.prompt_ids.count(token) == usual.prompt_ids.count(token)
        assert pair.trained_ids.count(token) == usual.trained_ids.count(token)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "method"),
    [*((family, "lora") for family in FAMILIES), ("qwen2.5", "full")],
    indirect=["family"],
)
def test_from_data_to_interactions(family, prepared, splits, tmp_path, method):
    tokenizer = AutoTokenizer.from_pretrained(prepared)
    frame = make_frame(tokenizer, "chat", INSTRUCTION)
    pairs = {
        split: [
            encode(tokenizer, frame, text, target, i) for i, text, target, _ in rows.iter_rows()
        ]
        for split, rows in splits.items()
    }
    examples = {
        split: [make_example(pair.prompt_ids, pair.trained_ids, 256) for pair in found]
        for split, found in pairs.items()
    }
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    training = finetune(
        prepared,
        examples["train"],
        examples["validation"],
        {**FINETUNE, "method": method},
        checkpoints,
        pad_id=tokenizer.eos_token_id,
        seed=0,
        device=torch.device("cpu"),
    )
    assert [row["step"] for row in training] == [0, 1, 2]

    choose = make_chooser(PLAYERS, 0)
    token = "<|reserved_special_token_250|>" if family == "llama-3" else None
    prompts = [
        make_prompt(tokenizer, frame, sample, text, target, choose(sample, text, ()))
        for sample, text, target, _ in splits["analysis"].iter_rows()
    ]
    values = {}
    for step in FINETUNE["checkpoints"]:
        model = load_checkpoint(prepared, checkpoints / f"step-{step}", torch.device("cpu"))
        assert type(model) is type(build_model(FAMILIES[family][0]))
        mask_embedding = make_mask_embedding(model, "token", mask_token_id(tokenizer, token))
        masked = [MaskedPrompt(p.token_ids, p.player_of_token, p.target_token_ids) for p in prompts]
        rows = [masked_log_odds(model, prompt, mask_embedding) for prompt in masked]
        for row, prompt in zip(rows, masked, strict=True):
            reference = masked_log_odds(model, prompt, mask_embedding, method="full_length")
            np.testing.assert_allclose(row, reference, atol=2e-4)
        values[step] = np.stack(rows).astype(float)
    original = AutoModelForCausalLM.from_pretrained(prepared, dtype=torch.float32)
    logits = original(torch.tensor([prompts[0].token_ids])).logits[0, -1].detach().double()
    target = prompts[0].target_token_ids[0]
    p = torch.softmax(logits, -1)[target]
    # All words kept and no step done: the model itself on the prompt itself.
    assert values[0][0, -1] == pytest.approx(float(torch.log(p / (1 - p))), abs=1e-3)
    assert np.abs(values[2] - values[0]).max() > 0.01

    solved = extract(values[2])
    interactions, solve = from_extraction([p.sample_id for p in prompts], values[2], solved)
    assert solve["n_players"].to_list() == [N, N]
    assert len(interactions.filter(pl.col("kind") != "bias")) > 0
    for row, v in enumerate(values[2]):
        phi = reconstruct(solved.bias[row], solved.and_effects[row], solved.or_effects[row])
        assert np.abs(phi - v).max() <= solved.noise_bound[row] + 1e-9


@pytest.mark.parametrize("family", ["gemma-3"], indirect=True)
def test_the_language_model_is_taken_out_as_it_is(prepared, tmp_path):
    both = AutoModelForCausalLM.from_pretrained(tmp_path / "source", dtype=torch.float32)
    alone = AutoModelForCausalLM.from_pretrained(prepared, dtype=torch.float32)
    assert isinstance(both, Gemma3ForConditionalGeneration)
    text = both.model.language_model.state_dict()
    assert text.keys() == alone.model.state_dict().keys()
    for name, weight in alone.model.state_dict().items():
        assert torch.equal(weight, text[name]), name
    ids = torch.arange(20)[None]
    torch.testing.assert_close(alone(ids).logits, both(ids).logits, rtol=0, atol=1e-4)
    assert AutoModelForCausalLM.from_pretrained(prepared, dtype="auto").dtype == torch.bfloat16
    assert not any("vision" in name for name, _ in alone.named_parameters())
