import copy
import json
import re
import unicodedata
from datetime import date

import pytest
import yaml
from odd_texts import TEXTS
from tiny_models import SPECIAL
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sft_interactions.config import SCHEMA_PATH
from sft_interactions.data.words import Word, choose_players, find_words
from sft_interactions.models.prompts import (
    TEMPLATE_DATE,
    describe_scored_tokens,
    encode,
    locate_players,
    make_frame,
    make_prompt,
    mask_token_id,
)

TEXT = "Wonderfulness, café lazy film! The lazy (dog) don't like unquestionably cold rain."
INSTRUCTION = "Positive or negative?\n{prompt}"


@pytest.fixture(params=["chat", "plain"])
def framed(request, chat_tokenizer, plain_tokenizer):
    """A tokenizer with the frame of its template."""
    tokenizer = chat_tokenizer if request.param == "chat" else plain_tokenizer
    return tokenizer, make_frame(tokenizer, request.param, INSTRUCTION)


def prompt_of(framed, *, text=TEXT, words=None, target="positive", **options):
    words = find_words(text) if words is None else words
    return make_prompt(*framed, "sample", text, target, words, **options)


def test_plain_template(plain_tokenizer):
    frame = make_frame(plain_tokenizer, "plain", INSTRUCTION)
    assert frame.render("So sad.") == "<s>Positive or negative?\nSo sad.\nAnswer:"
    assert frame.response("negative") == " negative</s>"


def test_chat_template(chat_tokenizer):
    frame = make_frame(chat_tokenizer, "chat", INSTRUCTION)
    assert frame.render("So sad.") == (
        "<s><|im_start|>user\nPositive or negative?\nSo sad.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert frame.response("negative") == "negative<|im_end|>"


def test_chat_template_is_rendered_as_the_tokenizer_renders_it(chat_tokenizer):
    turn = [{"role": "user", "content": INSTRUCTION.replace("{prompt}", TEXT)}]
    frame = make_frame(chat_tokenizer, "chat", INSTRUCTION)
    expected = chat_tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert frame.render(TEXT) == expected


def test_no_beginning_token_where_the_tokenizer_adds_none(plain_tokenizer):
    class Bare:
        bos_token_id, eos_token, bos_token = 1, None, "<s>"

        def __call__(self, text):
            return {"input_ids": [9]}

    assert make_frame(Bare(), "plain", "{prompt}").render("x") == "x\nAnswer:"
    assert make_frame(Bare(), "plain", "{prompt}").response("y") == " y"


@pytest.mark.parametrize("name", ["<s>", "</s>"])
def test_a_special_token_must_be_itself_where_it_is_written(plain_tokenizer, name):
    description = json.loads(plain_tokenizer.backend_tokenizer.to_str())
    description["added_tokens"] = [t for t in description["added_tokens"] if t["content"] != name]
    tokenizer = copy.deepcopy(plain_tokenizer)
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(description))
    with pytest.raises(ValueError, match=f"does not read its own token '{name}' as one token; add"):
        make_frame(tokenizer, "plain", "{prompt}")


def test_templates_that_cannot_be_used(plain_tokenizer, chat_tokenizer):
    with pytest.raises(ValueError, match="no chat template; set the model's `template: plain`"):
        make_frame(plain_tokenizer, "chat", "{prompt}")
    for template in ("chat", "plain"):
        with pytest.raises(
            ValueError, match=r"^instruction: \{prompt\} is there 2 times; write it"
        ):
            make_frame(chat_tokenizer, template, "{prompt} {prompt}")


