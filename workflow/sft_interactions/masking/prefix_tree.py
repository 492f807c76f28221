"""All maskings of a prompt as a prefix tree: what maskings share is forwarded once.

The prompt is cut at the first token of each player. A level of the tree decides whether the next player,
or the next few, are kept: a node is a masking of the players so far and holds the tokens up to the next
cut; its children are the maskings of the next level's players. A node's keys and values are stored once
and read by all its descendants, in attention, through transformers' ``AttentionInterface``; nothing is
copied when states branch.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

ATTENTION = "prefix_tree"  # our attention function's name among those of transformers
# Rows of one forward pass are at most a quarter of its tokens: segments of one or two tokens then run
# in smaller passes, which costs little, and fewer states wait for their descendants.
TOKENS_PER_ROW = 4
BRANCHABLE_LAYERS = {"full_attention", "sliding_attention"}
# A GPU waits while a forward pass is launched. In that time, for each layer, it could do about this many
# multiplications: at a rate of 5e13 operations a second for half a millisecond, and ten times as many
# where its units for low precision do them (docs/inference.md, measured on an H100). Fixed numbers, since
# the levels of the tree, and with them the rounding, are not to depend on what else a machine does.
LAUNCH_PRODUCTS = {False: 1.5e10, True: 1.5e11}
# Further arguments that layers hand to attention functions, with the value that asks for nothing.
NEUTRAL_ARGUMENTS = {
    "dropout": 0.0,
    "is_causal": True,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_router_logits": False,
    "use_cache": False,
}


class NotBranchableError(ValueError):
    """The model's attention cannot be evaluated as a prefix tree."""


class Segment(NamedTuple):
    """What a level of the tree forwards: tokens start..stop, under all maskings of some players.

    Attributes:
        decided: number of players, in the order of the prompt, that a node of the level has decided on.
    """

    start: int
    stop: int
    decided: int

    @property
    def n_nodes(self) -> int:
        """Maskings of the players that are decided on."""
        return 1 << self.decided


def segments(
    cuts: Sequence[int], batch_tokens: int = 1, launch_tokens: float = 0.0
) -> list[Segment]:
    """Levels of a tree in which forward passes take the least time.

    A level for every player forwards the fewest tokens, and the most often. Where launching a forward pass
    takes as long as some tokens do, levels that decide on several players at once can be faster.

    Args:
        cuts: (n + 1,) places of the players' first tokens, in order, and the length of the prompt.
        batch_tokens: largest number of token positions of one forward pass, if a row fits in it.
        launch_tokens: token positions that take as long as the launch of a forward pass. With 0, a level
            decides on one player.

    Returns:
        The levels, from the root on; the last has decided on all n players.
    """
    n = len(cuts) - 1
    one_each = [Segment(a, b, d) for d, (a, b) in enumerate(pairwise([0, *cuts]))]
    if launch_tokens <= 0:
        return one_each
    # best[d]: least cost of levels that decide on d players, and the last of them.
    best: list[tuple[float, Segment]] = []
    for decided in range(n + 1):
        options = []
        for before in range(-1, decided):
            level = Segment(0 if before < 0 else cuts[before], cuts[decided], decided)
            children = 1 << (decided - max(0, before))
            if decided < n and children > _live_rows(batch_tokens):
                continue
            rows = min(_rows_of_pass(level, batch_tokens), level.n_nodes)
            cost = level.n_nodes * (level.stop - level.start + launch_tokens / rows)
            options.append((cost + (best[before][0] if before >= 0 else 0.0), before, level))
        cost, _, level = min(options, key=lambda option: option[0])
        best.append((cost, level))
    chosen = [best[n][1]]
    while chosen[0].start > 0:
        chosen.insert(0, best[cuts.index(chosen[0].start)][1])
    return chosen


