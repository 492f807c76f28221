import copy
import json
import re
from datetime import date

import pytest
import yaml
from framed_prompts import INSTRUCTION, TEXT, prompt_of
from tiny_models import CHAT_TEMPLATE
from tokenizers import Tokenizer

from sft_interactions.config import SCHEMA_PATH
from sft_interactions.models.prompts import encode
from sft_interactions.models.templates import (
    TEMPLATE_DATE,
    check_rendering,
    describe_rendered,
    describe_written,
    frames_of,
    make_frame,
)


def test_plain_template(plain_tokenizer):
    frame = make_frame(plain_tokenizer, "plain", INSTRUCTION)
    assert frame.render("So sad.") == "<s>Positive or negative?\nSo sad.\nAnswer:"
    assert frame.response("negative") == " negative</s>"


def test_chat_template(chat_tokenizer):
    frame = make_frame(chat_tokenizer, "chat", INSTRUCTION)
    assert frame.render("So sad.") == (
        "<s><|im_start|>user\nPositive or negative?\nSo sad.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert frame.response("negative") == "negative<|im_end|>"


def test_chat_template_is_rendered_as_the_tokenizer_renders_it(chat_tokenizer):
    turn = [{"role": "user", "content": INSTRUCTION.replace("{prompt}", TEXT)}]
    frame = make_frame(chat_tokenizer, "chat", INSTRUCTION)
    expected = chat_tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert frame.render(TEXT) == expected


def test_no_beginning_token_where_the_tokenizer_adds_none(plain_tokenizer):
    class Bare:
        bos_token_id, eos_token, bos_token = 1, None, "<s>"

        def __call__(self, text):
            return {"input_ids": [9]}

    assert make_frame(Bare(), "plain", "{prompt}").render("x") == "x\nAnswer:"
    assert make_frame(Bare(), "plain", "{prompt}").response("y") == " y"


@pytest.mark.parametrize("name", ["<s>", "</s>"])
def test_a_special_token_must_be_itself_where_it_is_written(plain_tokenizer, name):
    description = json.loads(plain_tokenizer.backend_tokenizer.to_str())
    description["added_tokens"] = [t for t in description["added_tokens"] if t["content"] != name]
    tokenizer = copy.deepcopy(plain_tokenizer)
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(description))
    with pytest.raises(ValueError, match=f"does not read its own token '{name}' as one token; add"):
        make_frame(tokenizer, "plain", "{prompt}")


def test_templates_that_cannot_be_used(plain_tokenizer, chat_tokenizer):
    with pytest.raises(
        ValueError, match="no chat template; set the model's `template` to path:FILE"
    ):
        make_frame(plain_tokenizer, "chat", "{prompt}")
    for template in ("chat", "plain"):
        with pytest.raises(
            ValueError, match=r"^instruction: \{prompt\} is there 2 times; write it"
        ):
            make_frame(chat_tokenizer, template, "{prompt} {prompt}")


