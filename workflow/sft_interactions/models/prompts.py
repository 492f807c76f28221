"""Prompts as the model reads them: chat template, tokens, and which token belongs to which player.

Imports transformers only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from sft_interactions.data.words import Word

# Stand for the prompt and the response while a template is rendered.
_PROMPT, _RESPONSE = "PROMPTGOESHERE", "RESPONSEGOESHERE"
PLAIN_SUFFIX = "\nAnswer:"


@dataclass(frozen=True)
class Frame:
    """The text around the user text and around the response; background that is never masked.

    Attributes:
        response_prefix: blanks between ``suffix`` and the response, which some tokenizers join to the
            response's first token.
    """

    prefix: str
    suffix: str
    response_prefix: str
    response_suffix: str

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
class TokenizedPrompt:
    """One analysed prompt.

    Attributes:
        token_ids: tokens of ``rendered``, up to and without the first target token.
        player_of_token: player that each token belongs to, -1 for background.
        target_token_ids: the scored tokens of the response.
    """

    sample_id: str
    rendered: str
    token_ids: list[int]
    player_of_token: list[int]
    target_token_ids: list[int]
    players: list[Player]


def make_frame(tokenizer: PreTrainedTokenizerBase, template: str, instruction: str) -> Frame:
    """Frame of a tokenizer's own chat template (``chat``) or of the plain template (``plain``).

    The plain template is the tokenizer's beginning-of-sequence token (where it has one), the user
    text, a line break and ``Answer:``; the response follows after a space.

    Args:
        instruction: the user text, with ``{prompt}`` where the prompt stands.

    Raises:
        ValueError: ``chat`` for a tokenizer without a chat template, or a template that does not
            keep the user text as it is.
    """
    user = instruction.replace("{prompt}", _PROMPT)
    if template == "plain":
        rendered = _bos(tokenizer) + user + PLAIN_SUFFIX
        response_prefix, response_suffix = " ", tokenizer.eos_token or ""
    else:
        rendered, response_prefix, response_suffix = _render_chat(tokenizer, user)
    if rendered.count(_PROMPT) != 1:
        raise ValueError("the chat template does not hold the user text exactly once")
    prefix, _, suffix = rendered.partition(_PROMPT)
    return Frame(prefix, suffix, response_prefix, response_suffix)


def _render_chat(tokenizer: PreTrainedTokenizerBase, user: str) -> tuple[str, str, str]:
    """A user turn by the chat template, up to the response; and what stands before and after that."""
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template; set the model's `template: plain`")
    turn = [{"role": "user", "content": user}]
    asked = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    turn.append({"role": "assistant", "content": _RESPONSE})
    answered = str(tokenizer.apply_chat_template(turn, tokenize=False))
    if not answered.startswith(asked):
        raise ValueError(
            "the chat template renders a turn with its answer otherwise than the turn alone; set the "
            "model's `template: plain`"
        )
    between, _, after = answered.removeprefix(asked).partition(_RESPONSE)
    before_blanks = between.rstrip(" ")
    blanks = between.removeprefix(before_blanks)
    return asked + before_blanks, blanks, after.rstrip("\n") or tokenizer.eos_token or ""


def _bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """The beginning-of-sequence token, if the tokenizer puts it before a text by itself."""
    bos_id = tokenizer.bos_token_id
    if bos_id is None or tokenizer("a")["input_ids"][:1] != [bos_id]:
        return ""
    return str(tokenizer.bos_token)


def encode(
    tokenizer: PreTrainedTokenizerBase, rendered: str, response: str
) -> tuple[list[int], list[int]]:
    """Token ids of a rendered prompt and of the response to it; both hold special tokens literally.

    The response is tokenized where it stands: alone, some tokenizers would put a blank before it.

    Raises:
        ValueError: the tokenizer joins the end of the prompt to the response.
    """
    prompt_ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    both = tokenizer(rendered + response, add_special_tokens=False)["input_ids"]
    if both[: len(prompt_ids)] != prompt_ids:
        raise ValueError(
            f"the tokenizer joins the end of the prompt {rendered[-20:]!r} to the response "
            f"{response[:20]!r}; end `instruction` or the chat template with a line break"
        )
    return prompt_ids, both[len(prompt_ids) :]


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


def text_offsets(
    tokenizer: PreTrainedTokenizerBase, frame: Frame, text: str
) -> list[tuple[int, int]]:
    """(start, end) of every token of the rendered prompt, in characters of the user text ``text``."""
    encoded = tokenizer(frame.render(text), add_special_tokens=False, return_offsets_mapping=True)
    shift = len(frame.prefix)
    return [(start - shift, end - shift) for start, end in encoded["offset_mapping"]]


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

    Args:
        words: players, placed in characters of ``text``.
        target_tokens: how many tokens of the response are scored, or ``"all"`` (without the
            end-of-turn token).

    Raises:
        ValueError: see :func:`locate_players` and :func:`encode`; or the target has no token.
    """
    rendered = frame.render(text)
    encoded = tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    owner = locate_players(encoded["offset_mapping"], words, len(frame.prefix), sample_id)
    _, target_ids = encode(tokenizer, rendered, frame.response_prefix + target)
    if target_tokens != "all":
        target_ids = target_ids[:target_tokens]
    if not target_ids:
        raise ValueError(f"sample {sample_id}: the target {target!r} has no token")
    shift = len(frame.prefix)
    return TokenizedPrompt(
        sample_id=sample_id,
        rendered=rendered,
        token_ids=list(encoded["input_ids"]),
        player_of_token=owner,
        target_token_ids=target_ids,
        players=[
            Player(word.text, word.start + shift, word.end + shift, owner.count(i))
            for i, word in enumerate(words)
        ],
    )


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
