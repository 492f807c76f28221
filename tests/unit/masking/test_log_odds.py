import copy
import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_prompts import (
    OWNERS,
    ROUNDING,
    TARGETS,
    UNKNOWN,
    Seen,
    batch,
    embedding,
    evaluate,
    make_ids,
    make_prompt,
)

from sft_interactions.masking.log_odds import MaskedPrompt, log_odds, masked_log_odds


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


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("case", ["first token is a player", "words of several tokens"])
def test_full_forward_is_the_definition(model, case, targets):
    owners = OWNERS[case]
    expected = by_hand(model, make_ids(owners), owners, targets)
    for tokens in (40, 1024):
        whole = evaluate(model, owners, targets, method="full_length", batch=batch(tokens))
        np.testing.assert_allclose(whole, expected, atol=ROUNDING)
    np.testing.assert_allclose(evaluate(model, owners, targets), expected, atol=ROUNDING)


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


def test_a_batch_smaller_than_a_prompt_has_one_masked_prompt(tiny_models):
    owners = OWNERS["long tail"]
    with Seen(tiny_models["llama"]) as inputs:
        evaluate(tiny_models["llama"], owners, [17], method="full_length", batch=batch(1))
    assert [len(rows) for rows in inputs] == [1] * 8


def test_a_model_may_give_the_logits_of_all_positions(tiny_models):
    model, owners, targets = tiny_models["llama"], OWNERS["long tail"], [17, 90, 4]
    expected = evaluate(model, owners, targets, method="full_length")

    def ask_for_all(model, args, kwargs):
        return args, {**kwargs, "logits_to_keep": 0}

    handle = model.register_forward_pre_hook(ask_for_all, with_kwargs=True)
    found = evaluate(model, owners, targets, method="full_length")
    handle.remove()
    np.testing.assert_allclose(found, expected, atol=ROUNDING)


def test_the_last_scored_token_is_not_read():
    assert MaskedPrompt([7, 8, 9], [-1, 0, 1], [5]).n_tokens == 3
    assert MaskedPrompt([7, 8, 9], [-1, 0, 1], [5, 6]).n_tokens == 4


def test_some_maskings_only(model):
    owners = OWNERS["words of several tokens"]
    whole = evaluate(model, owners, [17], method="full_length")
    some = evaluate(model, owners, [17], method="full_length", masks=[6, 0, 5])
    np.testing.assert_allclose(some, whole[[6, 0, 5]], atol=ROUNDING)


def test_impossible_methods_are_refused(tiny_models):
    owners = OWNERS["one player"]
    with pytest.raises(ValueError, match="prefix_tree takes no masks"):
        evaluate(tiny_models["llama"], owners, [17], masks=[1])
    with pytest.raises(ValueError, match="'tree' is neither prefix_tree nor full_length"):
        evaluate(tiny_models["llama"], owners, [17], method="tree")


@pytest.mark.parametrize("merged", [True, False], ids=["merged", "loaded"])
def test_adapters(model, merged):
    torch.manual_seed(1)
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(copy.deepcopy(model), lora, autocast_adapter_dtype=False).eval()
    adapted = adapted.merge_and_unload() if merged else adapted
    owners, targets = OWNERS["long tail"], TARGETS["three target tokens"]
    whole = evaluate(adapted, owners, targets, method="full_length")
    tree = evaluate(adapted, owners, targets)
    np.testing.assert_allclose(tree, whole, atol=ROUNDING)
    assert np.abs(whole - evaluate(model, owners, targets)).max() > 0.05


@pytest.fixture
def with_adapter(tiny_models):
    """A model with an adapter that has dropout, as after a training."""
    settings = LoraConfig(r=2, lora_dropout=0.5, target_modules=["q_proj"], init_lora_weights=False)
    return get_peft_model(copy.deepcopy(tiny_models["llama"]), settings).train()


@pytest.mark.parametrize("method", ["prefix_tree", "full_length"])
def test_dropout_at_work_is_refused(with_adapter, method):
    owners = OWNERS["neighbouring players"]
    mask_embedding = torch.zeros(with_adapter.config.hidden_size)
    prompt = make_prompt(owners, [17])
    with pytest.raises(
        ValueError, match=r"in training mode, and has dropout \(.+\); call model\.eval"
    ):
        masked_log_odds(with_adapter, prompt, mask_embedding, method=method)
    with_adapter.eval()
    first, again = (
        masked_log_odds(with_adapter, prompt, mask_embedding, method=method) for _ in range(2)
    )
    assert np.array_equal(first, again)
    for module in with_adapter.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with_adapter.train()
    assert np.array_equal(
        masked_log_odds(with_adapter, prompt, mask_embedding, method=method), first
    )


def test_dropout_that_is_a_number_is_refused(tiny_models):
    model = copy.deepcopy(tiny_models["llama"])
    model.model.layers[1].self_attn.attention_dropout = 0.1
    assert evaluate(model, OWNERS["neighbouring players"], [17]).shape == (8,)
    with pytest.raises(ValueError, match=r"has dropout \(model\.layers\.1\.self_attn\); call"):
        evaluate(model.train(), OWNERS["neighbouring players"], [17])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda vector: vector[0], r"the shape \(\); give \(\d+,\)"),
        (lambda vector: vector[:1], r"the shape \(1,\); give \(\d+,\)"),
        (lambda vector: vector.expand(8, -1), r"the shape \(8, \d+\); give"),
    ],
)
def test_a_mask_embedding_that_is_none_is_refused(tiny_models, change, message):
    model = tiny_models["llama"]
    vector = change(torch.ones(model.config.hidden_size))
    with pytest.raises(ValueError, match=f"^mask_embedding has {message}"):
        masked_log_odds(model, make_prompt(OWNERS["neighbouring players"], [17]), vector)


@pytest.mark.parametrize("mask", [-1, 8])
def test_a_mask_of_other_players_is_refused(tiny_models, mask):
    with pytest.raises(
        ValueError, match=f"^masks has {mask}, and the prompt 3 players; give 0 to 7"
    ):
        evaluate(
            tiny_models["llama"],
            OWNERS["neighbouring players"],
            [17],
            method="full_length",
            masks=[7, mask],
        )
