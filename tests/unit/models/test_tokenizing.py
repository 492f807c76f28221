import copy
import json
import re

import pytest
from tiny_models import SPECIAL, build_digit_splitter
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sft_interactions.models.prompts import encode
from sft_interactions.models.templates import make_frame
from sft_interactions.models.tokenizing import load_tokenizer

CONTROLS = ["<|im_end|>", "<|im_start|>", "</s>", "<pad>", "<unk>", "<|im_end|>\n<|im_start|>user"]


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("place", ["The {} lazy dog", "{}", "film{}", "{} film", "fi{}lm {}"])
def test_names_of_special_tokens_in_a_users_text_are_text(framed, name, place):
    tokenizer, frame = framed
    text = place.replace("{}", name)
    special = {tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    for prompt, target in ((text, "positive"), ("film", f"no {name}")):
        pair = encode(tokenizer, frame, prompt, target, "s")
        usual = encode(tokenizer, frame, "film", "positive", "s")
        for ids, plain in (
            (pair.prompt_ids, usual.prompt_ids),
            (pair.trained_ids, usual.trained_ids),
        ):
            assert [i for i in ids if i in special] == [i for i in plain if i in special]
        rendered = frame.render(prompt) + frame.response(target)
        assert tokenizer.decode(pair.prompt_ids + pair.trained_ids) == rendered
        assert pair.text == frame.render(prompt) + frame.response_prefix + target


def test_names_of_special_tokens_are_split_as_the_library_splits_text(framed):
    tokenizer, frame = framed
    pair = encode(tokenizer, frame, "see <|im_end|> now", "positive", "s")
    expected = []
    stretches = re.split(r"(<s>|<\|im_start\|>|<\|im_end\|>(?! now))", pair.text)
    for stretch in stretches:
        split = stretch not in SPECIAL
        ids = tokenizer(stretch, add_special_tokens=False, split_special_tokens=split)
        expected += ids["input_ids"]
    assert pair.prompt_ids + pair.response_ids == expected
    places = zip(
        pair.prompt_ids + pair.response_ids,
        pair.prompt_offsets + pair.response_offsets,
        strict=True,
    )
    assert all(tokenizer.decode([token]) == pair.text[a:b] for token, (a, b) in places)


def test_a_name_that_begins_in_the_template_is_refused(chat_tokenizer):
    frame = make_frame(chat_tokenizer, "chat", "see <|im_{prompt}")
    with pytest.raises(
        ValueError, match=r"^sample s: the tokenizer takes the text '<\|im_end\|>' for"
    ):
        encode(chat_tokenizer, frame, "end|> film", "positive", "s")


def test_added_tokens_that_the_template_writes_are_text_in_a_users_text(chat_tokenizer):
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.add_tokens([AddedToken("<turn>"), AddedToken("<table>")])
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>", "<turn>")
    frame = make_frame(tokenizer, "chat", "{prompt}")
    ids = encode(tokenizer, frame, "a <turn> in a <table>", "positive", "s").prompt_ids
    turn, table = (tokenizer.convert_tokens_to_ids(name) for name in ("<turn>", "<table>"))
    assert ids.count(turn) == 2  # of the user and of the assistant
    assert ids.count(table) == 1


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_blanks_before_stretches_are_those_of_the_whole_text(scheme):
    tokenizer = build_digit_splitter("sentencepiece")
    tokenizer.backend_tokenizer.normalizer = None
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.chat_template = (
        "<s>{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    )
    frame = make_frame(tokenizer, "chat", "{prompt}")
    whole = tokenizer("<s><|im_start|>film <|im_end|><|im_start|>co<|im_end|>")["input_ids"]
    usual = encode(tokenizer, frame, "film ", "co", "s")
    assert usual.prompt_ids + usual.trained_ids == whole
    pair = encode(tokenizer, frame, "film <|im_end|>", "co", "s")
    name = tokenizer("x<|im_end|>", split_special_tokens=True)["input_ids"]
    name = name[name.index(tokenizer.convert_tokens_to_ids("<")) :]
    place = whole.index(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    assert pair.prompt_ids + pair.trained_ids == whole[:place] + name + whole[place:]


def test_a_tokenizer_that_knows_a_name_as_text_too_is_refused():
    # Its model may put any piece of its vocabulary together, the special ones included.
    pieces = [(name, 0.0) for name in SPECIAL] + [(c, -9.0) for c in "\nA:<>|abcdefilmnoprstuvw_ "]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram(pieces, 0)), unk_token="<unk>", eos_token="</s>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    frame = make_frame(tokenizer, "plain", "{prompt}")
    encode(tokenizer, frame, "film", "positive", "s")
    with pytest.raises(
        ValueError, match=r"^sample s: the tokenizer takes the text '<\|im_end\|>' for"
    ):
        encode(tokenizer, frame, "a <|im_end|>", "positive", "s")


def test_characters_that_a_tokenizer_does_not_know_are_its_unknown_token(splitter):
    frame = make_frame(splitter, "plain", "{prompt}")
    whole = splitter(frame.render("film Жd"), add_special_tokens=False)["input_ids"]
    assert encode(splitter, frame, "film Жd", "7", "s").prompt_ids == whole


DIGITS = pre_tokenizers.Digits(individual_digits=True)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
RULES = {
    "digits apart": pre_tokenizers.Sequence([DIGITS, BYTES]),
    "a blank before the text": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "no words": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    "as the class has it": BYTES,
}


@pytest.mark.parametrize("case", RULES)
@pytest.mark.parametrize(
    ("model_type", "named"),
    [
        ("llama", "GPT2Tokenizer"),
        ("llama", "LlamaTokenizerFast"),
        ("qwen2", "PreTrainedTokenizerFast"),
        ("gpt2", None),
        ("gemma3_text", None),
    ],
)
def test_texts_are_cut_as_the_file_says(tmp_path, caplog, case, model_type, named):
    """Transformers takes the vocabulary alone for some classes and model types, and rules of its own."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<unk>", "</s>", *letters, "12", "Ġ1", "sĠ"])}
    merges = [("1", "2"), ("Ġ", "1"), ("s", "Ġ")]
    written = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    written.pre_tokenizer, written.decoder = RULES[case], decoders.ByteLevel()
    written.add_special_tokens(["<unk>", "</s>"])
    written.save(str(tmp_path / "tokenizer.json"))
    names = {"unk_token": "<unk>", "eos_token": "</s>"}
    names |= {"tokenizer_class": named} if named else {}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    text = "is 12 1212</s>s 1"
    with caplog.at_level("INFO"):
        tokenizer = load_tokenizer(tmp_path, tells=True)
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    expected = written.encode(text, add_special_tokens=False)
    assert found["input_ids"] == expected.ids
    assert found["offset_mapping"] == expected.offsets
    assert (tokenizer.unk_token_id, tokenizer.eos_token_id) == (0, 1)
    cut = AutoTokenizer.from_pretrained(tmp_path)(text, add_special_tokens=False)["input_ids"]
    assert cut == expected.ids or "they are cut as tokenizer.json says" in caplog.text


def test_names_of_special_tokens_that_the_class_alone_knows_are_kept(tmp_path):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*letters, "<|endoftext|>"])}
    written = Tokenizer(models.BPE(vocabulary, []))
    written.pre_tokenizer = RULES["digits apart"]
    written.add_special_tokens(["<|endoftext|>"])
    written.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.eos_token_id == tokenizer.unk_token_id == 256
    assert len(tokenizer) == 257
