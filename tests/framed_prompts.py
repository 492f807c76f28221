"""A prompt in the frame of a template."""

from sft_interactions.data.words import find_words
from sft_interactions.models.prompts import make_prompt

TEXT = "Wonderfulness, café lazy film! The lazy (dog) don't like unquestionably cold rain."
INSTRUCTION = "Positive or negative?\n{prompt}"


def prompt_of(framed, *, text=TEXT, words=None, target="positive", **options):
    """The prompt of a (tokenizer, frame); every word of ``text`` is a player by default."""
    words = find_words(text) if words is None else words
    return make_prompt(*framed, "sample", text, target, words, **options)
