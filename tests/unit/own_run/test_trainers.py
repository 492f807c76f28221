import json
from argparse import Namespace

import pytest
import torch
from bad_input import refused
from trainer_folders import give_tokenizer, write_checkpoint

from sft_interactions import config_file
from sft_interactions.own_run.study import prepare
from sft_interactions.own_run.trainers import find_trainer, read_tags

TEXT = {"prompt": "q", "completion": "a"}
TURNS = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
ALPACA = {"instruction": "i", "input": "q", "output": "a"}
# As LLaMA-Factory 0.9.5 writes its templates into a tokenizer that has none.
LOOP = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}"
    "{% set loop_messages = messages %}{% endif %}"
    "{% if system_message is defined %}{{ SYSTEM }}{% endif %}"
    "{% for message in loop_messages %}{% set content = message['content'] %}"
    "{% if message['role'] == 'user' %}{{ USER }}"
    "{% elif message['role'] == 'assistant' %}{{ ANSWER }}{% endif %}{% endfor %}"
)


def written(system, user, answer, start=""):
    pieces = {"SYSTEM": system, "USER": user, "ANSWER": answer}
    for name, text in pieces.items():
        start_of_loop = f"{{{{ {name} }}}}"
        pieces[name] = (start_of_loop, f"{{{{ {text} }}}}")
    template = LOOP
    for old, new in pieces.values():
        template = template.replace(old, new)
    return start + template


CHATML = (
    "'<|im_start|>system\n' + system_message + '<|im_end|>\n'",
    "'<|im_start|>user\n' + content + '<|im_end|>\n<|im_start|>assistant\n'",
    "content + '<|im_end|>\n'",
)
DEFAULT = written(
    "'System: ' + system_message + '</s>' + '\n'",
    "'Human: ' + content + '</s>' + '\nAssistant:'",
    "content + '</s>' + '\n'",
)
QWEN = written(
    *CHATML,
    start="{% set system_message = 'You are Qwen, created by Alibaba Cloud. You are a helpful "
    "assistant.' %}",
)
LIKE_DEFAULT = written("system_message", "'Human: ' + content + ' Assistant:'", "content")
ALPACA_BY_IT = written(
    "system_message", "'### Instruction:\n' + content + '\n\n### Response:\n'", "content"
)


@pytest.fixture
def folder(tmp_path):
    for step in (10, 20):
        write_checkpoint(tmp_path / "mine", step)
    return tmp_path


def make(folder, row, saved, **given):
    for checkpoint in sorted((folder / "mine").glob("checkpoint-*")):
        if saved is not None:
            give_tokenizer(checkpoint, saved)
    (folder / "heldout.jsonl").write_text(json.dumps(row) + "\n")
    brought = {"output": str(folder / "mine"), "heldout": str(folder / "heldout.jsonl"), **given}
    study = prepare(brought, folder / "config", may_write=True)
    content, _ = config_file.read([study.file])
    return content, study.told


def card(folder, *tags):
    lines = "\n".join(["---", "tags:", *(f"- {tag}" for tag in tags), "---", "# mine"])
    (folder / "README.md").write_text(lines + "\n")


def of_llama_factory(folder):
    (folder / "mine" / "trainer_log.jsonl").write_text('{"current_steps": 1}\n')


def test_the_trainer_is_told_by_its_log_or_its_model_cards(folder):
    output, checkpoint = folder / "mine", folder / "mine" / "checkpoint-10"
    assert find_trainer(output, read_tags(output, [checkpoint])) is None
    card(output, "generated_from_trainer")
    assert find_trainer(output, read_tags(output, [checkpoint])) is None
    card(output, "trl", "sft")
    assert find_trainer(output, read_tags(output, [checkpoint])) == "TRL"
    card(checkpoint, "llama-factory", "lora")
    assert find_trainer(output, read_tags(output, [checkpoint])) == "LLaMA-Factory"
    card(checkpoint, "axolotl")
    assert find_trainer(output, read_tags(output, [checkpoint])) == "Axolotl"
    (output / "training_args.yaml").write_text("stage: sft\ntemplate: qwen\n")
    assert find_trainer(output, read_tags(output, [checkpoint])) == "LLaMA-Factory"
    (output / "training_args.yaml").unlink()
    of_llama_factory(folder)
    assert find_trainer(output, read_tags(output, [checkpoint])) == "LLaMA-Factory"


