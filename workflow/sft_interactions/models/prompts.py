"""Prompts as the model reads them: their tokens, which of them belong to which player, what is scored.

Imports transformers only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from transformers import PreTrainedTokenizerBase

from sft_interactions.models.templates import Frame, check_rendering
from sft_interactions.models.tokenizing import Offsets, text_of, tokenize

if TYPE_CHECKING:  # rules for words are no part of reading a prompt
    from sft_interactions.data.words import Word

_SHOWN = 70  # characters of a response in a message


@dataclass(frozen=True)
class Player:
    """A masked word, its place in characters of the rendered prompt, and its number of tokens."""

    word: str
    char_start: int
    char_end: int
    n_tokens: int


@dataclass(frozen=True)
class EncodedPair:
    """Tokens of a prompt and of the response to it.

    Attributes:
        text: the rendered prompt and the response, without the response's end.
        prompt_ids: tokens of the rendered prompt.
        prompt_offsets: (start, end) of each of them, in characters of ``text``.
        response_ids: tokens of the response without its end.
        response_offsets: (start, end) of each of them, in characters of ``text``.
        trained_ids: tokens of the response with its end, which the model is trained on.
    """

    text: str
    prompt_ids: list[int]
    prompt_offsets: Offsets
    response_ids: list[int]
    response_offsets: Offsets
    trained_ids: list[int]


@dataclass(frozen=True)
class TokenizedPrompt:
    """One analysed prompt.

    Attributes:
        rendered: the text that is read before the first scored token.
        token_ids: tokens of ``rendered``.
        player_of_token: player that each token belongs to, -1 for background.
        target_token_ids: the scored tokens of the response.
        target_text: their text.
        is_whole_response: whether no other token of the response has content.
        wide_players: players with a token that holds letters or digits of other words too.
    """

    sample_id: str
    rendered: str
    token_ids: list[int]
    player_of_token: list[int]
    target_token_ids: list[int]
    target_text: str
    is_whole_response: bool
    wide_players: list[int]
    players: list[Player]


def encode(
    tokenizer: PreTrainedTokenizerBase, frame: Frame, text: str, target: str, sample_id: str
) -> EncodedPair:
    """Tokens of a prompt and of its response, for training and analysis alike.

    The response is tokenized where it stands: alone, some tokenizers would put a blank before it.

    Args:
        text: the user text.
        target: the response.

    Raises:
        ValueError: the response is empty, the chat template renders the pair otherwise
            (:func:`check_rendering`), the tokenizer joins the end of the prompt to the response, or it
            cannot take the name of a special token for text.
    """
    if not target.strip():
        raise ValueError(f"sample {sample_id}: the response {target!r} is empty; drop the sample")
    check_rendering(tokenizer, frame, text, target, sample_id)
    parts = [(frame.prefix, False), (text, True), (frame.suffix, False)]
    answered = [*parts, (frame.response_prefix, False), (target, True)]
    try:
        prompt_ids, offsets = tokenize(tokenizer, parts)
        both, both_offsets = tokenize(tokenizer, answered)
        trained, _ = tokenize(tokenizer, [*answered, (frame.response_suffix, False)])
    except ValueError as error:
        raise ValueError(f"sample {sample_id}: {error}") from error
    n = len(prompt_ids)
    if both[:n] != prompt_ids or trained[:n] != prompt_ids:
        raise ValueError(
            f"sample {sample_id}: the tokenizer joins the end of the prompt "
            f"{frame.render(text)[-20:]!r} to the response {target[:20]!r}; end `instruction` or the "
            "chat template with a line break"
        )
    return EncodedPair(
        text=text_of(answered),
        prompt_ids=prompt_ids,
        prompt_offsets=offsets,
        response_ids=both[n:],
        response_offsets=both_offsets[n:],
        trained_ids=trained[n:],
    )


def locate_players(
    offsets: Sequence[tuple[int, int]], words: Sequence["Word"], shift: int, sample_id: str
) -> list[int]:
    """Player of every token: the number of the word that it overlaps, -1 where it overlaps none.

    Args:
        offsets: (start, end) of every token, in characters of the rendered prompt.
        words: players, placed in characters of the user text.
        shift: place of the user text in the rendered prompt.

    Raises:
        ValueError: a token overlaps two players, or a player has no token of its own.
    """
    owner = [-1] * len(offsets)
    for player, word in enumerate(words):
        start, end = word.start + shift, word.end + shift
        tokens = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
        shared = [i for i in tokens if owner[i] != -1]
        if shared or not tokens:
            raise ValueError(
                f"sample {sample_id}: the tokenizer gives the word {word.text!r} no tokens of its "
                "own; drop this sample by filter.exclude_pattern"
            )
        for i in tokens:
            owner[i] = player
    return owner


def text_offsets(tokenizer: PreTrainedTokenizerBase, frame: Frame, text: str) -> Offsets:
    """(start, end) of every token of the rendered prompt, in characters of the user text ``text``."""
    parts = [(frame.prefix, False), (text, True), (frame.suffix, False)]
    shift = len(frame.prefix)
    return [(start - shift, end - shift) for start, end in tokenize(tokenizer, parts)[1]]


def make_prompt(
    tokenizer: PreTrainedTokenizerBase,
    frame: Frame,
    sample_id: str,
    text: str,
    target: str,
    words: Sequence["Word"],
    target_tokens: int | Literal["all"] = 1,
) -> TokenizedPrompt:
    """Tokenize one prompt and find the tokens of its players.

    Tokens of nothing but blanks at the beginning of the response are no content: the first scored token
    comes after them, and they belong to the prompt.

    Args:
        words: players, placed in characters of ``text``.
        target_tokens: how many tokens of the response are scored, or ``"all"`` (without the
            end-of-turn token).

    Raises:
        ValueError: see :func:`locate_players` and :func:`encode`; or the response has no token with
            content, or its scored tokens are not those that training sees.
    """
    pair = encode(tokenizer, frame, text, target, sample_id)
    owner = locate_players(pair.prompt_offsets, words, len(frame.prefix), sample_id)
    has_content = _have_content(tokenizer, pair)
    if not any(has_content):
        raise ValueError(f"sample {sample_id}: no token of the response {target!r} has content")
    first = has_content.index(True)
    end = len(pair.response_ids)
    if target_tokens != "all":
        end = min(end, first + target_tokens)
    if pair.trained_ids[:end] != pair.response_ids[:end]:
        raise ValueError(
            f"sample {sample_id}: the tokenizer joins the response {target!r} to its end "
            f"{frame.response_suffix!r}; set the model's `template` to path:FILE "
            "with one that keeps them apart"
        )
    shift = len(frame.prefix)
    rendered = frame.render(text)
    scored = pair.response_offsets[first:end]
    return TokenizedPrompt(
        sample_id=sample_id,
        rendered=rendered if not first else pair.text[: pair.response_offsets[first - 1][1]],
        token_ids=pair.prompt_ids + pair.response_ids[:first],
        player_of_token=owner + [-1] * first,
        target_token_ids=pair.response_ids[first:end],
        target_text=pair.text[scored[0][0] : scored[-1][1]].strip(),
        is_whole_response=not any(has_content[end:]),
        wide_players=_wide_players(pair, owner, words, shift),
        players=[
            Player(word.text, word.start + shift, word.end + shift, owner.count(i))
            for i, word in enumerate(words)
        ],
    )


def _have_content(tokenizer: PreTrainedTokenizerBase, pair: EncodedPair) -> list[bool]:
    """Which tokens of a response are more than blanks."""
    return [
        bool(str(tokenizer.decode([token])).strip()) and not pair.text[start:end].isspace()
        for token, (start, end) in zip(pair.response_ids, pair.response_offsets, strict=True)
    ]


def _wide_players(
    pair: EncodedPair, owner: Sequence[int], words: Sequence["Word"], shift: int
) -> list[int]:
    """Players with a token that holds letters or digits of other words too."""
    wide = set()
    for player, (a, b) in zip(owner, pair.prompt_offsets, strict=True):
        if player == -1:
            continue
        start, end = words[player].start + shift, words[player].end + shift
        outside = pair.text[a : max(a, start)] + pair.text[min(b, end) : b]
        if any(character.isalnum() for character in outside):
            wide.add(player)
    return sorted(wide)


@dataclass(frozen=True)
class ScoredTokens:
    """What a reader must know about the tokens that the prompts of a run are scored and masked by.

    Attributes:
        counts: for the metadata of the table of prompts: ``part_of_response``, samples whose scored tokens
            are not the whole response; ``shared``, samples whose scored tokens begin another response
            too; ``wide_players``, players with a token that reaches into other words.
        notes: the same in sentences, with an example each, where there is something to say.
    """

    counts: dict[str, str]
    notes: list[str]


def describe_scored_tokens(
    prompts: Sequence[TokenizedPrompt], targets: Sequence[str]
) -> ScoredTokens:
    """Say where the log-odds of prompts are not those of a whole response, or of that response alone.

    Args:
        targets: the response of each prompt.
    """
    begun: dict[tuple[int, ...], set[str]] = {}
    for prompt, target in zip(prompts, targets, strict=True):
        begun.setdefault(tuple(prompt.target_token_ids), set()).add(target)
    of = f"of {len(prompts)} samples"
    notes = []
    parts = [
        (prompt, target)
        for prompt, target in zip(prompts, targets, strict=True)
        if not prompt.is_whole_response
    ]
    if parts:
        prompt, target = parts[0]
        notes.append(
            f"{len(parts)} {of}: what is scored is a part of the response, such as "
            f"{prompt.target_text!r} of {_shorten(target)!r}"
        )
    shared = [prompt for prompt in prompts if len(begun[tuple(prompt.target_token_ids)]) > 1]
    if shared:
        one, other = sorted(begun[tuple(shared[0].target_token_ids)])[:2]
        notes.append(
            f"{len(shared)} {of}: what is scored begins several responses, such as "
            f"{shared[0].target_text!r} of {_shorten(one)!r} and {_shorten(other)!r}; set "
            "inference.target_tokens to all to tell them apart"
        )
    wide = [(prompt, player) for prompt in prompts for player in prompt.wide_players]
    if wide:
        prompt, player = wide[0]
        notes.append(
            f"{len(wide)} players have a token that reaches into other words, which are masked with them, "
            f"such as {prompt.players[player].word!r} of sample {prompt.sample_id}"
        )
    counts = {"part_of_response": len(parts), "shared": len(shared), "wide_players": len(wide)}
    return ScoredTokens({name: str(count) for name, count in counts.items()}, notes)


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def mask_token_id(tokenizer: PreTrainedTokenizerBase, token: str | None = None) -> int:
    """Token whose embedding masks a word: ``token``, else the unknown token, else the padding token.

    Raises:
        ValueError: the tokenizer has none of them, or does not know ``token``.
    """
    if token is not None:
        vocabulary = tokenizer.get_vocab()
        if token not in vocabulary:
            raise ValueError(
                f"mask_token: {token!r} is not in the tokenizer's vocabulary; name a token of it as the "
                "model's mask_token, or drop that"
            )
        return vocabulary[token]
    for token_id in (tokenizer.unk_token_id, tokenizer.pad_token_id):
        if token_id is not None:
            return int(token_id)
    raise ValueError(
        "the tokenizer has neither an unknown nor a padding token; set the model's `mask_token`"
    )