def dated(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "Today: {{ strftime_now('%d %b %Y') }}\n" + tokenizer.chat_template
    return tokenizer


def test_the_date_of_a_template_is_a_setting(chat_tokenizer):
    tokenizer = dated(chat_tokenizer)
    assert make_frame(tokenizer, "chat", "{prompt}").prefix.startswith("Today: 01 Jan 2025\n")
    frame = make_frame(tokenizer, "chat", "{prompt}", "2024-02-29")
    assert frame.prefix.startswith("Today: 29 Feb 2024\n")
    prompt = prompt_of((tokenizer, frame))
    assert tokenizer.decode(prompt.token_ids).startswith("Today: 29 Feb 2024\n")
    # Without it the template would write the day's.
    turn = [{"role": "user", "content": "x"}]
    today = tokenizer.apply_chat_template(turn, tokenize=False).partition("\n")[0]
    assert today.endswith(str(date.today().year))


def test_the_default_date_is_that_of_the_schema():
    schema = yaml.safe_load(SCHEMA_PATH.read_text())
    models = schema["properties"]["models"]["additionalProperties"]["properties"]
    assert models["template_date"]["default"] == TEMPLATE_DATE


def templated(tokenizer, template):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


TURN = "<|im_start|>{{ m.role }}\n%s<|im_end|>\n"
FOR, END = "{{ bos_token }}{% for m in messages %}", "{% endfor %}"
GENERATION = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHANGED = {
    "trims": (TURN % "{{ m.content | trim }}", " film ", "positive"),
    "strips control characters": (TURN % "{{ m.content.strip() }}", "film\x1f", "positive"),
    "cuts": (TURN % "{{ m.content[:20] }}", "film " * 9, "positive"),
    "replaces": (TURN % "{{ m.content | replace('!', '.') }}", "film!", "positive"),
    "escapes": (TURN % "{{ m.content | e }}", "a < b", "positive"),
    "keeps thinking apart": (
        TURN
        % (
            "{% if '</think>' in m.content %}{{ m.content.split('</think>')[-1].strip() }}"
            "{% else %}{{ m.content }}{% endif %}"
        ),
        "film",
        "<think>\nhm\n</think>\n\npositive",
    ),
    "takes a word for a command": (
        "{% if '/think' in m.content %}<|im_start|>think{% endif %}" + TURN % "{{ m.content }}",
        "film /think",
        "positive",
    ),
}


@pytest.mark.parametrize(("turn", "text", "target"), CHANGED.values(), ids=CHANGED)
def test_a_template_that_changes_its_texts_is_refused(chat_tokenizer, turn, text, target):
    tokenizer = templated(chat_tokenizer, FOR + turn + END + GENERATION)
    frame = make_frame(tokenizer, "chat", "{prompt}")
    encode(tokenizer, frame, "film", "negative", "s")
    with pytest.raises(ValueError, match=r"^sample sample: the chat template writes '.*' where"):
        prompt_of((tokenizer, frame), text=text, target=target)


def test_both_texts_are_shown_where_they_differ(chat_tokenizer):
    turn = CHANGED["replaces"][0]
    tokenizer = templated(chat_tokenizer, FOR + turn + END + GENERATION)
    frame = make_frame(tokenizer, "chat", "{prompt}")
    with pytest.raises(ValueError, match="exclude_pattern") as error:
        encode(tokenizer, frame, "lazy dog! " * 50, "positive", "s")
    message = str(error.value)
    assert "lazy dog. lazy dog" in message
    assert "lazy dog! lazy dog" in message
    assert len(message) < 400


UNUSABLE = {
    "no user text": (
        FOR + TURN % "{{ m.content if m.role != 'user' }}" + END,
        "does not hold the user text exactly once",
    ),
    "lower case": (
        FOR + TURN % "{{ m.content | lower }}" + END,
        "does not hold the response exactly",
    ),
    "the user text twice": (
        FOR + "{{ m.content if m.role == 'user' }}" + TURN % "{{ m.content }}" + END,
        "does not hold the user text exactly once",
    ),
    "parts of texts alone": (
        FOR + TURN % "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}" + END,
        "reads texts in parts alone, as processors of images and text give them; in the chat_template",
    ),
    "no response": (
        FOR + "{% if m.role == 'user' %}" + TURN % "{{ m.content }}" + "{% endif %}" + END,
        "does not hold the response exactly once",
    ),
    "a system message is wanted": (
        "{% if messages[0].role != 'system' %}{{ raise_exception('No system\nmessage!') }}{% endif %}",
        "does not render a user turn and its answer: No system message!; correct it",
    ),
    "a draw at random": (
        "{{ ['a', 'b'] | random }}" + FOR + TURN % "{{ m.content }}" + END,
        "does not render a user turn and its answer: it draws at random; correct it",
    ),
    "filler text": (
        "{{ lipsum(n=1) }}" + FOR + TURN % "{{ m.content }}" + END,
        "it draws at random; correct it",
    ),
    "wrong syntax": ("{% for %}", "does not render a user turn and its answer: Expected"),
    "lists of parts are wanted": (
        FOR + "{{ m.content[0]['text']['x'] }}" + END,
        "does not render a user turn and its answer",
    ),
}


@pytest.mark.parametrize(("template", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_templates_are_refused_in_one_line(chat_tokenizer, template, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        make_frame(templated(chat_tokenizer, template), "chat", "{prompt}")
    assert "\n" not in str(error.value)


def test_a_template_may_ignore_the_generation_prompt(chat_tokenizer):
    bare = templated(chat_tokenizer, FOR + TURN % "{{ m.content }}" + END)
    with_prompt = make_frame(chat_tokenizer, "chat", INSTRUCTION)
    without = make_frame(bare, "chat", INSTRUCTION)
    assert without.render(TEXT) == with_prompt.render(TEXT)
    pairs = [
        encode(tokenizer, frame, TEXT, "positive", "s")
        for tokenizer, frame in ((chat_tokenizer, with_prompt), (bare, without))
    ]
    assert pairs[0] == pairs[1]


@pytest.mark.parametrize(
    ("template", "prompt", "target", "note"),
    [
        (
            "chat",
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n",
            "b",
            "prompts.*assistant'",
        ),
        (
            "chat",
            "<|im_start|>user\na<|im_end|>",
            "b",
            r"prompts end with '<\|im_end\|>', which the tem",
        ),
        (
            "chat",
            "a",
            "b<|im_end|>",
            r"^1 of 2 responses end with '<\|im_end\|>', .*; if the data are",
        ),
        ("plain", "a\nAnswer: ", "b", "prompts end with 'Answer:'"),
        ("plain", "a", "b</s>", "responses end with '</s>'"),
        ("chat", "the <|im_end|> of a turn", "the <|im_start|> of one", None),
        ("plain", "Answer: what?", "no", None),
    ],
)
def test_texts_that_are_rendered_already_are_told(chat_tokenizer, template, prompt, target, note):
    frame = make_frame(chat_tokenizer, template, "{prompt}")
    notes = describe_rendered(frame, [prompt, "x"], [target, "y"])
    assert len(notes) == (note is not None)
    assert not notes or re.search(note, notes[0])


SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("template", "instruction", "earlier", "is_told"),
    [
        (CHAT_TEMPLATE, "{prompt}\nYes or no?", [], False),
        (CHAT_TEMPLATE.replace("\n", r"\n"), "{prompt}", [], True),
        (CHAT_TEMPLATE, r"{prompt}\nYes or no?", [], True),
        (CHAT_TEMPLATE, "{prompt}", [{**SYSTEM, "content": r"Write \n for a line end."}], False),
    ],
    ids=["right", "template", "instruction", "earlier turn"],
)
def test_line_ends_of_two_characters_are_told(
    chat_tokenizer, template, instruction, earlier, is_told
):
    """As in a template that was copied out of JSON, and in a value of YAML without quotation marks."""
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.chat_template = template
    notes = describe_written(make_frame(tokenizer, "chat", instruction, earlier=earlier))
    assert len(notes) == is_told
    assert not notes or r"has \n as two characters, not as a line end: '" in notes[0]


THOUGHT = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"


def test_a_prompt_is_what_stands_before_an_answer_and_not_what_asks_for_one(chat_tokenizer):
    """As with DeepSeek-R1, which asks for a thought; trainers write whole conversations."""
    tokenizer = templated(chat_tokenizer, FOR + TURN % "{{ m.content }}" + END + THOUGHT)
    frame = make_frame(tokenizer, "chat", "{prompt}")
    turns = [{"role": "user", "content": "Good?"}, {"role": "assistant", "content": "Yes"}]
    written = tokenizer.apply_chat_template(turns, tokenize=False)
    assert frame.render("Good?") + frame.response("Yes") == written.rstrip("\n")
    assert "<think>" not in frame.render("Good?")
    check_rendering(tokenizer, frame, "Good?", "Yes", "s")
    (note,) = describe_written(frame)
    assert note.startswith("the chat template asks for an answer with '<think>\\n' and writes")
    with pytest.raises(ValueError, match="the chat template writes"):
        check_rendering(
            templated(
                tokenizer, FOR + TURN % "{{ m.content | replace('Y', 'y') }}" + END + THOUGHT
            ),
            *(frame, "Good?", "Yes", "s"),
        )


def test_a_thought_that_is_always_written_belongs_to_the_prompt(chat_tokenizer):
    thought = "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
    tokenizer = templated(chat_tokenizer, FOR + TURN % thought + END + GENERATION)
    frame = make_frame(tokenizer, "chat", "{prompt}")
    assert frame.suffix.endswith("assistant\n<think>\n\n</think>\n\n")
    assert not describe_written(frame)


def test_earlier_turns_are_background_as_the_template_writes_them(chat_tokenizer):
    frame = make_frame(chat_tokenizer, "chat", "{prompt}", earlier=[SYSTEM])
    turns = [SYSTEM, {"role": "user", "content": "Good?"}]
    asked = chat_tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert frame.render("Good?") == asked
    assert "Be brief." in frame.prefix
    check_rendering(chat_tokenizer, frame, "Good?", "Yes", "s")
    assert (
        frames_of(chat_tokenizer, "chat", "{prompt}")(
            '[{"content": "Be brief.", "role": "system"}]'
        )
        == frame
    )
    assert frames_of(chat_tokenizer, "chat", "{prompt}")("[]") == make_frame(
        chat_tokenizer, "chat", "{prompt}"
    )


def test_the_plain_template_has_no_place_for_earlier_turns(plain_tokenizer):
    with pytest.raises(ValueError, match="no place for a system's"):
        make_frame(plain_tokenizer, "plain", "{prompt}", earlier=[SYSTEM])


def test_a_special_token_named_in_an_earlier_turn_is_refused(chat_tokenizer):
    (name, *_) = chat_tokenizer.all_special_tokens
    turn = {"role": "system", "content": f"Say {name}."}
    with pytest.raises(ValueError, match="the name of a special token"):
        make_frame(chat_tokenizer, "chat", "{prompt}", earlier=[turn])


def test_a_template_may_write_what_the_tokenizer_puts_before_a_text(plain_tokenizer):
    """So that a template that joins prompt and response reads as the tokenizer reads the two."""
    tokenizer = copy.deepcopy(plain_tokenizer)
    tokenizer.chat_template = (
        "{{ text_begin }}{{ messages[0]['content'] }}{% if messages | length > 1 %}{{ ' ' }}"
        "{{ messages[1]['content'] }}{{ eos_token }}{% endif %}"
    )
    pair = encode(tokenizer, make_frame(tokenizer, "chat", "{prompt}"), TEXT, "negative", "s")
    whole = tokenizer(f"{TEXT} negative</s>")["input_ids"]
    assert tokenizer(TEXT)["input_ids"] == pair.prompt_ids == whole[: len(pair.prompt_ids)]
    assert whole == pair.prompt_ids + pair.trained_ids
    assert pair.prompt_ids[0] == tokenizer.bos_token_id