@pytest.mark.parametrize(("tag", "name"), [("trl", "TRL"), ("axolotl", "Axolotl")])
def test_rows_of_text_are_not_taken_for_conversations(folder, tag, name):
    """Both trainers save a chat template that they did not use for such rows."""
    card(folder / "mine", tag)
    with pytest.raises(ValueError, match=rf"^template: .* is of {name}, which .* add template="):
        make(folder, TEXT, "{{ messages }}")
    for template, value in (("chat", "chat"), ("concatenate", "path:")):
        content, _ = make(folder, TEXT, "{{ messages }}", template=template)
        assert content["models"]["base"]["template"].startswith(value)
    content, _ = make(folder, TURNS, "{{ messages }}")
    assert content["models"]["base"]["template"] == "chat"


ANSWERED = {
    "messages": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "r"},
        {"role": "assistant", "content": "b"},
    ]
}
THINKS = "{% set last_query_index = 0 %}{{ messages }}"


@pytest.mark.bad_input(of="command_line")
def test_earlier_answers_of_trl_may_be_written_by_a_template_that_is_not_saved(folder):
    """With assistant_only_loss it has one of its own, unless the model's marks answers itself."""
    make(folder, ANSWERED, THINKS)
    card(folder / "mine", "trl")
    with refused(r"^template: .* is of TRL, .* \(row 1 of heldout has one\) .* add template=FILE"):
        make(folder, ANSWERED, THINKS)
    make(folder, ANSWERED, THINKS, template="chat")
    make(folder, TURNS, THINKS)
    make(folder, ANSWERED, THINKS + "{%- generation %}{% endgeneration %}")
    make(folder, ANSWERED, "{{ messages }}")


@pytest.mark.parametrize(("is_set", "asks"), [(False, False), (True, True)])
def test_earlier_answers_of_trl_are_known_where_its_settings_are(folder, is_set, asks):
    make(folder, ANSWERED, THINKS)
    card(folder / "mine", "trl")
    settings = Namespace(assistant_only_loss=is_set)
    torch.save(settings, folder / "mine" / "training_args.bin")
    if asks:
        with pytest.raises(ValueError, match="is of TRL, which with assistant_only_loss"):
            make(folder, ANSWERED, THINKS)
    else:
        make(folder, ANSWERED, THINKS)


def test_tags_are_those_of_the_front_matter_alone(folder):
    output = folder / "mine"
    (output / "README.md").write_text("---\ntags:\n- trl\n---\n# Runs\n- dpo\n---\n- grpo\n")
    assert read_tags(output, []) == {"trl"}
    (output / "README.md").write_text("# Runs\n- dpo\n")
    assert read_tags(output, []) == set()


@pytest.mark.parametrize(
    "lines",
    [
        "tags:\n  - trl\n  - gkd",
        "tags: [trl, gkd]",
        "tags:\n- \"trl\"\n- 'gkd'",
        "tags:\n- TRL\n- GKD # of distillation",
        "datasets:\n- dpo\ntags: trl, gkd",
        "model: a: b\ntags:\n- trl\n- GKD",
        "license: 2020-13-45\ntags:\n- trl\n- gkd",
    ],
    ids=["indented", "in a line", "quoted", "capitals", "text", "no YAML", "no date"],
)
def test_tags_are_read_however_they_are_written(folder, lines):
    output = folder / "mine"
    (output / "README.md").write_text(f"---\n{lines}\n---\n# Runs\n")
    assert read_tags(output, []) == {"trl", "gkd"}
    assert find_trainer(output, read_tags(output, [])) == "TRL"


@pytest.mark.parametrize(
    "lines", ["tags:", "tags: {}", "tags: [1, [trl]]", "license: mit", "", "a"]
)
def test_a_model_card_without_tags_has_none(folder, lines):
    (folder / "mine" / "README.md").write_text(f"---\n{lines}\n---\n")
    assert read_tags(folder / "mine", []) == set()


def test_the_template_of_the_base_is_no_better_known(folder):
    """As where the tokenizer was removed from the checkpoints."""
    (folder / "base").mkdir()
    give_tokenizer(folder / "base")
    of_llama_factory(folder)
    with pytest.raises(ValueError, match="has the chat template that the model came with"):
        make(folder, TURNS, None, base=str(folder / "base"))


def test_of_other_trainers_it_is_told_how_rows_of_text_are_written(folder):
    _, told = make(folder, TEXT, "{{ messages }}")
    assert any("if the training joined prompt and response as they stand" in line for line in told)
    _, told = make(folder, TURNS, "{{ messages }}")
    assert not any("joined prompt and response" in line for line in told)


def test_of_other_trainers_how_columns_are_joined_is_told_to_be_a_guess(folder):
    content, told = make(folder, ALPACA, "{{ messages }}")
    assert content["datasets"]["heldout"]["separator"] == "\n\n"
    assert any("are joined by an empty line, which is a guess" in line for line in told)
    content, told = make(folder, TEXT, "{{ messages }}")
    assert "separator" not in content["datasets"]["heldout"]
    assert not any("a guess" in line for line in told)


