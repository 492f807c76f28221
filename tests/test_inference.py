import math

import numpy as np
import pytest
import torch

from sft_interactions.inference import (
    MaskedPrompt,
    log_odds,
    masked_log_odds,
    masking_baseline,
    pick_device,
)
from sft_interactions.memory import BatchSize

UNKNOWN = 0
OWNERS = {
    "first token is a player": [0, -1, -1, 1, -1, -1, -1, 2, -1],
    "last token is a player": [-1, -1, 0, -1, -1, -1, 1, -1, 2],
    "neighbouring players": [-1, -1, 0, 1, 2, -1, -1, -1],
    "words of several tokens": [-1, 0, 0, 0, -1, 1, 1, 2, 2, -1],
    "one player": [-1, -1, -1, -1, -1, -1, -1, 0, -1],
    "nothing but players": [0, 1, 1, 2, 3],
    "long tail": [-1, 0, 1, -1, 2] + [-1] * 12,
    "long head": [-1] * 12 + [0, -1, 1, 2],
    "not in reading order": [-1, 2, -1, 0, -1, 1, -1, -1],
}
TARGETS = {"one target token": [17], "three target tokens": [17, 90, 4]}


def make_ids(owners):
    return np.random.default_rng(0).integers(6, 300, len(owners)).tolist()


def embedding(model, token_id):
    scale = math.sqrt(model.config.hidden_size) if "gemma" in model.config.model_type else 1
    return model.model.embed_tokens.weight[token_id] * scale


@torch.no_grad()
def by_hand(model, ids, owners, targets):
    """v(S), one masked prompt at a time, through p in float64."""
    n = max(owners) + 1
    owners = owners + [-1] * (len(targets) - 1)
    values = []
    for mask in range(2**n):
        rows = [
            embedding(model, UNKNOWN if player >= 0 and not mask >> player & 1 else token)
            for token, player in zip(ids + targets[:-1], owners, strict=True)
        ]
        logits = model(inputs_embeds=torch.stack(rows)[None]).logits[0].double()
        p = [
            torch.softmax(logits[len(ids) - 1 + i], -1)[token].item()
            for i, token in enumerate(targets)
        ]
        values.append(sum(math.log(x / (1 - x)) for x in p))
    return np.array(values)


def make_prompt(owners, targets):
    return MaskedPrompt(make_ids(owners), owners, targets)


def batch(tokens):
    return BatchSize(tokens, 2**40)


class Seen:
    """Input embeddings of every forward pass of a model."""

    def __init__(self, model):
        self.inputs = []
        self.handle = model.base_model.register_forward_pre_hook(self.keep, with_kwargs=True)

    def keep(self, model, args, kwargs):
        self.inputs.append(kwargs["inputs_embeds"])

    def __enter__(self):
        return self.inputs

    def __exit__(self, *_):
        self.handle.remove()


def evaluate(model, owners, targets, **options):
    baseline = masking_baseline(model, "token", UNKNOWN)
    return masked_log_odds(model, make_prompt(owners, targets), baseline, **options)


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_prefix_tree_is_the_full_forward(model, owners, targets):
    whole = evaluate(model, owners, targets, method="full_length")
    assert whole.shape == (2 ** (max(owners) + 1),)
    assert whole.dtype == np.float32
    assert np.ptp(whole) > 0.05
    for tokens in (8, 40, 1024):
        tree = evaluate(model, owners, targets, method="prefix_tree", batch=batch(tokens))
        np.testing.assert_allclose(tree, whole, atol=1e-4)


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("case", ["first token is a player", "words of several tokens"])
def test_full_forward_is_the_definition(model, case, targets):
    owners = OWNERS[case]
    expected = by_hand(model, make_ids(owners), owners, targets)
    for tokens in (40, 1024):
        whole = evaluate(model, owners, targets, method="full_length", batch=batch(tokens))
        np.testing.assert_allclose(whole, expected, atol=1e-4)
    np.testing.assert_allclose(evaluate(model, owners, targets), expected, atol=1e-4)


