"""Chat templates: the text around a prompt and its response, and whether a template keeps to it.

Imports transformers only.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import cache
from typing import Any, NoReturn
from unittest.mock import patch

import jinja2
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

# Stand for the prompt and the response while a template is rendered.
_PROMPT, _RESPONSE = "PROMPTGOESHERE", "RESPONSEGOESHERE"
PLAIN_SUFFIX = "\nAnswer:"
TEMPLATE_DATE = "2025-01-01"  # the default of the config key template_date
_SHOWN = 70  # characters of a text in a message
_MEND = (
    "set the model's `template` to path:FILE, the template of the training in Jinja, or to plain if the "
    "model is trained here"
)
# What a turn says: a text, or its parts as processors of images and text give them.
Content = str | list[dict[str, str]]


@dataclass(frozen=True)
class Turns:
    """What a chat template is asked to render.

    Attributes:
        instruction: the user text, with ``{prompt}`` where the prompt stands.
        date: today, for templates that write it; YYYY-MM-DD.
        end: what the template writes after a response, but for line breaks.
        earlier: the turns before that of the user, each with ``role`` and ``content``.
        asking: what it writes to ask for an answer, from the first character on that it does not write
            before one; empty where it goes on from there with the answer.
    """

    instruction: str
    date: str
    end: str
    earlier: tuple[Mapping[str, str], ...] = ()
    asking: str = ""


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


def make_frame(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    instruction: str,
    today: str = TEMPLATE_DATE,
    earlier: Sequence[Mapping[str, str]] = (),
) -> Frame:
    """Frame of a tokenizer's own chat template (``chat``) or of the plain template (``plain``).

    The plain template is the tokenizer's beginning-of-sequence token (where it has one), the user
    text, a line break and ``Answer:``; the response follows after a space.

    Args:
        instruction: the user text, with ``{prompt}`` where the prompt stands.
        today: the date that a chat template writes as today's, YYYY-MM-DD.
        earlier: turns before that of the user, each with ``role`` and ``content``; background too.

    Raises:
        ValueError: another template; ``chat`` for a tokenizer without a chat template, or a template that
            stops, or that does not keep the texts of user and response as they are; or earlier turns that
            ``plain`` has no place for, or that hold the name of a special token.
    """
    if template not in ("chat", "plain"):
        raise ValueError(f"template is {template!r}; give chat or plain")
    if instruction.count("{prompt}") != 1:
        raise ValueError(
            f"instruction: {{prompt}} is there {instruction.count('{prompt}')} times; write it once"
        )
    user = instruction.replace("{prompt}", _PROMPT)
    turns = None
    _check_earlier(tokenizer, template, earlier)
    if template == "plain":
        rendered = _bos(tokenizer) + user + PLAIN_SUFFIX
        response_prefix, response_suffix = " ", _eos(tokenizer)
    else:
        rendered, response_prefix, end, asking = _render_chat(tokenizer, user, today, earlier)
        response_suffix = end or _eos(tokenizer)
        turns = Turns(instruction, today, end, tuple(earlier), asking)
    if rendered.count(_PROMPT) != 1:
        raise ValueError(
            f"the chat template does not hold the user text exactly once, as it stands; {_MEND}"
        )
    prefix, _, suffix = rendered.partition(_PROMPT)
    return Frame(prefix, suffix, response_prefix, response_suffix, turns)


def frames_of(
    tokenizer: PreTrainedTokenizerBase, template: str, instruction: str, today: str = TEMPLATE_DATE
) -> Callable[[str], Frame]:
    """Function from the turns before a prompt, as JSON, to the frame of the prompt.

    Args:
        tokenizer: as of :func:`make_frame`.
        template: as there.
        instruction: as there.
        today: as there.
    """

    @cache
    def frame_of(earlier: str) -> Frame:
        return make_frame(tokenizer, template, instruction, today, json.loads(earlier))

    return frame_of


def _check_earlier(
    tokenizer: PreTrainedTokenizerBase, template: str, earlier: Sequence[Mapping[str, str]]
) -> None:
    if not earlier:
        return
    if template == "plain":
        raise ValueError(
            "the plain template has no place for a system's or other earlier turns; drop `system` and "
            "`turns` of the data set, or give the model a chat template"
        )
    names = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    for turn in earlier:
        for name in names:
            if name and name in turn["content"]:
                raise ValueError(
                    f"an earlier turn holds {name!r}, the name of a special token, which it would be taken "
                    f"for: {turn['content'][:_SHOWN]!r}; drop the row"
                )


def describe_rendered(frame: Frame, prompts: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Notes on texts that end as the template ends them already, so that it stands there twice.

    Args:
        prompts: user texts.
        targets: their responses.
    """
    ends = {frame.suffix.strip().rpartition("\n")[2], frame.response_suffix.strip()} - {""}
    notes = []
    for name, texts in (("prompts", prompts), ("responses", targets)):
        for end in sorted(ends):
            n_ending = sum(text.rstrip().endswith(end) for text in texts)
            if n_ending:
                notes.append(
                    f"{n_ending} of {len(texts)} {name} end with {end!r}, which the template writes "
                    "too, and are text as they stand; if the data are rendered already, name columns "
                    "that are not"
                )
    return notes