def test_rendered_text_and_tokens_agree(framed):
    tokenizer, _ = framed
    prompt = prompt_of(framed)
    assert prompt.token_ids == tokenizer(prompt.rendered, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(prompt.token_ids) == prompt.rendered
    assert prompt.token_ids.count(tokenizer.bos_token_id) == 1
    assert prompt.token_ids[0] == tokenizer.bos_token_id
    assert len(prompt.player_of_token) == len(prompt.token_ids)


def test_players_are_placed_in_the_rendered_text(framed):
    prompt = prompt_of(framed)
    words = find_words(TEXT)
    assert [player.word for player in prompt.players] == [word.text for word in words]
    for player in prompt.players:
        assert prompt.rendered[player.char_start : player.char_end] == player.word
    assert len({(p.char_start, p.char_end) for p in prompt.players}) == len(words)


def test_the_tokens_of_a_player_are_those_of_its_word(framed):
    tokenizer, _ = framed
    prompt = prompt_of(framed)
    for k, player in enumerate(prompt.players):
        places = [i for i, owner in enumerate(prompt.player_of_token) if owner == k]
        assert places == list(range(places[0], places[0] + player.n_tokens))
        decoded = tokenizer.decode([prompt.token_ids[i] for i in places])
        assert decoded.strip() == player.word
    assert max(player.n_tokens for player in prompt.players) > 2
    background = [
        token
        for token, owner in zip(prompt.token_ids, prompt.player_of_token, strict=True)
        if owner == -1
    ]
    for mark in (",", "!", "(", ")", "."):
        assert mark in tokenizer.decode(background)


def test_words_that_are_not_players_are_background(framed):
    words = [word for word in find_words(TEXT) if word.text == "lazy"]
    prompt = prompt_of(framed, words=words)
    assert [player.word for player in prompt.players] == ["lazy", "lazy"]
    assert set(prompt.player_of_token) == {-1, 0, 1}
    first, second = prompt.players
    assert first.char_start < second.char_start


def test_a_character_of_several_tokens_belongs_to_its_word(framed):
    prompt = prompt_of(framed, text="go 東京 now")
    assert prompt.players[1].word == "東京"
    assert prompt.players[1].n_tokens >= 6
    assert prompt.player_of_token.count(-1) + sum(p.n_tokens for p in prompt.players) == len(
        prompt.token_ids
    )


def test_models_share_their_players(chat_tokenizer, plain_tokenizer):
    words = choose_players("sample", TEXT, 5, seed=0, excluded=frozenset())
    prompts = [
        prompt_of((tokenizer, make_frame(tokenizer, template, "{prompt}")), words=words)
        for tokenizer, template in ((chat_tokenizer, "chat"), (plain_tokenizer, "plain"))
    ]
    assert prompts[0].token_ids != prompts[1].token_ids
    players = [[(p.word, p.char_end - p.char_start) for p in prompt.players] for prompt in prompts]
    assert players[0] == players[1]


@pytest.mark.parametrize("count", [1, 2, "all"])
def test_target_tokens(framed, count):
    tokenizer, frame = framed
    prompt = prompt_of(framed, target="wonderful rain", target_tokens=count)
    every = encode(tokenizer, frame, TEXT, "wonderful rain", "s").response_ids
    assert len(every) > 2
    assert prompt.is_whole_response == (count == "all")
    assert prompt.target_token_ids == (every if count == "all" else every[:count])
    assert tokenizer.eos_token_id not in prompt.target_token_ids


def test_scored_tokens_are_the_first_that_training_sees(framed):
    tokenizer, frame = framed
    prompt = prompt_of(framed, target_tokens="all")
    pair = encode(tokenizer, frame, TEXT, "positive", "s")
    both = tokenizer(frame.render(TEXT) + frame.response("positive"), add_special_tokens=False)
    assert pair.prompt_ids + pair.trained_ids == both["input_ids"]
    analysed = prompt.token_ids + prompt.target_token_ids
    assert [*analysed, tokenizer.convert_tokens_to_ids(both.tokens()[-1])] == both["input_ids"]


@pytest.mark.parametrize("target", ["", " ", "\n", "\u00a0"])
def test_an_empty_target_is_refused(framed, target):
    with pytest.raises(ValueError, match=r"^sample sample: the response .* is empty; drop"):
        prompt_of(framed, target=target)


def test_a_token_of_two_players_is_refused():
    words = [Word("New", 0, 3), Word("York", 4, 8)]
    assert locate_players([(0, 3), (3, 8)], words, 0, "s") == [0, 1]
    with pytest.raises(ValueError, match=r"sample s: .*'York'.*filter\.exclude_pattern"):
        locate_players([(0, 2), (2, 8)], words, 0, "s")


def test_a_player_without_a_token_is_refused():
    with pytest.raises(ValueError, match=re.escape("sample s: the tokenizer gives the word 'b'")):
        locate_players([(0, 1)], [Word("a", 0, 1), Word("b", 2, 3)], 0, "s")


def test_players_are_shifted_by_what_precedes_the_text():
    offsets = [(0, 5), (5, 9), (9, 12)]
    assert locate_players(offsets, [Word("film", 0, 4)], 5, "s") == [-1, 0, -1]


class Vocabulary:
    def __init__(self, unk=None, pad=None):
        self.unk_token_id, self.pad_token_id = unk, pad

    def get_vocab(self):
        return {"<extra>": 9}


def test_mask_embedding_token():
    assert mask_token_id(Vocabulary(unk=0, pad=3)) == 0
    assert mask_token_id(Vocabulary(pad=3)) == 3
    assert mask_token_id(Vocabulary(unk=0), "<extra>") == 9
    with pytest.raises(ValueError, match="'<other>' is not in the tokenizer's vocabulary"):
        mask_token_id(Vocabulary(unk=0), "<other>")
    with pytest.raises(ValueError, match="set the model's `mask_token`"):
        mask_token_id(Vocabulary())


def test_mask_embedding_token_of_a_real_tokenizer(plain_tokenizer):
    assert mask_token_id(plain_tokenizer) == plain_tokenizer.unk_token_id
    assert mask_token_id(plain_tokenizer, "<pad>") == plain_tokenizer.pad_token_id


def digit_splitter(form):
    """A tokenizer that gives digits, and the blank before them, tokens of their own, as SmolLM2's does."""
    names = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    if form == "byte-level":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: i for i, token in enumerate([*names, *alphabet, "Ġc", "Ġco"])}
        merges = [("Ġ", "c"), ("Ġc", "o")]
        backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
    else:
        letters = sorted({*"▁\n:[]<|>_", *"Answer0123456789cookingfilmsdQu"})
        vocabulary = {token: i for i, token in enumerate([*names, *letters, "▁c", "▁co"])}
        merges = [("▁", "c"), ("▁c", "o")]
        backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
        backend.normalizer = normalizers.Replace(" ", "▁")
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


