"""Prompts as the model reads them: chat template, tokens, and which token belongs to which player.

Imports transformers only.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from typing import Literal
from unittest.mock import patch

import jinja2
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from sft_interactions.data.words import Word

# Stand for the prompt and the response while a template is rendered.
_PROMPT, _RESPONSE = "PROMPTGOESHERE", "RESPONSEGOESHERE"
PLAIN_SUFFIX = "\nAnswer:"
TEMPLATE_DATE = "2025-01-01"  # the default of the config key template_date
_SHOWN = 70  # characters of a text in a message
_SEPARATOR = "\ue000SEPARATOR\ue001"  # a token that no text has, which begins a stretch of text
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")

Offsets = list[tuple[int, int]]


@dataclass(frozen=True)
class Turns:
    """What a chat template is asked to render.

    Attributes:
        instruction: the user text, with ``{prompt}`` where the prompt stands.
        date: today, for templates that write it; YYYY-MM-DD.
        end: what the template writes after a response, but for line breaks.
    """

    instruction: str
    date: str
    end: str


@dataclass(frozen=True)
class Frame:
    """The text around the user text and around the response; background that is never masked.

    Attributes:
        response_prefix: blanks between ``suffix`` and the response, which some tokenizers join to the
            response's first token.
        turns: what the frame was made of; None for the plain template.
    """

    prefix: str
    suffix: str
    response_prefix: str
    response_suffix: str
    turns: Turns | None = None

    def render(self, prompt: str) -> str:
        """The whole text that the model reads before it answers."""
        return self.prefix + prompt + self.suffix

    def response(self, target: str) -> str:
        """The whole text that the model is trained to answer."""
        return self.response_prefix + target + self.response_suffix


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


def make_frame(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    instruction: str,
    today: str = TEMPLATE_DATE,
) -> Frame:
    """Frame of a tokenizer's own chat template (``chat``) or of the plain template (``plain``).

    The plain template is the tokenizer's beginning-of-sequence token (where it has one), the user
    text, a line break and ``Answer:``; the response follows after a space.

    Args:
        instruction: the user text, with ``{prompt}`` where the prompt stands.
        today: the date that a chat template writes as today's, YYYY-MM-DD.

    Raises:
        ValueError: ``chat`` for a tokenizer without a chat template, or a template that stops, or that
            does not keep the texts of user and response as they are.
    """
    if instruction.count("{prompt}") != 1:
        raise ValueError(
            f"instruction: {{prompt}} is there {instruction.count('{prompt}')} times; write it once"
        )
    user = instruction.replace("{prompt}", _PROMPT)
    turns = None
    if template == "plain":
        rendered = _bos(tokenizer) + user + PLAIN_SUFFIX
        response_prefix, response_suffix = " ", _eos(tokenizer)
    else:
        rendered, response_prefix, end = _render_chat(tokenizer, user, today)
        response_suffix = end or _eos(tokenizer)
        turns = Turns(instruction, today, end)
    if rendered.count(_PROMPT) != 1:
        raise ValueError(
            "the chat template does not hold the user text exactly once, as it stands; set the model's "
            "`template: plain`"
        )
    prefix, _, suffix = rendered.partition(_PROMPT)
    return Frame(prefix, suffix, response_prefix, response_suffix, turns)


def _render_chat(tokenizer: PreTrainedTokenizerBase, user: str, today: str) -> tuple[str, str, str]:
    """A user turn by the chat template, up to the response; and what stands before and after that."""
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template; set the model's `template: plain`")
    asked, answered = _render_turns(tokenizer, user, _RESPONSE, today)
    if not answered.startswith(asked):
        raise ValueError(
            "the chat template renders a turn with its answer otherwise than the turn alone; set the "
            "model's `template: plain`"
        )
    between, _, after = answered.removeprefix(asked).partition(_RESPONSE)
    if answered.count(_RESPONSE) != 1:
        raise ValueError(
            "the chat template does not hold the response exactly once, as it stands; set the model's "
            "`template: plain`"
        )
    before_blanks = between.rstrip(" ")
    blanks = between.removeprefix(before_blanks)
    return asked + before_blanks, blanks, after.rstrip("\n")


def _render_turns(
    tokenizer: PreTrainedTokenizerBase, user: str, response: str, today: str
) -> tuple[str, str]:
    """A user turn that asks for an answer, and the turn with its answer, by the chat template."""
    turn = {"role": "user", "content": user}
    answer = {"role": "assistant", "content": response}
    try:
        with _on_date(today):
            asked = tokenizer.apply_chat_template(
                [turn], tokenize=False, add_generation_prompt=True
            )
            answered = tokenizer.apply_chat_template([turn, answer], tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise ValueError(
            f"the chat template does not render a user turn and its answer: {_on_one_line(error)}; "
            "correct it in the model's folder, or set the model's `template: plain`"
        ) from error
    return str(asked), str(answered)


@contextmanager
def _on_date(today: str) -> Iterator[None]:
    """Let chat templates find another date than the day's, which a study must not depend on."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # templates give no zone
            return datetime.combine(date.fromisoformat(today), time())

    # What it is called there is transformers' own affair: tests/unit/models/test_prompts.py tells when an
    # upgrade changes that. Functions are not handed on to templates.
    with patch.object(chat_template_utils, "datetime", Clock):
        yield