class _Level:
    """Keys and values of the live nodes of one depth, layer by layer."""

    def __init__(self, segment: Segment) -> None:
        self.start, self.stop, self.decided = segment
        self.open(0, 0)

    def open(self, first: int, rows: int) -> None:
        self.first, self.rows = first, rows
        self.states: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def store(self, layer: int, row: int, new: tuple[torch.Tensor, torch.Tensor]) -> None:
        if layer not in self.states:
            key, value = (x.new_empty(self.rows, *x.shape[1:]) for x in new)
            self.states[layer] = key, value
        for whole, part in zip(self.states[layer], new, strict=True):
            whole[row - self.first : row - self.first + len(part)] = part


class PrefixTree:
    """Depth-first evaluation of all maskings of one prompt.

    The shapes of the forward passes, and with them the rounding, follow from ``batch_tokens``, the model,
    its number format and the kind of its device alone.

    Args:
        model: a causal LM of transformers.
        embed: gives the input embeddings (rows, stop - start, hidden) of the tokens start..stop under
            each of (rows,) masks.
        first_tokens: (n,) place of the first token of each player.
        length: number of tokens.
        n_targets: logits are wanted at this many last positions.
        batch_tokens: largest number of token positions of one forward pass, if a row fits in it.
        record: takes (rows,) masks and their logits (rows, n_targets, vocabulary).

    Raises:
        NotBranchableError: the model has layers other than full or sliding-window attention.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        embed: Callable[[torch.Tensor, int, int], torch.Tensor],
        first_tokens: list[int],
        length: int,
        n_targets: int,
        batch_tokens: int,
        record: Callable[[torch.Tensor, torch.Tensor], None],
    ) -> None:
        self.model, self.embed, self.record = model, embed, record
        self.n, self.n_targets, self.batch_tokens = len(first_tokens), n_targets, batch_tokens
        self.order = sorted(range(self.n), key=first_tokens.__getitem__)
        cuts = [*(first_tokens[player] for player in self.order), length]
        parts = segments(cuts, batch_tokens, launch_tokens(model))
        self.levels = [_Level(segment) for segment in parts]
        self.last = len(parts) - 1
        self.live_rows = _live_rows(batch_tokens)
        self.batch_rows = [_rows_of_pass(segment, batch_tokens) for segment in parts]
        self.done = 0
        self.n_layers = _config(model).num_hidden_layers

    def run(self, done: int = 0) -> None:
        """Evaluate the leaves from number ``done`` on, in the order in which they come.

        ``self.done`` is up to date also when an error ends the run.

        Raises:
            NotBranchableError: a layer of the model does not go through the attention interface, or its
                attention is of a kind that the tree does not know.
        """
        self.done = done
        with _attention_implementation(self.model, ATTENTION):
            try:
                n_roots = 1 << self.levels[0].decided
                self._evaluate(0, 0, n_roots)
                self._descend(0, 0, n_roots)
            finally:
                for level in self.levels:
                    level.open(0, 0)

    def _descend(self, depth: int, first: int, stop: int) -> None:
        """Evaluate all descendants of the nodes first..stop of a depth, whose states are stored."""
        if depth == self.last or self._is_done(depth, stop):
            return
        children = 1 << (self.levels[depth + 1].decided - self.levels[depth].decided)
        parents = min(stop - first, max(1, self.live_rows // children))
        for begin in range(first, stop, parents):
            below = children * begin, children * (begin + parents)
            self._evaluate(depth + 1, *below)
            self._descend(depth + 1, *below)

    def _is_done(self, depth: int, stop: int) -> bool:
        return stop << (self.n - self.levels[depth].decided) <= self.done

    def _evaluate(self, depth: int, first: int, stop: int) -> None:
        level = self.levels[depth]
        if level.start == level.stop:
            return
        level.open(first, stop - first)
        rows = min(self.batch_rows[depth], stop - first)
        for begin in range(first, stop, rows):
            if not self._is_done(depth, begin + rows):
                self._forward(depth, begin, rows)

    def _forward(self, depth: int, first: int, rows: int) -> None:
        level = self.levels[depth]
        masks = self._masks(depth, first, rows)
        branch = _Branch(self, depth, first, rows)
        inputs = {
            "inputs_embeds": self.embed(masks, level.start, level.stop),
            "position_ids": torch.arange(level.start, level.stop, device=masks.device)[None],
            "use_cache": False,
            "prefix_tree": branch,
        }
        if branch.is_leaf:
            output = self.model(**inputs, logits_to_keep=self.n_targets)
        else:
            # Without the head: logits of a large vocabulary would cost more than the segment.
            output = self.model.base_model(**inputs)
        if branch.layers_seen != set(range(self.n_layers)):
            raise NotBranchableError(
                f"{type(self.model).__name__} cannot be evaluated as a prefix tree: of its "
                f"{self.n_layers} layers, {len(branch.layers_seen)} go through transformers' "
                "attention interface"
            )
        if branch.is_leaf:
            self.record(masks, output.logits[:, -self.n_targets :])
            self.done = first + rows

    def _masks(self, depth: int, first: int, rows: int) -> torch.Tensor:
        """Bit masks (rows,) int64 of nodes first..first + rows; players further down are masked."""
        nodes = torch.arange(first, first + rows, device=self.model.device)
        masks = torch.zeros_like(nodes)
        decided = self.levels[depth].decided
        for place, player in enumerate(self.order[:decided]):
            masks |= ((nodes >> (decided - 1 - place)) & 1) << player
        return masks


class _Branch:
    """Some nodes of one depth in a forward pass, with what attention needs of their ancestors."""

    def __init__(self, tree: PrefixTree, depth: int, first: int, rows: int) -> None:
        self.levels, self.depth, self.first, self.rows = tree.levels, depth, first, rows
        self.is_leaf = depth == tree.last
        self.model_name = type(tree.model).__name__
        self.layers_seen: set[int] = set()
        self.biases: dict[int, torch.Tensor | None] = {}

    def extend(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (rows, heads, positions so far, size) of the nodes and their ancestors."""
        if layer in self.layers_seen:
            raise NotBranchableError(
                f"{self.model_name} cannot be evaluated as a prefix tree: a layer asks for attention more "
                "than once"
            )
        self.layers_seen.add(layer)
        level = self.levels[self.depth]
        if not self.is_leaf:
            level.store(layer, self.first, (key, value))
        if level.start == 0:
            return key, value
        keys, values = (x.new_empty(*x.shape[:2], level.stop, x.shape[3]) for x in (key, value))
        for ancestor in self._ancestors():
            # 2^shift rows that follow each other have one ancestor.
            shift = level.decided - ancestor.decided
            n_ancestors = max(1, self.rows >> shift)
            begin = (self.first >> shift) - ancestor.first
            for whole, stored in zip((keys, values), ancestor.states[layer], strict=True):
                by_ancestor = whole.view(n_ancestors, -1, *whole.shape[1:])
                own = stored[begin : begin + n_ancestors, None]
                by_ancestor[..., ancestor.start : ancestor.stop, :] = own
        keys[:, :, level.start :] = key
        values[:, :, level.start :] = value
        return keys, values

    def _ancestors(self) -> Iterator[_Level]:
        for level in self.levels[: self.depth]:
            if level.start < level.stop:
                yield level

    def bias(self, queries: torch.Tensor, groups: int, window: int | None) -> torch.Tensor | None:
        """Additive mask (groups * length, positions so far) of causal or sliding-window attention."""
        level = self.levels[self.depth]
        # Full attention is a window over everything.
        reach = level.stop if window is None else window
        if reach not in self.biases:
            # Told from the places alone: asking a tensor would wait for a GPU.
            hides_nothing = level.stop - level.start == 1 and reach >= level.stop
            self.biases[reach] = None if hides_nothing else self._mask(queries, groups, reach)
        return self.biases[reach]

    def _mask(self, queries: torch.Tensor, groups: int, reach: int) -> torch.Tensor:
        level = self.levels[self.depth]
        own = torch.arange(level.start, level.stop, device=queries.device)[:, None]
        seen = torch.arange(level.stop, device=queries.device)
        hidden = (seen > own) | (seen <= own - reach)
        bias = torch.zeros(hidden.shape, dtype=queries.dtype, device=queries.device)
        return bias.masked_fill(hidden, float("-inf")).repeat(groups, 1)

    def check_arguments(self, given: Mapping[str, object]) -> None:
        """Refuse what attention would have to heed and does not.

        Args:
            given: arguments of an attention function by name. Positions need no heed: they are in
                queries and keys already.

        Raises:
            NotBranchableError: one is neither None nor its neutral value.
        """
        for name, value in given.items():
            if value is None or name == "position_ids":
                continue
            is_plain = isinstance(value, bool | int | float)
            if is_plain and name in NEUTRAL_ARGUMENTS and value == NEUTRAL_ARGUMENTS[name]:
                continue
            shown = f"{name}={value}" if is_plain else f"{name} ({type(value).__name__})"
            raise NotBranchableError(
                f"{self.model_name} cannot be evaluated as a prefix tree: its attention is given "
                f"{shown}, which the tree's attention does not know"
            )


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    prefix_tree: _Branch | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Attention of a branch of the tree, as transformers calls it in every layer.

    Query heads that share a key head are folded into its queries, so that keys and values are not
    repeated. Arguments are those of transformers' attention functions: query (rows, heads, length,
    size); key and value with their own number of heads; the result is (rows, length, heads, size).

    Raises:
        NotBranchableError: an argument asks for something that is not computed here, or the model does not
            hand its own arguments on to attention.
    """
    if prefix_tree is None:
        raise NotBranchableError(
            f"{type(module).__name__} cannot be evaluated as a prefix tree: its model does not hand the "
            "tree on to it"
        )
    prefix_tree.check_arguments({"attention_mask": attention_mask, **others})
    layer: int = module.layer_idx  # type: ignore[assignment]  # attention modules of transformers
    keys, values = prefix_tree.extend(layer, key, value)
    rows, heads, length, size = query.shape
    groups = heads // key.shape[1]
    folded = query.reshape(rows, key.shape[1], groups * length, size)
    bias = prefix_tree.bias(query, groups, sliding_window)
    if softcap is None:
        output = scaled_dot_product_attention(folded, keys, values, attn_mask=bias, scale=scaling)
    else:
        scale = size**-0.5 if scaling is None else scaling
        scores = torch.tanh(folded @ keys.transpose(2, 3) * scale / softcap) * softcap
        scores = scores if bias is None else scores + bias
        output = scores.softmax(-1, dtype=torch.float32).to(values.dtype) @ values
    return output.reshape(rows, heads, length, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attention)


@contextmanager
def _attention_implementation(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Let a model's layers use another attention function of transformers for a while."""
    # A private attribute, since transformers lets one set an implementation but not ask for it.
    # tests/unit/masking/test_prefix_tree.py tells when an upgrade changes it.
    usual = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def attention_name(model: PreTrainedModel) -> str | None:
    """Name of the attention function of transformers that a model's layers use."""
    name: str | None = model.config._attn_implementation
    return name


