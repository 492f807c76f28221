import types
from itertools import product

import numpy as np
import pytest
import torch
import transformers
from tiny_prompts import OWNERS, ROUNDING, TARGETS, Seen, batch, evaluate
from transformers import (
    AttentionInterface,
    GptOssConfig,
    GptOssForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from sft_interactions.masking import prefix_tree
from sft_interactions.masking.prefix_tree import (
    ATTENTION,
    NotBranchableError,
    PrefixTree,
    _attention_implementation,
    _Branch,
)


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_prefix_tree_is_the_full_forward(model, owners, targets):
    whole = evaluate(model, owners, targets, method="full_length")
    assert whole.shape == (2 ** (max(owners) + 1),)
    assert whole.dtype == np.float32
    assert np.ptp(whole) > 0.02
    for tokens in (8, 40, 1024):
        tree = evaluate(model, owners, targets, method="prefix_tree", batch=batch(tokens))
        np.testing.assert_allclose(tree, whole, atol=ROUNDING)


def test_more_players_than_rows_fit(model):
    owners = [-1, 0, 1, -1, 2, 3, 3, 4, 5, -1]
    whole = evaluate(model, owners, [17], method="full_length")
    with Seen(model) as inputs:
        tree = evaluate(model, owners, [17], batch=batch(32))
    np.testing.assert_allclose(tree, whole, atol=ROUNDING)
    assert max(len(rows) for rows in inputs) == 8
    assert sum(rows.shape[0] * rows.shape[1] for rows in inputs) < 0.5 * 64 * len(owners)


@pytest.mark.parametrize("launch", [2.0, 40.0, 1e6])
@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_levels_of_several_players_are_the_full_forward(tiny_models, monkeypatch, owners, launch):
    """As a GPU has them, where launching a forward pass takes as long as many tokens."""
    model = tiny_models["gemma3"]
    whole = evaluate(model, owners, [17, 90], method="full_length")
    monkeypatch.setattr(prefix_tree, "launch_tokens", lambda model: launch)
    for tokens in (8, 40, 1024):
        with Seen(model) as inputs:
            tree = evaluate(model, owners, [17, 90], batch=batch(tokens))
        np.testing.assert_allclose(tree, whole, atol=ROUNDING)
    assert len(inputs) == 1 if launch == 1e6 else len(inputs) > 0


def test_levels_of_several_players_in_many_passes(model, monkeypatch):
    owners = [-1, 0, 1, -1, 2, 3, 3, 4, 5, -1]
    whole = evaluate(model, owners, [17], method="full_length")
    passes = {}
    for launch in (0.0, 5.0, 20.0, 1e6):
        monkeypatch.setattr(prefix_tree, "launch_tokens", lambda model, launch=launch: launch)
        with Seen(model) as inputs:
            tree = evaluate(model, owners, [17], batch=batch(64))
        np.testing.assert_allclose(tree, whole, atol=ROUNDING)
        passes[launch] = len(inputs)
    assert sorted(passes.values(), reverse=True) == list(passes.values())
    assert passes[1e6] < passes[0.0]


def cost(levels, launch, batch_tokens):
    """Token positions of (start, stop, decided) levels, and of the launches of their forward passes."""
    total = 0.0
    for start, stop, decided in levels:
        fitting = 2 ** int(np.log2(max(1, batch_tokens // max(1, stop - start))))
        rows = min(fitting, max(2, batch_tokens // 4), 2**decided)
        total += 2**decided * (stop - start + launch / rows)
    return total


def all_levels(cuts, most):
    """All ways to cut the players into levels, of at most ``most`` children but for the last."""
    n = len(cuts) - 1
    for chosen in product([False, True], repeat=n):
        ends = [*(d for d in range(n) if chosen[d]), n]
        if all(2**step <= most for step in np.diff([0, *ends])[:-1]):
            starts = [0, *(cuts[d] for d in ends)]
            yield [(start, cuts[d], d) for start, d in zip(starts, ends, strict=False)]


@pytest.mark.parametrize("batch_tokens", [16, 64, 1024])
def test_levels_take_the_least_time_of_all_ways_to_cut(batch_tokens):
    rng = np.random.default_rng(0)
    for launch in (1.0, 10.0, 60.0, 300.0):
        cuts = [*np.sort(rng.choice(30, 6, replace=False)).tolist(), 34]
        found = prefix_tree.segments(cuts, batch_tokens, launch)
        options = list(all_levels(cuts, max(2, batch_tokens // 4)))
        assert found in options
        least = min(cost(levels, launch, batch_tokens) for levels in options)
        assert cost(found, launch, batch_tokens) == pytest.approx(least)


def test_a_level_for_each_player_where_launching_costs_nothing(tiny_models):
    assert prefix_tree.launch_tokens(tiny_models["llama"]) == 0
    levels = prefix_tree.segments([2, 3, 7], 64, 0.0)
    assert levels == [(0, 2, 0), (2, 3, 1), (3, 7, 2)]


def test_the_model_is_left_as_it_was(model):
    before = evaluate(model, OWNERS["long head"], [17], method="full_length")
    evaluate(model, OWNERS["long head"], [17])
    again = evaluate(model, OWNERS["long head"], [17], method="full_length")
    np.testing.assert_allclose(before, again, atol=ROUNDING)


def test_the_private_attribute_of_transformers_is_as_it_was(tiny_models):
    config = tiny_models["llama"].config
    which = f"transformers {transformers.__version__}: config._attn_implementation"
    usual = getattr(config, "_attn_implementation", None)
    assert isinstance(usual, str), f"{which} is gone; see _attention_implementation"
    with _attention_implementation(tiny_models["llama"], ATTENTION):
        assert config._attn_implementation == ATTENTION, f"{which} is not what was set"
    assert config._attn_implementation == usual, f"{which} is not what was set back"


def test_a_model_without_states_to_share_is_no_tree():
    config = MambaConfig(vocab_size=320, hidden_size=32, num_hidden_layers=2, state_size=4)
    torch.manual_seed(0)
    mamba = MambaForCausalLM(config).eval()
    owners = OWNERS["long tail"]
    with pytest.raises(NotBranchableError, match="MambaForCausalLM cannot be evaluated as a pre"):
        evaluate(mamba, owners, [17])
    assert evaluate(mamba, owners, [17], method="full_length").shape == (8,)


def attend(model, attention_mask=None, **arguments):
    """Call the tree's attention as a layer of a model does, for its first segment of two tokens."""
    tree = PrefixTree(model, None, [2], 4, 1, 64, None)
    states = torch.ones(1, 1, 2, 4)
    layer = types.SimpleNamespace(layer_idx=0)
    branch = _Branch(tree, 0, 0, 1)
    tree.levels[0].open(0, 1)
    attention = AttentionInterface()[ATTENTION]
    return attention(layer, states, states, states, attention_mask, prefix_tree=branch, **arguments)


def test_arguments_of_attention_that_ask_for_nothing(tiny_models):
    plain, _ = attend(tiny_models["llama"])
    assert plain.shape == (1, 2, 1, 4)
    asked, _ = attend(
        tiny_models["llama"],
        dropout=0.0,
        is_causal=True,
        output_attentions=False,
        output_router_logits=False,
        position_bias=None,
        position_ids=torch.arange(2)[None],
        use_cache=False,
    )
    torch.testing.assert_close(asked, plain)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"dropout": 0.1}, r"dropout=0\.1"),
        ({"is_causal": False}, "is_causal=False"),
        ({"s_aux": torch.ones(1)}, r"s_aux \(Tensor\)"),
        ({"attention_mask": torch.ones(1)}, r"attention_mask \(Tensor\)"),
        ({"use_cache": torch.ones(2)}, r"use_cache \(Tensor\)"),
        ({"chunk_size": 0}, "chunk_size=0"),
    ],
)
def test_what_attention_does_not_know_is_refused(tiny_models, arguments, shown):
    message = (
        f"LlamaForCausalLM cannot be evaluated as a prefix tree: its attention is given {shown}"
    )
    with pytest.raises(NotBranchableError, match=message):
        attend(tiny_models["llama"], **arguments)


def test_attention_that_is_not_given_the_tree_is_refused(tiny_models):
    module = tiny_models["llama"].model.layers[0].self_attn
    with pytest.raises(NotBranchableError, match=r"LlamaAttention .* does not hand the tree on"):
        AttentionInterface()[ATTENTION](module, None, None, None, None)


def test_attention_sinks_are_refused():
    """A model of transformers whose layers give attention more than queries, keys and values."""
    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=32,
        head_dim=8,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
        num_experts_per_tok=1,
    )
    model = GptOssForCausalLM(config).eval()
    with pytest.raises(NotBranchableError, match=r"GptOssForCausalLM .* is given s_aux"):
        evaluate(model, OWNERS["long tail"], [17])