def _on_one_line(error: object) -> str:
    return " ".join(str(error).split())


def _bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """The beginning-of-sequence token, if the tokenizer puts it before a text by itself."""
    bos_id = tokenizer.bos_token_id
    if bos_id is None or tokenizer("a")["input_ids"][:1] != [bos_id]:
        return ""
    return _as_written(tokenizer, str(tokenizer.bos_token), bos_id)


def _eos(tokenizer: PreTrainedTokenizerBase) -> str:
    """The end-of-sequence token, if the tokenizer has one."""
    if tokenizer.eos_token is None:
        return ""
    return _as_written(tokenizer, str(tokenizer.eos_token), tokenizer.eos_token_id)


def _as_written(tokenizer: PreTrainedTokenizerBase, name: str, token: int) -> str:
    """The name of a special token, which must be that token where it is written into a text."""
    if tokenizer(name, add_special_tokens=False)["input_ids"] != [token]:
        raise ValueError(
            f"the tokenizer does not read its own token {name!r} as one token; add it to added_tokens of "
            "the model's tokenizer.json"
        )
    return name


def check_rendering(
    tokenizer: PreTrainedTokenizerBase, frame: Frame, text: str, target: str, sample_id: str
) -> None:
    """Check that the chat template itself renders a prompt and its response as the frame does.

    A template may change, trim or drop what it is given, or write it in another place.

    Raises:
        ValueError: it does; the message has both texts.
    """
    if frame.turns is None:
        return
    user = frame.turns.instruction.replace("{prompt}", text)
    asked, answered = _render_turns(tokenizer, user, target, frame.turns.date)
    wanted = frame.render(text) + frame.response_prefix + target + frame.turns.end
    if not frame.render(text).startswith(asked):
        raise ValueError(_difference(asked, frame.render(text), sample_id))
    if answered.rstrip("\n") != wanted.rstrip("\n"):
        raise ValueError(_difference(answered, wanted, sample_id))