def can_branch(model: PreTrainedModel) -> bool:
    """Whether all layers of a model are full or sliding-window attention."""
    try:
        _config(model)
    except NotBranchableError:
        return False
    return True


def peak_bytes(
    model: PreTrainedModel, cuts: Sequence[int], n_targets: int, batch_tokens: int
) -> int:
    """Estimate of the most memory that an evaluation needs beside the model's weights.

    Args:
        cuts: (n + 1,) places of the players' first tokens, in order, and the length of the prompt.

    Raises:
        NotBranchableError: the model has layers other than full or sliding-window attention.
    """
    config = _config(model)
    # Some architectures have layers of several sizes.
    layers = [_layer_sizes(layer) for layer in config.per_layer_config]
    n_heads = max(layer.n_heads for layer in layers)
    # Numbers of one token: its keys and values in all layers; and what a layer holds of it at once, which
    # is residual, norms and heads, then the gated product.
    states = sum(2 * layer.head * layer.n_key_heads for layer in layers)
    state = max(2 * layer.head * layer.n_key_heads for layer in layers)
    token = 6 * config.hidden_size + max(
        4 * layer.n_heads * layer.head + 3 * layer.intermediate for layer in layers
    )
    stored = passing = 0
    levels = segments(cuts, batch_tokens, launch_tokens(model))
    for level in levels:
        length, rows = level.stop - level.start, _rows_of_pass(level, batch_tokens)
        if level.decided < len(cuts) - 1:
            live = min(level.n_nodes, _live_rows(batch_tokens))
            stored += live * length * states
        row = length * token + level.stop * state + n_heads * length * level.stop
        passing = max(passing, min(rows, level.n_nodes) * row)
    last = levels[-1]
    rows = min(_rows_of_pass(last, batch_tokens), last.n_nodes)
    logits = rows * n_targets * config.vocab_size
    needed: int = (stored + passing + 2 * logits) * model.dtype.itemsize
    return needed


