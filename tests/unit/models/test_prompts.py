import re

import pytest

from sft_interactions.data.words import Word, choose_players, find_words
from sft_interactions.models.prompts import (
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


def test_templates_that_cannot_be_used(plain_tokenizer, chat_tokenizer):
    with pytest.raises(ValueError, match="no chat template; set the model's `template: plain`"):
        make_frame(plain_tokenizer, "chat", "{prompt}")
    for template in ("chat", "plain"):
        with pytest.raises(ValueError, match="exactly once"):
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
    _, every = encode(tokenizer, prompt.rendered, frame.response_prefix + "wonderful rain")
    assert len(every) > 2
    assert prompt.target_token_ids == (every if count == "all" else every[:count])
    assert tokenizer.eos_token_id not in prompt.target_token_ids


def test_scored_tokens_are_the_first_that_training_sees(framed):
    tokenizer, frame = framed
    prompt = prompt_of(framed, target_tokens="all")
    _, trained = encode(tokenizer, prompt.rendered, frame.response("positive"))
    assert trained[: len(prompt.target_token_ids)] == prompt.target_token_ids
    assert len(trained) == len(prompt.target_token_ids) + 1


def test_an_empty_target_is_refused(framed):
    tokenizer, _ = framed
    chat_frame = make_frame(tokenizer, "plain", "{prompt}")
    empty = type(chat_frame)(chat_frame.prefix, chat_frame.suffix, "", "")
    with pytest.raises(ValueError, match="sample sample: the target '' has no token"):
        prompt_of((tokenizer, empty), target="")


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