def _difference(own: str, wanted: str, sample_id: str) -> str:
    pairs = enumerate(zip(own, wanted, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(own), len(wanted)))
    start = max(0, place - _SHOWN // 2)
    shown = [text[start : start + _SHOWN] for text in (own, wanted)]
    return (
        f"sample {sample_id}: the chat template writes {shown[0]!r} where the prompt and its response "
        f"make {shown[1]!r}; drop such samples by filter.exclude_pattern, or set the model's "
        "`template: plain`"
    )


def tokenize(
    tokenizer: PreTrainedTokenizerBase, parts: Sequence[tuple[str, bool]]
) -> tuple[list[int], Offsets]:
    """Tokens of a text without those that the tokenizer would add.

    Args:
        parts: pieces of the text, each with whether it is a user's. In a user's piece the name of a
            special token, such as ``<|im_end|>``, is text; elsewhere it is the token.

    Returns:
        Ids, and (start, end) of each token in characters of the whole text.

    Raises:
        ValueError: the tokenizer cannot take the name of a special token for text.
    """
    whole = _tokenize_whole(tokenizer, parts)
    taken = _taken_for_special(tokenizer, parts, *whole)
    if not taken:
        return whole
    apart = _tokenize_apart(tokenizer, parts, *whole)
    names = {_text_of(parts)[a:b] for a, b in taken}
    # On a text without such names it must give what the tokenizer gives, or it cannot be trusted.
    harmless = [
        (_without(piece, names) if is_users else piece, is_users) for piece, is_users in parts
    ]
    expected = _tokenize_whole(tokenizer, harmless)
    if (
        _taken_for_special(tokenizer, parts, *apart)
        or _taken_for_special(tokenizer, harmless, *expected)
        or _tokenize_apart(tokenizer, harmless, *expected) != expected
    ):
        raise ValueError(
            f"the tokenizer takes the text {min(names)!r} for a special token; drop such samples by "
            "filter.exclude_pattern"
        )
    return apart


def _text_of(parts: Sequence[tuple[str, bool]]) -> str:
    return "".join(piece for piece, _ in parts)


def _without(text: str, names: set[str]) -> str:
    for name in names:
        text = text.replace(name, "x")
    return text


def _tokenize_whole(
    tokenizer: PreTrainedTokenizerBase, parts: Sequence[tuple[str, bool]]
) -> tuple[list[int], Offsets]:
    encoded = tokenizer(_text_of(parts), add_special_tokens=False, return_offsets_mapping=True)
    return list(encoded["input_ids"]), list(encoded["offset_mapping"])


def _tokenize_apart(
    tokenizer: PreTrainedTokenizerBase,
    parts: Sequence[tuple[str, bool]],
    ids: Sequence[int],
    offsets: Offsets,
) -> tuple[list[int], Offsets]:
    """Tokens of a text, what stands between special tokens of the template by itself, as text.

    That is what tokenizers do by themselves with the names of all special tokens.

    Args:
        ids: tokens of the whole text, in which the template's special tokens are found.
        offsets: their places.
    """
    text = _text_of(parts)
    backend = _without_special_tokens(tokenizer, frozenset(_special_tokens(tokenizer, parts)))
    apart_ids: list[int] = []
    apart_offsets: Offsets = []
    here = 0
    ends = [
        (token, a, b)
        for token, a, b, is_users in _find_special(tokenizer, parts, ids, offsets)
        if not is_users
    ]
    for token, a, b in [*ends, (-1, len(text), len(text))]:
        # Inside of a text some tokenizers put no blank before a stretch, at its beginning they do.
        separator = _SEPARATOR if here else ""
        encoded = backend.encode(separator + text[here:a], add_special_tokens=False)
        shift = here - len(separator)
        skipped = len(separator) > 0
        apart_ids += encoded.ids[skipped:]
        apart_offsets += [(start + shift, end + shift) for start, end in encoded.offsets[skipped:]]
        if token != -1:
            apart_ids.append(token)
            apart_offsets.append((a, b))
        here = b
    return apart_ids, apart_offsets


def _spans(parts: Sequence[tuple[str, bool]]) -> Iterator[tuple[tuple[int, int], bool]]:
    start = 0
    for piece, is_users in parts:
        yield (start, start + len(piece)), is_users
        start += len(piece)


def _taken_for_special(
    tokenizer: PreTrainedTokenizerBase,
    parts: Sequence[tuple[str, bool]],
    ids: Sequence[int],
    offsets: Offsets,
) -> Offsets:
    """Places of special tokens that are made of a user's text."""
    found = _find_special(tokenizer, parts, ids, offsets)
    return [(a, b) for _, a, b, is_users in found if is_users]


def _find_special(
    tokenizer: PreTrainedTokenizerBase,
    parts: Sequence[tuple[str, bool]],
    ids: Sequence[int],
    offsets: Offsets,
) -> Iterator[tuple[int, int, int, bool]]:
    """Special tokens of a text: id, start, end, and whether some of it is a user's."""
    special = _special_tokens(tokenizer, parts)
    text = _text_of(parts)
    users = [span for span, is_users in _spans(parts) if is_users]
    for token, (a, b) in zip(ids, offsets, strict=True):
        if token not in special or a == b:
            continue
        name = special[token]
        if text[a:b].strip() == name or not _stands_for_any(tokenizer, name):
            yield token, a, b, any(a < end and b > start for start, end in users)


def _stands_for_any(tokenizer: PreTrainedTokenizerBase, name: str) -> bool:
    """Whether a special token stands for characters that have no token: the unknown token, a byte."""
    return name == tokenizer.unk_token or _BYTE.fullmatch(name) is not None


def _special_tokens(
    tokenizer: PreTrainedTokenizerBase, parts: Sequence[tuple[str, bool]]
) -> Mapping[int, str]:
    """Id to name of all special tokens, and of others that were added and the template writes."""
    return _special_beside(tokenizer, "\n".join(piece for piece, is_users in parts if not is_users))


@lru_cache(maxsize=32)
def _special_beside(tokenizer: PreTrainedTokenizerBase, template: str) -> Mapping[int, str]:
    return {
        token: added.content
        for token, added in tokenizer.added_tokens_decoder.items()
        if added.special or (added.content.strip() and added.content in template)
    }


@lru_cache(maxsize=8)
def _without_special_tokens(
    tokenizer: PreTrainedTokenizerBase, special: frozenset[int]
) -> Tokenizer:
    """The same tokenizer, which takes the names of some added tokens for text."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    for added in description["added_tokens"]:
        added["special"] = added["special"] or added["id"] in special
    backend = Tokenizer.from_str(json.dumps(description))
    backend.encode_special_tokens = True
    backend.add_tokens([AddedToken(_SEPARATOR, normalized=False)])
    backend.no_truncation()
    backend.no_padding()
    return backend


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
        text=_text_of(answered),
        prompt_ids=prompt_ids,
        prompt_offsets=offsets,
        response_ids=both[n:],
        response_offsets=both_offsets[n:],
        trained_ids=trained[n:],
    )


def locate_players(
    offsets: Sequence[tuple[int, int]], words: Sequence[Word], shift: int, sample_id: str
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
    words: Sequence[Word],
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
    end = len(pair.response_ids) if target_tokens == "all" else first + target_tokens
    if pair.trained_ids[:end] != pair.response_ids[:end]:
        raise ValueError(
            f"sample {sample_id}: the tokenizer joins the response {target!r} to its end "
            f"{frame.response_suffix!r}; set the model's `template: plain`"
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
    pair: EncodedPair, owner: Sequence[int], words: Sequence[Word], shift: int
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
            raise ValueError(f"mask_token {token!r} is not in the tokenizer's vocabulary")
        return vocabulary[token]
    for token_id in (tokenizer.unk_token_id, tokenizer.pad_token_id):
        if token_id is not None:
            return int(token_id)
    raise ValueError(
        "the tokenizer has neither an unknown nor a padding token; set the model's `mask_token`"
    )