def launch_tokens(model: PreTrainedModel) -> float:
    """Token positions that a model's device forwards in the time that it takes to launch a forward pass.

    0 for a CPU, which computes while it launches.

    Raises:
        NotBranchableError: the model has layers other than full or sliding-window attention.
    """
    if model.device.type == "cpu":
        return 0.0
    config = _config(model)
    layers = [_layer_sizes(layer) for layer in config.per_layer_config]
    products: float = sum(
        2 * config.hidden_size * layer.head * (layer.n_heads + layer.n_key_heads)
        + 3 * config.hidden_size * layer.intermediate
        for layer in layers
    ) / len(layers)
    # Not by allow_tf32: it cannot be read where a trainer has set the newer switch.
    is_fast = model.dtype != torch.float32 or torch.backends.cuda.matmul.fp32_precision == "tf32"
    return LAUNCH_PRODUCTS[is_fast] / products


class _LayerSizes(NamedTuple):
    n_heads: int
    n_key_heads: int
    head: int
    intermediate: int


def _layer_sizes(config: PreTrainedConfig) -> _LayerSizes:
    """Sizes of a layer, out of its own configuration."""
    n_heads: int = config.num_attention_heads
    intermediate = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return _LayerSizes(
        n_heads=n_heads,
        n_key_heads=getattr(config, "num_key_value_heads", None) or n_heads,
        head=getattr(config, "head_dim", None) or config.hidden_size // n_heads,
        intermediate=intermediate if isinstance(intermediate, int) else max(intermediate),
    )


def _config(model: PreTrainedModel) -> PreTrainedConfig:
    config = model.config.get_text_config()
    others = set(getattr(config, "layer_types", None) or ()) - BRANCHABLE_LAYERS
    if others or not hasattr(config, "num_attention_heads"):
        raise NotBranchableError(
            f"{type(model).__name__} cannot be evaluated as a prefix tree: it has layers of "
            f"{', '.join(sorted(others)) or 'something other than attention'}"
        )
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        # It would number the positions of every segment from the start.
        raise NotBranchableError(
            f"{type(model).__name__} cannot be evaluated as a prefix tree: it takes no position_ids"
        )
    return config


def _live_rows(batch_tokens: int) -> int:
    """Most nodes of one depth whose states are held at once."""
    return max(2, _power_of_two(batch_tokens // TOKENS_PER_ROW))


def _rows_of_pass(level: Segment, batch_tokens: int) -> int:
    """Nodes of one forward pass: a power of two, so that passes are whole subtrees."""
    fitting = _power_of_two(batch_tokens // max(1, level.stop - level.start))
    return min(_live_rows(batch_tokens), fitting)


def _power_of_two(number: int) -> int:
    """The largest power of two that is not above a number, at least 1."""
    return 1 << max(0, number.bit_length() - 1)
