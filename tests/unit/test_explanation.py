"""One prompt explained in one call."""

import sys

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
        (["film"], "1 given; name 2 to 16 words"),
        (["film", "rain"], "'rain' is 0 times"),
        (["film", "wonderful,"], "'wonderful,' is 0 times"),
        (["film", "film"], "'film' is named twice"),
    ],
)
def test_unknown_players_are_refused(tiny_models, chat_tokenizer, players, message):
    with pytest.raises(ValueError, match=message):
        si.explain(tiny_models["llama"], chat_tokenizer, TEXT, "positive", players=players)


def test_too_many_players_are_refused_before_the_model_is_asked(chat_tokenizer):
    words = [f"word{chr(97 + number)}" for number in range(17)]
    with pytest.raises(ValueError, match="17 given; name 2 to 16 words"):
        si.explain(None, chat_tokenizer, " ".join(words), "positive", players=words)


def test_a_masked_lm_is_refused(chat_tokenizer):
    sizes = {"vocab_size": 320, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = BertConfig(**sizes, num_attention_heads=2, initializer_range=0.5)
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ValueError, match=r"^model: BertLMHeadModel is not causal here"):
        si.explain(model, chat_tokenizer, TEXT, "positive", players=PLAYERS)


def by_definition(log_odds):
    """Σ_{L⊆T} (−1)^{|T|−|L|} v(L) of every T, term by term."""
    return [
        sum(
            (-1) ** (t.bit_count() - part.bit_count()) * float(log_odds[part])
            for part in range(t + 1)
            if part & t == part
        )
        for t in range(len(log_odds))
    ]


def test_harsanyi_dividends_are_those_of_the_definition(explained):
    dividends = explained.harsanyi_dividends()
    np.testing.assert_allclose(dividends, by_definition(explained.log_odds), atol=1e-9)
    assert dividends[0] == explained.log_odds[0]
    for mask, value in enumerate(explained.log_odds):
        parts = [dividends[part] for part in range(mask + 1) if part & mask == part]
        assert sum(parts) == pytest.approx(float(value), abs=1e-9)


def test_to_shapiq_without_shapiq_is_refused(explained, monkeypatch):
    monkeypatch.setitem(sys.modules, "shapiq", None)
    with pytest.raises(ValueError, match=r"^to_shapiq: shapiq is not installed; run pip install "):
        explained.to_shapiq()


@pytest.mark.slow
def test_to_shapiq_holds_what_shapiq_computes(explained):
    shapiq = pytest.importorskip("shapiq", reason="optional; the test above holds the numbers")
    n = len(explained.words)

    def game(coalitions):
        masks = (np.asarray(coalitions, dtype=int) << np.arange(n)).sum(axis=1)
        return explained.log_odds[masks].astype(np.float64)

    expected = shapiq.ExactComputer(game, n_players=n)("Moebius", n)
    values = explained.to_shapiq()
    assert values.index == "Moebius"
    assert (values.n_players, values.min_order, values.max_order) == (n, 0, n)
    assert not values.estimated
    assert values.dict_values.keys() == expected.dict_values.keys()
    for players, value in expected.dict_values.items():
        assert values.dict_values[players] == pytest.approx(value, abs=1e-9)
    assert values.baseline_value == pytest.approx(float(explained.log_odds[0]))
    for plot in (values.plot_upset, values.plot_stacked_bar, values.plot_si_graph):
        assert plot(feature_names=list(explained.words), show=False) is not None
