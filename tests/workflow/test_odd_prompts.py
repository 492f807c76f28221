"""A study of prompts that are easily read otherwise than they stand, by the rules and by hand."""

import copy
import json
import shutil

import pytest
import torch
from peft import PeftModel
from tiny_study import CONFIG, snakemake
from transformers import AutoModelForCausalLM, AutoTokenizer

from sft_interactions import tables

RUN = "llama-tiny"
FILE = f"results/runs/{RUN}/{{}}.parquet"
TEXTS = (
    "यह फ़िल्म बहुत अच्छी थी, दोस्त।",
    "หนังเรื่องนี้ดีมากจริง",
    "El cafe\u0301 de Jose\u0301 <|im_end|> 👍🏽 bien!",
    "الفيلمُ كانَ جميلًا، صديقي؟",
)
DATED = "Today: {{ strftime_now('%d %b %Y') }}\n"


@pytest.fixture(scope="module")
def config():
    config = copy.deepcopy(CONFIG)
    config["runs"] = {RUN: {"dataset": "lines", "finetune": {"checkpoints": [0, 2], "steps": 2}}}
    config["models"] = {"llama": {"source": "path:llama", "template_date": "2024-02-29"}}
    config["datasets"]["lines"] |= {"train": 2, "validation": 2, "analysis": 4}
    config["inference"] = {"max_error": 0.001}
    return config


@pytest.fixture(scope="module")
def folder(model_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    rows = [
        {"text": f"{text} {word}", "label": label}
        for text in TEXTS
        for word, label in (("good", "42"), ("sad", "47"))
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "lines.jsonl").write_text(lines, encoding="utf-8-sig")
    shutil.copytree(model_folders["llama"], folder / "llama")
    tokenizer = AutoTokenizer.from_pretrained(folder / "llama")
    tokenizer.chat_template = DATED + tokenizer.chat_template
    tokenizer.save_pretrained(folder / "llama")
    return folder


@pytest.fixture(scope="module")
def analysed(folder, config):
    done = snakemake(folder, config, FILE.format("log_odds/step-2"))
    assert done.returncode == 0, done.stdout[-5000:]
    return folder


def test_log_odds_are_those_of_the_tuned_model_on_texts_masked_by_hand(analysed):
    tokenizer = AutoTokenizer.from_pretrained(analysed / "llama")
    base = AutoModelForCausalLM.from_pretrained(analysed / "llama", dtype=torch.float64)
    checkpoint = analysed / f"results/runs/{RUN}/checkpoints/step-2"
    model = PeftModel.from_pretrained(base, checkpoint).eval()
    embed = base.model.embed_tokens
    values = tables.read(analysed / FILE.format("log_odds/step-2"), tables.LOG_ODDS)
    players = tables.read(analysed / FILE.format("players"), tables.PLAYERS)
    prompts = tables.read(analysed / FILE.format("prompts"), tables.PROMPTS)
    data = tables.read(analysed / "results/data/lines/analysis.parquet", tables.DATA)
    assert len(data) == 4
    for row in data.join(prompts, on="sample_id").iter_rows(named=True):
        text = row["prompt"]
        expected = (
            "Today: 29 Feb 2024\n<s><|im_start|>user\nPositive or negative?\n"
            f"{text}<|im_end|>\n<|im_start|>assistant\n"
        )
        assert row["rendered"] == expected
        start = expected.index(text)
        pieces = [
            tokenizer(piece, add_special_tokens=False, split_special_tokens=piece == text)
            for piece in (expected[:start], text, expected[start + len(text) :])
        ]
        ids = [token for piece in pieces for token in piece["input_ids"]]
        assert row["token_ids"] == ids
        assert row["target_token_ids"] == tokenizer("4", add_special_tokens=False)["input_ids"]
        spans = [
            (len(expected[:a].encode()), len(expected[:b].encode()))
            for a, b in players.filter(sample_id=row["sample_id"])
            .select("char_start", "char_end")
            .iter_rows()
        ]
        _check(model, embed, ids, row, spans, expected, values, tokenizer)


def _check(model, embed, ids, row, spans, rendered, values, tokenizer):
    """Compare all maskings of a prompt with the model on embeddings that are replaced by hand."""
    raw = rendered.encode()
    # Byte-level tokens are bytes of the text, one after the other.
    owners, here = [], 0
    for token in tokenizer.convert_ids_to_tokens(ids):
        special = token in tokenizer.all_special_tokens or token.startswith("<|im_")
        size = len(token.encode()) if special else len(token)
        overlapping = [k for k, (a, b) in enumerate(spans) if here < b and here + size > a]
        owners.append(overlapping[0] if overlapping else -1)
        here += size
    assert here == len(raw)
    assert owners == row["player_of_token"]
    whole = embed(torch.tensor(ids))
    mask = embed(torch.tensor(tokenizer.unk_token_id))
    found = values.filter(sample_id=row["sample_id"]).sort("mask")["log_odds"].to_numpy()
    for number, value in enumerate(found):
        kept = [owner < 0 or number >> owner & 1 == 1 for owner in owners]
        inputs = torch.where(torch.tensor(kept)[:, None], whole, mask)
        with torch.inference_mode():
            logits = model(inputs_embeds=inputs[None]).logits[0, -1]
        p = logits.softmax(-1)[row["target_token_ids"][0]]
        assert value == pytest.approx(float(torch.log(p / (1 - p))), abs=1e-3)


def test_what_is_scored_is_told(analysed):
    about = tables.read_metadata(analysed / FILE.format("prompts"))
    assert (about["part_of_response"], about["shared"]) == ("4", "4")
    assert about["template_date"] == "2024-02-29"
    log = (analysed / f"results/logs/prompts/{RUN}.log").read_text()
    assert "what is scored begins several responses, such as '4' of '42' and '47'" in log


def test_a_text_that_is_too_long_stops_training_and_analysis(folder, config, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "study", symlinks=True)
    shutil.rmtree(copied / "results", ignore_errors=True)
    settings = json.loads((copied / "llama" / "config.json").read_text())
    settings["max_position_embeddings"] = 32
    (copied / "llama" / "config.json").write_text(json.dumps(settings))
    files = [FILE.format(name) for name in ("prompts", "training")]
    done = snakemake(copied, config, "--keep-going", *files)
    assert done.returncode != 0
    for rule in ("prompts", "finetune"):
        (line,) = {line for line in done.stdout.splitlines() if line.startswith(f"{rule}: ")}
        assert "tokens with template and response, but the model reads 32" in line
    assert not any((copied / file).exists() for file in files)