@pytest.fixture(params=["byte-level", "sentencepiece"])
def splitter(request):
    return digit_splitter(request.param)


def test_a_blank_alone_is_never_scored(splitter):
    frame = make_frame(splitter, "plain", "{prompt}")
    prompts = {
        target: prompt_of((splitter, frame), text="film", target=target) for target in ("42", "7")
    }
    for target, prompt in prompts.items():
        (blank,) = splitter(" ", add_special_tokens=False)["input_ids"]
        whole = splitter(f"film\nAnswer: {target}</s>", add_special_tokens=False)["input_ids"]
        assert prompt.rendered == "film\nAnswer: "
        assert prompt.token_ids[-1] == blank
        assert prompt.player_of_token[-1] == -1
        assert len(prompt.player_of_token) == len(prompt.token_ids)
        assert splitter.decode(prompt.target_token_ids) == target[0] == prompt.target_text
        # Training reads the same tokens, of which the blank is one.
        pair = encode(splitter, frame, "film", target, "s")
        assert pair.prompt_ids + pair.trained_ids == whole
        assert whole[: len(prompt.token_ids) + 1] == prompt.token_ids + prompt.target_token_ids
    assert prompts["42"].target_token_ids != prompts["7"].target_token_ids
    assert not prompts["42"].is_whole_response
    assert prompts["7"].is_whole_response
    every = prompt_of((splitter, frame), text="film", target="42", target_tokens="all")
    assert (every.target_text, every.is_whole_response) == ("42", True)
    assert len(every.target_token_ids) == 2


def test_what_is_scored_is_said(splitter):
    frame = make_frame(splitter, "plain", "{prompt}")
    targets = ["cooking", "cook", "7"]
    prompts = [prompt_of((splitter, frame), text="film", target=target) for target in targets]
    assert [prompt.target_text for prompt in prompts] == ["co", "co", "7"]
    scored = describe_scored_tokens(prompts, targets)
    assert scored.counts == {"part_of_response": "2", "shared": "2", "wide_players": "0"}
    assert scored.notes == [
        "2 of 3 samples: what is scored is a part of the response, such as 'co' of 'cooking'",
        "2 of 3 samples: what is scored begins several responses, such as 'co' of 'cook' and "
        "'cooking'; set inference.target_tokens to all to tell them apart",
    ]
    assert describe_scored_tokens(prompts[2:], targets[2:]).notes == []
    assert describe_scored_tokens(prompts[:1] * 2, targets[:1] * 2).counts["shared"] == "0"


