import copy

import numpy as np
import pytest
import torch
import yaml
from tiny_prompts import OWNERS, ROUNDING, embedding, make_prompt

from sft_interactions.config import SCHEMA_PATH
from sft_interactions.masking.log_odds import MaskedPrompt, masked_log_odds
from sft_interactions.masking.mask_embedding import (
    joint_effect,
    learn_mask_embedding,
    make_mask_embedding,
    random_masks,
)

PLAYERS = [[-1, 0, -1, 1, 1, 2, -1], [0, 1, -1, 2, -1, 3, -1, -1]]


def make_prompts():
    rng = np.random.default_rng(0)
    return [
        MaskedPrompt(rng.integers(6, 300, len(owners)).tolist(), owners, [17]) for owners in PLAYERS
    ]


def test_sets_are_disjoint_and_not_empty():
    generator = torch.Generator().manual_seed(0)
    thirds = set()
    for _ in range(200):
        everything, without_second, without_first, third = random_masks(4, generator).tolist()
        first, second = without_second & ~third, without_first & ~third
        assert first
        assert second
        assert not first & second
        assert everything == first | second | third
        thirds.add(third)
    assert 0 in thirds
    assert len(thirds) > 4


def test_objective_is_that_of_the_log_odds(model):
    prompt = make_prompts()[1]
    mask_embedding = make_mask_embedding(model, "token", 0)
    v = masked_log_odds(model, prompt, mask_embedding).astype(float)
    value = joint_effect(
        model, prompt, mask_embedding, torch.tensor([0b1011, 0b1001, 0b1010, 0b1000])
    )
    expected = abs(v[0b1011] - v[0b1001] - v[0b1010] + v[0b1000])
    assert value.item() == pytest.approx(expected, abs=4 * ROUNDING)


@pytest.mark.slow
def test_learning_lowers_the_objective_on_other_sets(tiny_models):
    model = copy.deepcopy(tiny_models["llama"])
    prompts = make_prompts()
    initial = make_mask_embedding(model, "token", 0)

    def objective(mask_embedding):
        generator = torch.Generator().manual_seed(99)
        with torch.no_grad():
            values = [
                joint_effect(
                    model, prompt, mask_embedding, random_masks(prompt.n, generator)
                ).item()
                for prompt in prompts
                for _ in range(50)
            ]
        return np.mean(values)

    options = {"steps": 60, "learning_rate": 0.1, "batch_size": 4}
    told = []
    learned = learn_mask_embedding(model, prompts, initial, **options, seed=0, progress=told.append)
    assert len(told) == 60
    assert objective(learned) < 0.8 * objective(initial)
    again = learn_mask_embedding(model, prompts, initial, **options, seed=0)
    assert torch.equal(learned, again)
    assert not torch.equal(
        learned, learn_mask_embedding(model, prompts, initial, **{**options, "steps": 5}, seed=1)
    )
    assert not learned.requires_grad


def test_a_learned_vector_is_taken_as_it_is(model):
    vector = [0.5] * model.config.hidden_size
    mask_embedding = make_mask_embedding(model, "learned", vector=vector)
    assert mask_embedding.tolist() == vector


def test_mask_embedding_of_a_token_is_scaled_as_the_model_scales(model):
    torch.testing.assert_close(make_mask_embedding(model, "token", 7), embedding(model, 7))


def test_mask_embedding_mean_and_zero(model):
    mean = embedding(model, slice(None)).mean(0)
    torch.testing.assert_close(make_mask_embedding(model, "mean"), mean)
    assert torch.equal(make_mask_embedding(model, "zero"), torch.zeros_like(mean))


def test_mask_embedding_changes_all_masks_but_the_full_one(model):
    prompt = make_prompt(OWNERS["one player"], [17])
    values = [
        masked_log_odds(model, prompt, make_mask_embedding(model, name, 0))
        for name in ("token", "mean", "zero")
    ]
    for other in values[1:]:
        assert other[-1] == pytest.approx(values[0][-1], abs=ROUNDING)
        assert abs(other[0] - values[0][0]) > 1e-3


def test_every_name_of_the_schema_is_made(tiny_models):
    names = yaml.safe_load(SCHEMA_PATH.read_text())["$defs"]["mask_embedding"]["enum"]
    model = tiny_models["llama"]
    for name in names:
        vector = [0.5] * model.config.hidden_size if name == "learned" else None
        made = make_mask_embedding(model, name, token_id=0, vector=vector)
        assert made.shape == (model.config.hidden_size,)


@pytest.mark.parametrize("name", ["token", "learned", "nonsense"])
def test_an_unknown_mask_embedding_is_refused(tiny_models, name):
    with pytest.raises(ValueError, match=f"mask embedding '{name}' is none of token .with a token"):
        make_mask_embedding(tiny_models["llama"], name)


def test_a_token_without_an_embedding_is_refused(model):
    rows = model.get_input_embeddings().weight.shape[0]
    make_mask_embedding(model, "token", rows - 1)
    with pytest.raises(ValueError, match=rf"has the id {rows}, but .*; set the model's mask_token"):
        make_mask_embedding(model, "token", rows)
