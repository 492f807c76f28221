"""One prompt explained in one call: its log-odds under every masking, its interactions, a plot.

The library's entrance for a notebook or a script; the workflow does the same in stages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_interactions.data.words import (
    UnsuitableSampleError,
    Word,
    choose_players,
    eligible_words,
    find_words,
    stop_words,
)
from sft_interactions.extraction.program import NOISE_RATIO, extract
from sft_interactions.extraction.transforms import moebius
from sft_interactions.limits import MAX_PLAYERS, MIN_PLAYERS
from sft_interactions.masking.live import undisturbed
from sft_interactions.masking.log_odds import MaskedPrompt, masked_log_odds
from sft_interactions.masking.mask_embedding import make_mask_embedding
from sft_interactions.models.loading import check_reading
from sft_interactions.models.prompts import make_prompt, mask_token_id
from sft_interactions.models.templates import TEMPLATE_DATE, make_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from shapiq import InteractionValues

_SAMPLE = "prompt"


@dataclass(frozen=True)
class Explanation:
    """The interactions of one prompt.

    Attributes:
        words: (n,) the masked words, in reading order; player k is ``words[k]``.
        target: the token whose log-odds are explained, as text.
        log_odds: (2^n,) float32 v(S), natural logarithm, by the bit mask of the words that are kept.
        bias: b, in log-odds.
        interactions: rows (kind, words, order, effect, pattern), the strongest first; ``words`` is a
            list, ``effect`` is in log-odds, bit k of ``pattern`` stands for ``words[k]``.
        noise_bound: largest |φ(S) − v(S)| that was allowed, in log-odds.
        gap: relative duality gap of the solution, 0 for an exact optimum up to rounding.
    """

    words: Sequence[str]
    target: str
    log_odds: NDArray[np.float32]
    bias: float
    interactions: pl.DataFrame
    noise_bound: float
    gap: float

    def plot(self, strongest: int = 12) -> "Figure":
        """Bars of the strongest interactions, as a matplotlib figure."""
        from sft_interactions.figures import effects  # matplotlib is not needed for the rest

        return effects.draw(self.interactions.head(strongest), target=self.target)

    def harsanyi_dividends(self) -> NDArray[np.float64]:
        """Exact Möbius transform of the log-odds, m(T) = Σ_{L⊆T} (−1)^{|T|−|L|} v(L).

        These are not the AND interactions of ``interactions``: they describe v alone and exactly, without
        OR interactions and without a noise bound, and nearly all of them differ from 0.

        Returns:
            (2^n,) float64 by the bit mask of T, in log-odds; entry 0 is v(∅), and v(S) = Σ_{T⊆S} m(T).
        """
        return moebius(self.log_odds)

    def to_shapiq(self) -> "InteractionValues":
        """The exact Möbius transform of the log-odds, as shapiq's tools and plots take it.

        It holds :meth:`harsanyi_dividends`, of all orders: v(S) is the sum of the values of all subsets
        of S, with v(∅) as the value of the empty set and the baseline. The sparse interactions are not in
        it, since a Möbius index has no place for an OR interaction: one on T stands there as effects of
        alternating sign on all subsets of T. Player k is ``words[k]``; give the plots
        ``feature_names=explanation.words``.

        Raises:
            ValueError: shapiq is not installed.
        """
        try:
            from shapiq import InteractionValues  # a large library, which nothing else needs
        except ModuleNotFoundError as error:
            raise ValueError(
                "to_shapiq: shapiq is not installed; run pip install 'sft-interactions[shapiq]', or pip "
                "install shapiq"
            ) from error
        n = len(self.words)
        values = {
            tuple(k for k in range(n) if mask >> k & 1): float(value)
            for mask, value in enumerate(self.harsanyi_dividends())
        }
        return InteractionValues(
            values,
            index="Moebius",
            n_players=n,
            min_order=0,
            max_order=n,
            estimated=False,
            baseline_value=values[()],
        )


def explain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    target: str,
    *,
    players: Sequence[str] | None = None,
    n_players: int = 8,
    template: str = "chat",
    instruction: str = "{prompt}",
    template_date: str = TEMPLATE_DATE,
    mask_embedding: str = "token",
    mask_token: str | None = None,
    noise_ratio: float = NOISE_RATIO,
    noise_scale: str = "sample",
    tie_break: str = "canonical",
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Explanation:
    """Explain the log-odds of a response's first token by AND and OR interactions of words.

    It is the first token with content: a blank alone says nothing of the response.

    Args:
        model: a causal LM of transformers, or a PEFT model around one, on any device; float32 is advised.
            It is evaluated without dropout and autocast, and left in the mode that it is in.
        tokenizer: its tokenizer, a fast one.
        prompt: the user text; its words are masked.
        target: the response.
        players: the words to mask, each as it stands in ``prompt``; by default ``n_players`` words
            are drawn that are not stop-words.
        template: ``chat``, the tokenizer's own chat template, or ``plain`` (see
            :func:`~sft_interactions.models.templates.make_frame`).
        template_date: what a chat template writes as today's date, YYYY-MM-DD.
        instruction: what surrounds the user text in the user's turn; it is never masked.
        mask_embedding: ``token``, ``mean`` or ``zero``, see
            :func:`~sft_interactions.masking.mask_embedding.make_mask_embedding`.
        mask_token: the token of ``token``; by default the unknown token, else the padding token.
        noise_ratio: ζ of :func:`~sft_interactions.extraction.program.noise_bounds`.
        noise_scale: what it is a share of, see there; of one prompt ``mean`` is the same as ``sample``.
        tie_break: a name of ``TIE_BREAKS`` of ``extraction.tie_break``.
        seed: of the draw of the players.
        progress: called with the number of maskings that have just been evaluated, of 2^n.

    Raises:
        ValueError: the model is not a causal LM; a player is not a word of ``prompt`` or occurs
            more than once, there are fewer than two or more than can be analysed, the text has too
            few words, or the tokenizer does not fit (see
            :func:`~sft_interactions.models.prompts.make_prompt`).
    """
    if players is None:
        chosen = draw_players(prompt, n_players, seed, "prompt", "n_players")
    else:
        chosen = _find_players(prompt, players)
    frame = make_frame(tokenizer, template, instruction, template_date)
    tokenized = make_prompt(tokenizer, frame, _SAMPLE, prompt, target, chosen)
    token_id = mask_token_id(tokenizer, mask_token) if mask_embedding == "token" else None
    masked = MaskedPrompt(
        tokenized.token_ids, tokenized.player_of_token, tokenized.target_token_ids
    )
    with undisturbed(model):
        check_reading(model, "model")
        embedding = make_mask_embedding(model, mask_embedding, token_id)
        log_odds = masked_log_odds(model, masked, embedding, progress=progress)
    solved = extract(
        log_odds[None], noise_ratio=noise_ratio, noise_scale=noise_scale, tie_break=tie_break
    )
    words = [word.text for word in chosen]
    return Explanation(
        words=words,
        target=tokenized.target_text,
        log_odds=log_odds,
        bias=float(solved.bias[0]),
        interactions=_table(words, solved.and_effects[0], solved.or_effects[0]),
        noise_bound=float(solved.noise_bound[0]),
        gap=float(1 - solved.l1_lower_bound[0] / solved.l1[0]) if solved.l1[0] else 0.0,
    )


def draw_players(prompt: str, n: int, seed: int, where: str, argument: str) -> list[Word]:
    """Draw ``n`` words of a prompt that are not stop-words, in reading order.

    The draw depends on the seed and the places of the words alone.

    Args:
        where: what the prompt is, for messages.
        argument: name of the argument ``n``, for messages.

    Raises:
        ValueError: ``n`` is less than 2 or more than can be analysed, or the prompt has fewer such words.
    """
    if not MIN_PLAYERS <= n <= MAX_PLAYERS:
        raise ValueError(f"{argument} is {n}; give {MIN_PLAYERS} to {MAX_PLAYERS}")
    excluded = stop_words("builtin")
    try:
        return choose_players(_SAMPLE, prompt, n, seed=seed, excluded=excluded)
    except UnsuitableSampleError as error:
        raise ValueError(
            f"{where}: it has {len(eligible_words(prompt, excluded))} words that are not stop-words, of "
            f"which no {n} can be drawn apart; lower {argument} or give a longer prompt"
        ) from error


def _find_players(prompt: str, players: Sequence[str]) -> list[Word]:
    words = find_words(prompt)
    found = []
    for player in players:
        places = [word for word in words if word.text == player]
        if len(places) != 1:
            raise ValueError(
                f"players: {player!r} is {len(places)} times among the words of the prompt; name "
                "words that occur once, as they stand there, without punctuation"
            )
        found += places
    twice = next((player for player in players if list(players).count(player) > 1), None)
    if twice is not None:
        raise ValueError(f"players: {twice!r} is named twice; name each word once")
    if not MIN_PLAYERS <= len(found) <= MAX_PLAYERS:
        raise ValueError(f"players: {len(found)} given; name {MIN_PLAYERS} to {MAX_PLAYERS} words")
    return sorted(found, key=lambda word: word.start)


def _table(
    words: Sequence[str], and_effects: NDArray[np.float64], or_effects: NDArray[np.float64]
) -> pl.DataFrame:
    rows = [
        {
            "kind": kind,
            "words": [word for k, word in enumerate(words) if pattern >> k & 1],
            "order": pattern.bit_count(),
            "effect": float(effects[pattern]),
            "pattern": pattern,
        }
        for kind, effects in (("and", and_effects), ("or", or_effects))
        for pattern in map(int, np.flatnonzero(effects))
    ]
    schema: dict[str, pl.DataType] = {
        "kind": pl.String(),
        "words": pl.List(pl.String),
        "order": pl.UInt8(),
        "effect": pl.Float64(),
        "pattern": pl.UInt32(),
    }
    return pl.DataFrame(rows, schema=schema).sort(-pl.col("effect").abs(), "kind", "pattern")