def test_players_whose_tokens_reach_into_other_words_are_counted(splitter):
    frame = make_frame(splitter, "plain", "{prompt}")
    words = [Word("ok", 3, 5), Word("film", 8, 12)]
    prompt = prompt_of((splitter, frame), text="x cook film", words=[Word("ook", 3, 6)])
    assert prompt.wide_players == [0]
    assert describe_scored_tokens([prompt], ["positive"]).notes[-1] == (
        "1 players have a token that reaches into other words, which are masked with them, such as "
        "'ook' of sample sample"
    )
    assert prompt_of((splitter, frame), text="x c ok film", words=words[:0]).wide_players == []


def dated(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "Today: {{ strftime_now('%d %b %Y') }}\n" + tokenizer.chat_template
    return tokenizer


def test_the_date_of_a_template_is_a_setting(chat_tokenizer):
    tokenizer = dated(chat_tokenizer)
    assert make_frame(tokenizer, "chat", "{prompt}").prefix.startswith("Today: 01 Jan 2025\n")
    frame = make_frame(tokenizer, "chat", "{prompt}", "2024-02-29")
    assert frame.prefix.startswith("Today: 29 Feb 2024\n")
    prompt = prompt_of((tokenizer, frame))
    assert tokenizer.decode(prompt.token_ids).startswith("Today: 29 Feb 2024\n")
    # Without it the template would write the day's.
    turn = [{"role": "user", "content": "x"}]
    today = tokenizer.apply_chat_template(turn, tokenize=False).partition("\n")[0]
    assert today.endswith(str(date.today().year))


def test_the_default_date_is_that_of_the_schema():
    schema = yaml.safe_load(SCHEMA_PATH.read_text())
    models = schema["properties"]["models"]["additionalProperties"]["properties"]
    assert models["template_date"]["default"] == TEMPLATE_DATE


def templated(tokenizer, template):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


TURN = "<|im_start|>{{ m.role }}\n%s<|im_end|>\n"
FOR, END = "{{ bos_token }}{% for m in messages %}", "{% endfor %}"
GENERATION = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHANGED = {
    "trims": (TURN % "{{ m.content | trim }}", " film ", "positive"),
    "strips control characters": (TURN % "{{ m.content.strip() }}", "film\x1f", "positive"),
    "cuts": (TURN % "{{ m.content[:20] }}", "film " * 9, "positive"),
    "replaces": (TURN % "{{ m.content | replace('!', '.') }}", "film!", "positive"),
    "escapes": (TURN % "{{ m.content | e }}", "a < b", "positive"),
    "keeps thinking apart": (
        TURN
        % (
            "{% if '</think>' in m.content %}{{ m.content.split('</think>')[-1].strip() }}"
            "{% else %}{{ m.content }}{% endif %}"
        ),
        "film",
        "<think>\nhm\n</think>\n\npositive",
    ),
    "takes a word for a command": (
        "{% if '/think' in m.content %}<|im_start|>think{% endif %}" + TURN % "{{ m.content }}",
        "film /think",
        "positive",
    ),
}


@pytest.mark.parametrize(("turn", "text", "target"), CHANGED.values(), ids=CHANGED)
def test_a_template_that_changes_its_texts_is_refused(chat_tokenizer, turn, text, target):
    tokenizer = templated(chat_tokenizer, FOR + turn + END + GENERATION)
    frame = make_frame(tokenizer, "chat", "{prompt}")
    encode(tokenizer, frame, "film", "negative", "s")
    with pytest.raises(ValueError, match=r"^sample sample: the chat template writes '.*' where"):
        prompt_of((tokenizer, frame), text=text, target=target)


def test_both_texts_are_shown_where_they_differ(chat_tokenizer):
    turn = CHANGED["replaces"][0]
    tokenizer = templated(chat_tokenizer, FOR + turn + END + GENERATION)
    frame = make_frame(tokenizer, "chat", "{prompt}")
    with pytest.raises(ValueError, match="exclude_pattern") as error:
        encode(tokenizer, frame, "lazy dog! " * 50, "positive", "s")
    message = str(error.value)
    assert "lazy dog. lazy dog" in message
    assert "lazy dog! lazy dog" in message
    assert len(message) < 400


UNUSABLE = {
    "no user text": (
        FOR + TURN % "{{ m.content if m.role != 'user' }}" + END,
        "does not hold the user text exactly once",
    ),
    "lower case": (
        FOR + TURN % "{{ m.content | lower }}" + END,
        "does not hold the response exactly",
    ),
    "the user text twice": (
        FOR + "{{ m.content if m.role == 'user' }}" + TURN % "{{ m.content }}" + END,
        "does not hold the user text exactly once",
    ),
    "no response": (
        FOR + "{% if m.role == 'user' %}" + TURN % "{{ m.content }}" + "{% endif %}" + END,
        "does not hold the response exactly once",
    ),
    "a system message is wanted": (
        "{% if messages[0].role != 'system' %}{{ raise_exception('No system\nmessage!') }}{% endif %}",
        "does not render a user turn and its answer: No system message!; correct it",
    ),
    "wrong syntax": ("{% for %}", "does not render a user turn and its answer: Expected"),
    "lists of parts are wanted": (
        FOR + "{{ m.content[0]['text']['x'] }}" + END,
        "does not render a user turn and its answer",
    ),
}


@pytest.mark.parametrize(("template", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_templates_are_refused_in_one_line(chat_tokenizer, template, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        make_frame(templated(chat_tokenizer, template), "chat", "{prompt}")
    assert "\n" not in str(error.value)


def test_a_template_may_ignore_the_generation_prompt(chat_tokenizer):
    bare = templated(chat_tokenizer, FOR + TURN % "{{ m.content }}" + END)
    with_prompt = make_frame(chat_tokenizer, "chat", INSTRUCTION)
    without = make_frame(bare, "chat", INSTRUCTION)
    assert without.render(TEXT) == with_prompt.render(TEXT)
    pairs = [
        encode(tokenizer, frame, TEXT, "positive", "s")
        for tokenizer, frame in ((chat_tokenizer, with_prompt), (bare, without))
    ]
    assert pairs[0] == pairs[1]


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
    tokenizer = digit_splitter("sentencepiece")
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


@pytest.mark.parametrize(
    "text",
    ["यह फ़िल्म (अच्छी) नहीं थी।", "كِتَابٌ، جَمِيلٌ؟", "இந்தப் படம் நன்று!", "ภาษาไทย(สวยงาม)มาก", "เขาว่า ดีมาก"],
)
def test_no_letter_or_mark_of_a_word_is_left_unmasked(chat_tokenizer, text):
    frame = make_frame(chat_tokenizer, "chat", "{prompt}")
    prompt = prompt_of((chat_tokenizer, frame), text=text)
    encoded = chat_tokenizer(prompt.rendered, add_special_tokens=False, return_offsets_mapping=True)
    start = len(frame.prefix)
    left = "".join(
        prompt.rendered[a:b]
        for (a, b), owner in zip(encoded["offset_mapping"], prompt.player_of_token, strict=True)
        if owner == -1 and start <= a < start + len(text)
    )
    assert {unicodedata.category(character)[0] for character in left} <= {"P", "Z"}
    assert sum(player.n_tokens for player in prompt.players) > len(prompt.players)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_text_is_read_as_it_stands(framed, text):
    tokenizer, frame = framed
    pair = encode(tokenizer, frame, text, "positive", "s")
    assert tokenizer.decode(pair.prompt_ids) == frame.render(text)
    if frame.turns:
        turns = [
            {"role": "user", "content": INSTRUCTION.replace("{prompt}", text)},
            {"role": "assistant", "content": "positive"},
        ]
        own = tokenizer.apply_chat_template(turns, tokenize=False)
        assert tokenizer.decode(pair.prompt_ids + pair.trained_ids) == own.rstrip("\n")