def test_more_players_than_rows_fit(model):
    owners = [-1, 0, 1, -1, 2, 3, 3, 4, 5, -1]
    whole = evaluate(model, owners, [17], method="full_length")
    with Seen(model) as inputs:
        tree = evaluate(model, owners, [17], batch=batch(32))
    np.testing.assert_allclose(tree, whole, atol=1e-4)
    assert max(len(rows) for rows in inputs) == 8
    assert sum(rows.shape[0] * rows.shape[1] for rows in inputs) < 0.5 * 64 * len(owners)


def test_masking_touches_exactly_the_tokens_of_masked_words(model):
    owners = OWNERS["words of several tokens"]
    ids = make_ids(owners)
    with Seen(model) as inputs:
        evaluate(model, owners, [17, 90], method="full_length")
    (rows,) = inputs
    for mask, row in enumerate(rows):
        for place, player in enumerate([*owners, -1]):
            masked = player >= 0 and not mask >> player & 1
            token = UNKNOWN if masked else [*ids, 17][place]
            torch.testing.assert_close(row[place], embedding(model, token))


def test_the_model_is_given_the_same_prompt_length_for_every_mask(model):
    owners = OWNERS["long tail"]
    with Seen(model) as inputs:
        evaluate(model, owners, [17], method="full_length", batch=batch(3 * len(owners)))
    assert {rows.shape[1] for rows in inputs} == {len(owners)}
    assert [len(rows) for rows in inputs] == [3, 3, 2]


def test_log_odds_where_p_is_one_in_float32():
    logits = torch.tensor([[60.0, 0.0, 0.0]])
    assert log_odds(logits, torch.tensor([0])).item() == pytest.approx(60 - math.log(2))


def test_log_odds_where_p_is_zero_in_float32():
    logits = torch.tensor([[-200.0, 0.0, 0.0]])
    assert log_odds(logits, torch.tensor([0])).item() == pytest.approx(-200 - math.log(2))


def test_log_odds_is_the_formula_in_mid_range():
    logits = torch.randn(4, 3, 50, dtype=torch.float64, generator=torch.manual_seed(0))
    tokens = torch.arange(12).reshape(4, 3)
    p = torch.softmax(logits, -1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(log_odds(logits, tokens), torch.log(p / (1 - p)))
    single = log_odds(logits.float(), tokens)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), torch.log(p / (1 - p)), atol=1e-5, rtol=0)
    assert log_odds(logits.bfloat16(), tokens).dtype == torch.float32


def test_baseline_of_a_token_is_scaled_as_the_model_scales(model):
    torch.testing.assert_close(masking_baseline(model, "token", 7), embedding(model, 7))


def test_baseline_mean_and_zero(model):
    mean = embedding(model, slice(None)).mean(0)
    torch.testing.assert_close(masking_baseline(model, "mean"), mean)
    assert torch.equal(masking_baseline(model, "zero"), torch.zeros_like(mean))


def test_baseline_changes_all_masks_but_the_full_one(model):
    owners = OWNERS["one player"]
    values = [
        masked_log_odds(model, make_prompt(owners, [17]), masking_baseline(model, kind, 0))
        for kind in ("token", "mean", "zero")
    ]
    for other in values[1:]:
        assert other[-1] == pytest.approx(values[0][-1], abs=1e-5)
        assert abs(other[0] - values[0][0]) > 1e-3


@pytest.mark.parametrize(
    ("ids", "owners", "targets", "message"),
    [
        ([7, 8], [-1, -1], [9], "numbered 0..n-1"),
        ([7, 8], [0, 2], [9], "numbered 0..n-1"),
        ([7, 8], [-2, 0], [9], "numbered 0..n-1"),
        ([7, 8, 9], [-1, 0], [9], "of one length"),
        ([7, 8], [-1, 0], [], "target"),
        ([], [], [9], "numbered 0..n-1"),
    ],
)
def test_impossible_prompts_are_refused(ids, owners, targets, message):
    with pytest.raises(ValueError, match=message):
        MaskedPrompt(ids, owners, targets)


def test_device():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.backends.mps.is_available():
        with pytest.raises(ValueError, match=r"compute\.device is mps.*set it to auto or cpu"):
            pick_device("mps")
