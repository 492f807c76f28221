import re
import unicodedata

import pytest
from framed_prompts import INSTRUCTION, TEXT, prompt_of
from odd_texts import TEXTS

from sft_interactions.data.words import Word, choose_players, find_words
from sft_interactions.models.prompts import (
    describe_scored_tokens,
    encode,
    locate_players,
    mask_token_id,
)
from sft_interactions.models.templates import make_frame


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


@pytest.mark.parametrize("target", ["a", "fox", "wonderful rain"])
def test_a_response_of_fewer_tokens_is_scored_whole(framed, target):
    whole = prompt_of(framed, target=target, target_tokens="all")
    more = prompt_of(framed, target=target, target_tokens=len(whole.target_token_ids) + 2)
    assert more.target_token_ids == whole.target_token_ids


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