def test_columns_that_are_not_read_are_told(folder):
    _, told = make(folder, {**TEXT, "id": 1, "two\nlines": "x"}, "{{ messages }}")
    assert f"the columns id, two lines of {folder / 'heldout.jsonl'} are not read" in told
    _, told = make(folder, {**TEXT, "id": 1}, "{{ messages }}")
    assert f"the column id of {folder / 'heldout.jsonl'} is not read" in told
    _, told = make(folder, TEXT, "{{ messages }}")
    assert not any("not read" in line for line in told)


@pytest.mark.parametrize("template", [DEFAULT, QWEN], ids=["default", "qwen"])
def test_a_template_that_llama_factory_wrote_is_used(folder, template):
    of_llama_factory(folder)
    content, _ = make(folder, ALPACA, template)
    assert content["models"]["base"]["template"] == "chat"
    # Which it does without writing its settings into the folder.
    assert content["datasets"]["heldout"]["separator"] == "\n"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages }}", "has the chat template that the model came with; add template=FILE"),
        (written(*CHATML), "may lack what it wrote besides, such as an empty thought; add"),
        (LIKE_DEFAULT, "may lack what it wrote besides"),
        (ALPACA_BY_IT, "its template alpaca, which tokenizes .* train with another template"),
    ],
    ids=["the model's", "qwen3 or chatml", "xuanyuan", "alpaca"],
)
def test_another_template_may_not_be_that_of_llama_factory(folder, template, message):
    of_llama_factory(folder)
    with pytest.raises(ValueError, match=message) as error:
        make(folder, TURNS, template)
    assert "\n" not in str(error.value)
    own = folder / "own.jinja"
    own.write_text(template)
    for given in (str(own), "chat"):
        content, _ = make(folder, TURNS, template, template=given)
        assert content["models"]["base"]["template"] in (f"path:{own}", "chat")


@pytest.mark.parametrize(
    "part",
    [
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]}},
        {"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
    ],
)
def test_llama_factory_tokenizes_prompt_and_response_apart(folder, part):
    of_llama_factory(folder)
    make(folder, TURNS, QWEN)
    for file in (folder / "mine").glob("*/tokenizer.json"):
        file.write_text(json.dumps({"model": {"vocab": {"a": 0}}, **part}))
    heldout = folder / "heldout.jsonl"
    brought = {"output": str(folder / "mine"), "heldout": str(heldout)}
    with pytest.raises(ValueError, match="puts a blank before each of them; add template=FILE"):
        prepare(brought, folder / "config", may_write=True)


@pytest.mark.parametrize(
    ("row", "given", "row_is_wrong"),
    [
        ({"prompt": "q ", "completion": "a"}, {}, True),
        ({"prompt": "\nq", "completion": "a"}, {}, True),
        ({"prompt": "q", "completion": " a"}, {}, True),
        ({"prompt": "q", "completion": "a\n"}, {}, False),
        ({"prompt": "q", "completion": " a"}, {"template": "concatenate"}, False),
        ({"prompt": " q", "completion": " a"}, {"template": "concatenate"}, True),
        ({**ALPACA, "input": "q "}, {}, True),
        ({**ALPACA, "input": " q"}, {}, True),
        ({"messages": [TURNS["messages"][0], {"role": "assistant", "content": " a"}]}, {}, True),
        ({"prompt": "q", "completion": " a"}, {"template": "plain"}, False),
    ],
)
def test_blanks_that_the_training_read_are_not_dropped(folder, row, given, row_is_wrong):
    if not row_is_wrong:
        make(folder, row, "{{ messages }}", **given)
        return
    with pytest.raises(ValueError, match=r"^heldout: .*: row 1: its .* with blanks, which"):
        make(folder, row, "{{ messages }}", **given)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("history", [["q", "a"]]),
        ("tools", '[{"name": "search"}]'),
        ("images", ["a.png"]),
        ("chat_template_kwargs", {"enable_thinking": False}),
    ],
)
def test_columns_that_trainers_put_into_a_prompt_are_refused(folder, column, cell):
    message = rf"^heldout: .*: row 1: the column {column} holds .*; leave such rows out, or drop"
    with pytest.raises(ValueError, match=message):
        make(folder, {**ALPACA, column: cell}, "{{ messages }}")
    for empty in (None, [], "", "[]"):
        make(folder, {**ALPACA, column: empty}, "{{ messages }}")