def describe_written(frame: Frame) -> list[str]:
    """Notes on what a template writes that may surprise.

    It may ask for an answer otherwise than it writes one, such as for a thought; then a prompt is what
    stands before an answer, as in training. It may have line ends of two characters, as one that was copied
    out of JSON; earlier turns may have such characters, as code has them.
    """
    earlier = frame.turns.earlier if frame.turns else ()
    asking = frame.turns.asking if frame.turns else ""
    notes = []
    if asking:
        notes.append(
            f"the chat template asks for an answer with {asking[:_SHOWN]!r} and writes answers without it: "
            "prompts are read as it writes them with an answer, as trainers do"
        )
    if any(r"\n" in turn["content"] for turn in earlier):
        return notes
    for text in (frame.prefix, frame.suffix, frame.response_suffix):
        if r"\n" in text:
            shown = text[max(0, text.index(r"\n") - _SHOWN // 2) :][:_SHOWN]
            notes.append(
                rf"the text around a prompt has \n as two characters, not as a line end: {shown!r}; write "
                "instruction between double quotation marks, and a chat template as its JSON means it "
                "(jq -r), if a line end is meant"
            )
            break
    return notes


def _render_chat(
    tokenizer: PreTrainedTokenizerBase,
    user: str,
    today: str,
    earlier: Sequence[Mapping[str, str]] = (),
) -> tuple[str, str, str, str]:
    """A user turn by the chat template, up to the response; what stands before and after that; `asking`."""
    if not tokenizer.chat_template:
        raise ValueError(f"the tokenizer has no chat template; {_MEND}")
    asked, answered = _render_turns(tokenizer, user, _RESPONSE, today, earlier)
    if answered.count(_RESPONSE) != 1 and _reads_parts_alone(tokenizer, user, today):
        raise ValueError(
            "the chat template reads texts in parts alone, as processors of images and text give them; in "
            "the chat_template of the model's folder write m.content for the loop over its parts, or "
            f"{_MEND}"
        )
    if answered.count(_RESPONSE) != 1:
        raise ValueError(
            f"the chat template does not hold the response exactly once, as it stands; {_MEND}"
        )
    before, _, after = answered.partition(_RESPONSE)
    asking = asked[_first_difference(asked, before) :]
    # Blanks at the end of what asks for an answer belong to it.
    written = before if asking else before.removeprefix(asked)
    blanks = written[len(written.rstrip(" ")) :]
    return before.removesuffix(blanks), blanks, after.rstrip("\n"), asking


def _reads_parts_alone(tokenizer: PreTrainedTokenizerBase, user: str, today: str) -> bool:
    """Whether a template that does not hold texts as they are has them if they are given as parts."""
    question, answer = ([{"type": "text", "text": text}] for text in (user, _RESPONSE))
    try:
        _, answered = _render_turns(tokenizer, question, answer, today)
    except ValueError:
        return False
    return answered.count(_RESPONSE) == 1


def _render_turns(
    tokenizer: PreTrainedTokenizerBase,
    user: Content,
    response: Content,
    today: str,
    earlier: Sequence[Mapping[str, str]] = (),
) -> tuple[str, str]:
    """A user turn that asks for an answer, and the turn with its answer, by the chat template.

    The template may write ``text_begin``: the token that the tokenizer puts before a text by itself.
    """
    turns: Any = [*map(dict, earlier), {"role": "user", "content": user}]
    answer: Any = {"role": "assistant", "content": response}
    try:
        with _on_date(today), _without_chance():
            begin = _bos(tokenizer) if "text_begin" in str(tokenizer.chat_template) else ""
            asked = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, text_begin=begin
            )
            answered = tokenizer.apply_chat_template(
                [*turns, answer], tokenize=False, text_begin=begin
            )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise ValueError(
            f"the chat template does not render a user turn and its answer: {_on_one_line(error)}; "
            f"correct it in the model's folder, or {_MEND}"
        ) from error
    return str(asked), str(answered)


@contextmanager
def _on_date(today: str) -> Iterator[None]:
    """Let chat templates find another date than the day's, which a study must not depend on."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # templates give no zone
            return datetime.combine(date.fromisoformat(today), time())

    # What it is called there is transformers' own affair: tests/unit/models/test_templates.py tells when an
    # upgrade changes that. Functions are not handed on to templates.
    with patch.object(chat_template_utils, "datetime", Clock):
        yield


@contextmanager
def _without_chance() -> Iterator[None]:
    """Stop templates that draw at random (``random``, ``lipsum``): a study must not depend on chance."""

    def refuse(_: object) -> NoReturn:
        raise jinja2.TemplateError("it draws at random")

    with patch.object(random, "choice", refuse), patch.object(jinja2.utils, "choice", refuse):
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
    asked, answered = _render_turns(tokenizer, user, target, frame.turns.date, frame.turns.earlier)
    wanted = frame.render(text) + frame.response_prefix + target + frame.turns.end
    if not frame.turns.asking and not frame.render(text).startswith(asked):
        raise ValueError(_difference(asked, frame.render(text), sample_id))
    if answered.rstrip("\n") != wanted.rstrip("\n"):
        raise ValueError(_difference(answered, wanted, sample_id))


def _difference(own: str, wanted: str, sample_id: str) -> str:
    place = _first_difference(own, wanted)
    start = max(0, place - _SHOWN // 2)
    shown = [text[start : start + _SHOWN] for text in (own, wanted)]
    return (
        f"sample {sample_id}: the chat template writes {shown[0]!r} where the prompt and its response "
        f"make {shown[1]!r}; drop such samples by filter.exclude_pattern, or {_MEND}"
    )


def _first_difference(one: str, other: str) -> int:
    """Where two texts differ first, or the length of the shorter one."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
