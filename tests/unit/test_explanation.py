"""One prompt explained in one call."""

import numpy as np
import polars as pl
import pytest
from transformers import AutoModelForCausalLM, BertConfig

import sft_interactions as si
from sft_interactions.extraction.program import reconstruct
from sft_interactions.masking.log_odds import MaskedPrompt, masked_log_odds
from sft_interactions.masking.mask_embedding import make_mask_embedding

TEXT = "I think that the film was truly wonderful, friend!"
PLAYERS = ["film", "truly", "wonderful", "friend"]


@pytest.fixture(scope="module")
def explained(tiny_models, chat_tokenizer):
    return si.explain(tiny_models["llama"], chat_tokenizer, TEXT, "positive", players=PLAYERS)


def dense(explained):
    effects = {kind: np.zeros(2 ** len(explained.words)) for kind in ("and", "or")}
    for row in explained.interactions.iter_rows(named=True):
        effects[row["kind"]][row["pattern"]] = row["effect"]
    return effects


def test_interactions_give_the_log_odds_within_the_noise_bound(explained):
    effects = dense(explained)
    phi = reconstruct(explained.bias, effects["and"], effects["or"])
    assert explained.log_odds.shape == (16,)
    largest = np.abs(phi - explained.log_odds).max()
    assert largest <= explained.noise_bound * (1 + 1e-9) + 1e-12
    assert explained.gap < 1e-6


def test_log_odds_are_those_of_whole_masked_prompts(explained, tiny_models, chat_tokenizer):
    model = tiny_models["llama"]
    rendered = f"<s><|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n"
    encoded = chat_tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    spans = [(rendered.index(word), rendered.index(word) + len(word)) for word in PLAYERS]
    owners = [
        next((k for k, (start, end) in enumerate(spans) if a < end and b > start), -1)
        for a, b in encoded["offset_mapping"]
    ]
    target = chat_tokenizer("positive", add_special_tokens=False)["input_ids"][:1]
    prompt = MaskedPrompt(encoded["input_ids"], owners, target)
    embedding = make_mask_embedding(model, "token", chat_tokenizer.unk_token_id)
    expected = masked_log_odds(model, prompt, embedding, method="full_length")
    np.testing.assert_allclose(explained.log_odds, expected, atol=1e-4)


def test_words_are_named_as_they_stand(explained):
    assert list(explained.words) == PLAYERS
    for row in explained.interactions.iter_rows(named=True):
        assert row["words"] == [w for k, w in enumerate(PLAYERS) if row["pattern"] >> k & 1]
        assert row["order"] == len(row["words"])
    sizes = explained.interactions["effect"].abs()
    assert sizes.is_sorted(descending=True)


def test_plot_has_a_bar_for_each_of_the_strongest(explained):
    figure = explained.plot(3)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(
        explained.interactions["effect"].head(3).to_list()
    )
    assert explained.target.strip() in axes.get_title()


def test_words_are_drawn_where_none_are_named(tiny_models, chat_tokenizer):
    explained = si.explain(tiny_models["llama"], chat_tokenizer, TEXT, "positive", n_players=3)
    assert len(explained.words) == 3
    assert all(word in TEXT for word in explained.words)


def test_a_dollar_in_the_text_is_not_mathematics(explained):
    from sft_interactions.figures import effects

    rows = pl.DataFrame({"kind": ["and"], "words": [["$x_", "y^$"]], "effect": [1.0]})
    figure = effects.draw(rows, target="$")
    figure.draw_without_rendering()
    assert figure.axes[0].get_yticklabels()[0].get_text() == "AND: $x_, y^$"


@pytest.mark.parametrize(
    ("players", "message"),
    [
        (["film"], "1 given; name at least two"),
        (["film", "rain"], "'rain' is 0 times"),
        (["film", "wonderful,"], "'wonderful,' is 0 times"),
    ],
)
def test_unknown_players_are_refused(tiny_models, chat_tokenizer, players, message):
    with pytest.raises(ValueError, match=message):
        si.explain(tiny_models["llama"], chat_tokenizer, TEXT, "positive", players=players)


def test_a_masked_lm_is_refused(chat_tokenizer):
    sizes = {"vocab_size": 320, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = BertConfig(**sizes, num_attention_heads=2, initializer_range=0.5)
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ValueError, match=r"^model: BertLMHeadModel is not causal here"):
        si.explain(model, chat_tokenizer, TEXT, "positive", players=PLAYERS)
