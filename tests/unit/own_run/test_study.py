import json
import re

import pytest
from bad_input import refused
from trainer_folders import HISTORY, give_tokenizer, write_checkpoint

from sft_interactions import config_file
from sft_interactions.config import resolve
from sft_interactions.own_run.study import (
    has_written,
    inference_seconds,
    is_asked,
    prepare,
    what_next,
)

ROWS = [{"prompt": f"q {i}", "completion": f"a {i}"} for i in range(40)]


LOSSES = {10: 1.9, 20: 1.4, 30: 1.5, 40: 1.6, 50: 1.7, 60: 1.8}
EVALUATED = [*HISTORY, *({"step": step, "eval_loss": LOSSES[step]} for step in (30, 40, 50, 60))]


@pytest.fixture
def given(tmp_path):
    """What the command line gives, of a run whose tokenizer has a chat template."""
    output = tmp_path / "My Run"
    for step in (10, 20, 30, 40, 50, 60):
        give_tokenizer(write_checkpoint(output, step, history=EVALUATED))
    heldout = tmp_path / "heldout.jsonl"
    heldout.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return {"output": str(output), "heldout": str(heldout)}


def make(given, tmp_path, **changes):
    return prepare({**given, **changes}, tmp_path / "config", may_write=True)


def test_the_config_says_where_each_value_comes_from(given, tmp_path):
    study = make(given, tmp_path)
    assert study.file == tmp_path / "config" / "my_run.yaml"
    content, _ = config_file.read([study.file])
    output = given["output"]
    assert content == {
        "results": "results/my_run",
        "models": {
            "base": {
                "source": "hub:org/base@main",
                "tokenizer": f"path:{output}/checkpoint-10",
                "template": "chat",
            }
        },
        "datasets": {
            "heldout": {
                "source": f"path:{given['heldout']}",
                "prompt": "prompt",
                "target": "completion",
                "analysis": 16,
            }
        },
        "players": {"n": 8},
        "runs": {
            "base-my_run": {
                "dataset": "heldout",
                "label": "my_run",
                "validation_losses": {str(step): loss for step, loss in LOSSES.items()},
                "checkpoints": {
                    "0": "base",
                    **{str(n): f"{output}/checkpoint-{n}" for n in (10, 20, 30, 40, 50, 60)},
                },
            }
        },
    }
    lines = study.file.read_text().splitlines()
    values = [
        line for line in lines[2:] if ": " in line and "checkpoint-" not in line.partition("#")[0]
    ]
    assert all(
        "#" in line or "results" in line or "dataset: " in line or "label" in line
        for line in values
    )


def test_the_preview_is_a_part_of_it_in_a_folder_of_its_own(given, tmp_path):
    study = make(given, tmp_path)
    run = study.preview["runs"]["base-my_run"]
    assert list(run["checkpoints"]) == ["0", "20", "40", "60"]
    assert study.preview["datasets"]["heldout"]["analysis"] == 8
    assert study.preview["players"]["n"] == 6
    assert study.preview["results"] == "results/my_run/preview"
    assert study.skipped == [10, 30, 50]
    assert "loss_checkpoints" not in run  # the trainer has measured all of them
    told = what_next(study, 60, 3)
    for target in ("", "verdict "):
        assert f"    snakemake {target}--cores 3 --configfile {study.file}" in told
    # Twice the prompts, 7 checkpoints for 4, and (2**9 - 1) / 9 positions for (2**7 - 1) / 7.
    assert f"about {round(2 * 7 / 4 * (511 / 9) / (127 / 7))} minutes" in told
    assert "about 1.1 hours" in what_next(study, 360, 3)
    assert "held-out responses" not in told  # the losses are the trainer's


def test_the_preview_tells_that_more_losses_are_measured_later(given, tmp_path):
    told = what_next(make(given, tmp_path, losses="measured"), 60, 3)
    assert "the loss of up to 116 held-out responses, and the preview did of up to 32: more" in told


def test_a_run_is_asked_for_by_either_of_what_it_needs():
    assert is_asked({"output": "x"})
    assert is_asked({"heldout": "x"})
    assert not is_asked({"seed": 1})


def test_a_config_is_known_as_one_of_an_own_run_though_it_was_changed(given, tmp_path):
    study = make(given, tmp_path)
    other = tmp_path / "other.yaml"
    other.write_text("results: results/other\n")
    assert has_written([study.file])
    study.file.write_text(study.file.read_text().replace("n: 8", "n: 7"))
    assert has_written([other, study.file])
    assert not has_written([other, tmp_path / "none.yaml"])


def test_losses_that_the_trainer_has_not_are_measured_at_every_checkpoint(given, tmp_path):
    study = make(given, tmp_path, losses="measured")
    (run,) = study.content["runs"].values()
    assert "validation_losses" not in run
    assert study.content["datasets"]["heldout"]["test"] == {"at_most": 100}
    (run,) = study.preview["runs"].values()
    assert list(run["checkpoints"]) == ["0", "20", "40", "60"]
    assert {step: path.rpartition("/")[2] for step, path in run["loss_checkpoints"].items()} == {
        step: f"checkpoint-{step}" for step in ("10", "30", "50")
    }
    assert study.preview["datasets"]["heldout"]["test"] == {"at_most": 24}
    (told,) = [line for line in study.told if line.startswith("validation loss: ")]
    assert "measured here, as asked; eval_loss of the trainer is lowest at step 20, 1.400" in told


def test_losses_of_few_checkpoints_choose_none_by_themselves(given, tmp_path):
    """As with eval_steps of 30 and save_steps of 50."""
    output = tmp_path / "apart"
    history = [{"step": step, "eval_loss": 2.0 - step / 100} for step in range(30, 241, 30)]
    for step in (50, 100, 150, 200):
        give_tokenizer(write_checkpoint(output, step, history=history))
    given = {**given, "output": str(output)}
    study = make(given, tmp_path)
    (run,) = study.content["runs"].values()
    assert "validation_losses" not in run
    (told,) = [line for line in study.told if line.startswith("validation loss: ")]
    assert told == (
        "validation loss: measured here, since that of the trainer is known of 1 of 4 checkpoints alone "
        f"(lowest at step 180, 0.200, by {output}/checkpoint-200/trainer_state.json); losses=trainer takes "
        "it all the same"
    )
    study.file.unlink()
    (run,) = make(given, tmp_path, losses="trainer").content["runs"].values()
    assert "150" in run["validation_losses"]


def test_whose_losses_count_is_told(given, tmp_path):
    (told,) = [line for line in make(given, tmp_path).told if line.startswith("validation loss: ")]
    assert told.startswith(
        "validation loss: eval_loss of the trainer (lowest at step 20, 1.400, by "
    )
    assert told.endswith("losses=measured takes that of held-out responses in its place")
    assert make(given, tmp_path, losses="trainer").content == make(given, tmp_path).content
    for file in (tmp_path / "My Run").rglob("trainer_state.json"):
        file.unlink()
    study = make(given, tmp_path)
    assert any(
        "the trainer has noted none that counts; that of held-out" in line for line in study.told
    )
    assert "test" in study.content["datasets"]["heldout"]
    assert any(line.startswith("template: chat (the chat template in ") for line in study.told)


def test_the_masked_inference_has_taken_what_snakemake_has_noted(tmp_path):
    config = {"runs": {"a": {"checkpoints": {"0": "base", "100": "/x"}}}}
    for step, shard, seconds in ((0, 0, "2.5"), (100, 0, "3"), (100, 1, "1"), (10, 0, "7")):
        name = f"a/from-step-{step}-shard-{shard}.tsv"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"s\th:m:s\n{seconds}\t0:00:01\n")
    # Step 10 was one of the preview before there were later checkpoints.
    assert inference_seconds(tmp_path, config) == 6.5
    assert inference_seconds(tmp_path / "none", config) == 0


def test_all_that_is_missing_is_asked_for_at_once(given, tmp_path):
    with pytest.raises(ValueError, match=r"output= is missing") as error:
        prepare({}, tmp_path / "config", may_write=True)
    assert "heldout= is missing" in str(error.value).splitlines()[1]
    for file in (tmp_path / "My Run").rglob("adapter_config.json"):
        file.write_text(
            json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": None})
        )
    for file in (tmp_path / "My Run").rglob("chat_template.jinja"):
        file.unlink()
    with pytest.raises(ValueError, match=r"^base: ") as error:
        make(given, tmp_path)
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == [
        "base",
        "template",
    ]
    (tmp_path / "heldout.jsonl").write_text('{"a": "x", "b": "y"}\n')
    with pytest.raises(ValueError, match=r"^base: ") as error:
        make(given, tmp_path)
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == ["base", "heldout"]
    assert not (tmp_path / "config").exists()


def test_it_is_written_anew_unless_somebody_changed_it(given, tmp_path):
    file = make(given, tmp_path).file
    first = file.read_text()
    write_checkpoint(tmp_path / "My Run", 70)
    study = make(given, tmp_path)
    assert "checkpoint-70" in file.read_text()
    assert f"written: {file}" in study.told
    # A job of the running study writes nothing.
    file.write_text(first)
    prepare(given, tmp_path / "config", may_write=False)
    assert file.read_text() == first
    file.write_text(first.replace("n: 8", "n: 9"))
    study = make(given, tmp_path)
    assert "n: 9" in file.read_text()
    assert study.told[-1].startswith("it lacks the checkpoints 70 of")


@pytest.mark.bad_input(of="command_line")
def test_a_template_is_asked_for_and_not_guessed(given, tmp_path):
    for path in (tmp_path / "My Run").rglob("chat_template.jinja"):
        path.unlink()
    with refused(r"^template: no chat template was saved in .*TRL does") as error:
        make(given, tmp_path)
    assert "template=concatenate" in str(error.value)
    with pytest.raises(ValueError, match=r"^template: no chat template .* in place of chat"):
        make(given, tmp_path, template="chat")
    study = make(given, tmp_path, template="plain")
    assert study.preview["models"]["base"]["template"] == "plain"
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages }}")
    study = make(given, tmp_path, template=str(own))
    assert study.preview["models"]["base"]["template"] == f"path:{own}"
    heldout = tmp_path / "heldout.jsonl"
    heldout.write_text(heldout.read_text().replace('", "completion', '\\n", "completion'))
    study = make(given, tmp_path, template="concatenate")
    written = tmp_path / "config" / "my_run.jinja"
    assert study.preview["models"]["base"]["template"] == f"path:{written}"
    assert '{{ "\\n" }}' in written.read_text()


@pytest.mark.bad_input(of="data")
def test_a_line_end_after_a_response_is_refused_where_its_loss_is_measured(given, tmp_path):
    heldout = tmp_path / "heldout.jsonl"
    heldout.write_text(heldout.read_text().replace('a 3"', 'a 3\\n"'))
    assert make(given, tmp_path).told
    (tmp_path / "config" / "my_run.yaml").unlink()
    with refused("row 4: its response ends with blanks, which are dropped here; write the file"):
        make(given, tmp_path, losses="measured")


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize("row", [{"completion": "a <think> b"}, {"prompt": "q <think>"}])
def test_a_special_token_in_a_text_is_refused(given, tmp_path, row):
    """The trainer has fed the token; here texts of users hold text alone."""
    heldout = tmp_path / "heldout.jsonl"
    rows = [{**ROWS[0], **row} if i == 2 else ROWS[i] for i in range(40)]
    heldout.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert make(given, tmp_path).told
    added = [
        {"id": 1, "content": "<think>", "special": True},
        {"id": 2, "content": "q", "special": False},
    ]
    for file in (tmp_path / "My Run").glob("*/tokenizer.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "added_tokens": added}))
    with refused(
        "row 3: holds '<think>', a special token of the tokenizer in .*checkpoint-10, which"
    ):
        make(given, tmp_path)


@pytest.mark.bad_input(of="command_line")
def test_the_date_of_a_training_is_asked_for_where_the_template_writes_one(given, tmp_path):
    assert "template_date" not in make(given, tmp_path).content["models"]["base"]
    template = "{{ strftime_now('%d %b %Y') }}{{ messages }}"
    own = tmp_path / "own.jinja"
    own.write_text(template)
    for file in (tmp_path / "My Run").glob("*/chat_template.jinja"):
        file.write_text(template)
    for more in ({}, {"template": str(own)}):
        with refused("template_date: the chat template writes today's date .*; add template_date="):
            make(given, tmp_path, **more)
        study = make(given, tmp_path, template_date="2026-01-31", **more)
        assert study.content["models"]["base"]["template_date"] == "2026-01-31"
    with refused("template_date: 31.1.2026 is no date; write it as YYYY-MM-DD"):
        make(given, tmp_path, template_date="31.1.2026")


@pytest.mark.bad_input(of="command_line")
def test_the_tokenizer_of_a_base_that_is_here_is_looked_at_too(given, tmp_path):
    for name in ("tokenizer.json", "chat_template.jinja"):
        for file in (tmp_path / "My Run").glob(f"*/{name}"):
            file.unlink()
    base = tmp_path / "base"
    base.mkdir()
    give_tokenizer(base, "{{ strftime_now('%d %b %Y') }}{{ messages }}")
    more = {"base": str(base), "template": "chat"}
    with refused("template_date: the chat template writes today's date .*; add template_date="):
        make(given, tmp_path, **more)
    added = {"added_tokens": [{"id": 1, "content": "a 3", "special": True}]}
    (base / "tokenizer.json").write_text(json.dumps(added))
    with refused("row 4: holds 'a 3', a special token of the tokenizer in .*base, which is text"):
        make(given, tmp_path, template_date="2026-01-31", **more)


@pytest.mark.bad_input(of="command_line")
def test_concatenate_needs_the_same_blanks_everywhere(given, tmp_path):
    (tmp_path / "heldout.jsonl").write_text(
        '{"prompt": "q", "completion": " a"}\n{"prompt": "q", "completion": "a"}\n'
    )
    with refused("concatenate needs texts with the same blanks"):
        make(given, tmp_path, template="concatenate")


WRONG = {
    "no output": ({"output": ""}, "--config: output= is missing; add the trainer's output folder"),
    "no heldout": ({"heldout": ""}, "--config: heldout= is missing; add a file of prompts"),
    "another key": (
        {"cores": 3},
        "--config: cores is not for the study of an own run; known are out",
    ),
    "a slip in a key": ({"outdir": "x"}, "--config: outdir is not for the study of an own run"),
    "samples, a word": ({"samples": "all"}, "samples: all is no number of prompts; correct it"),
    "words, one": ({"words": 1}, "words: 1 is no number from 2 to 16; correct it"),
    "words, a word": ({"words": "few"}, "words: few is no number from 2 to 16; correct it"),
    "samples, none": ({"samples": 0}, "samples: 0 is no number of prompts; correct it"),
    "samples, below none": ({"samples": -3}, "samples: -3 is no number of prompts; correct it"),
    "samples, a fraction": ({"samples": 2.5}, "samples: 2.5 is no number of prompts; correct it"),
    "samples, more than rows": (
        {"samples": 41},
        "heldout.jsonl has 40 rows; lower samples, or add rows",
    ),
    "samples, other digits": ({"samples": "²"}, "samples: ² is no number of prompts"),
    "no template": ({"template": "/no.jinja"}, "template: there is no file /no.jinja; name a file"),
    "a folder as template": (
        {"template": "/"},
        "template: there is no file /; name a file in Jinja",
    ),
    "output is not there": (
        {"output": "/no/run"},
        "output: /no/run does not exist; name the folder",
    ),
    "output is a file": ({"output": __file__}, "is a file; name the folder"),
    "no output of a trainer": ({"output": "/etc"}, "output: /etc holds no folder checkpoint-STEP"),
    "heldout is not there": ({"heldout": "/no.jsonl"}, "heldout: there is no file /no.jsonl; name"),
    "heldout is a folder": ({"heldout": "/etc"}, "heldout: there is no file /etc; name one with"),
    "heldout is no table": ({"heldout": __file__}, "its name does not tell what it is; name a .j"),
    "no such prompt": ({"prompt": "x", "target": "y"}, "prompt: "),
    "no such target": ({"prompt": "prompt", "target": "y"}, "has no column 'y'; name one of"),
    "no such turns": ({"turns": "chat"}, "has no column 'chat'; name one of prompt, completion"),
    "no such system": ({"system": "sys"}, "has no column 'sys'; name one of prompt, completion"),
    "base is not there": (
        {"base": "/no/base"},
        "base: /no/base is no folder here and no id of the h",
    ),
    "base is no id": (
        {"base": "a b"},
        "base: a b is no folder here and no id of the hub; add base=",
    ),
    "base is a file": (
        {"base": __file__},
        "is no folder here and no id of the hub; add base=FOLDER",
    ),
}


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_what_is_missing_or_unknown_is_one_line(given, tmp_path, changes, message):
    with refused(re.escape(message)):
        make(given, tmp_path, **changes)
    assert not (tmp_path / "config").exists()


def test_checkpoints_and_the_held_out_file_may_be_links(given, tmp_path):
    """As in the cache of the hub, where files have names that tell nothing."""
    output = tmp_path / "linked"
    output.mkdir()
    for step in (10, 20):
        (output / f"checkpoint-{step}").symlink_to(f"{given['output']}/checkpoint-{step}")
    blob = tmp_path / "9f86d081"
    (tmp_path / "heldout.jsonl").rename(blob)
    (tmp_path / "heldout.jsonl").symlink_to(blob)
    first = make(given, tmp_path, output=str(output))
    assert first.content["datasets"]["heldout"]["source"] == f"path:{given['heldout']}"
    assert make(given, tmp_path, output=str(output)).content == first.content


def test_how_many_words_are_masked_can_be_given(given, tmp_path):
    study = make(given, tmp_path, words="5")
    assert study.content["players"]["n"] == study.preview["players"]["n"] == 5
    assert "n: 5  # given as words: masked words" in study.file.read_text()


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize("is_changed", [False, True])
def test_another_run_of_the_same_name_does_not_take_its_place(given, tmp_path, is_changed):
    file = make(given, tmp_path).file
    if is_changed:
        file.write_text(file.read_text().partition("\n")[2].replace("n: 8", "n: 9"))
    before = file.read_text()
    other = tmp_path / "elsewhere" / "My Run"
    for step in (10, 20):
        give_tokenizer(write_checkpoint(other, step))
    with refused(rf"^name: {file} is the study of another run \({given['output']}\); add name= "):
        make(given, tmp_path, output=str(other))
    assert file.read_text() == before
    assert make(given, tmp_path, output=str(other), name="another").file != file


def test_values_that_a_config_changed_by_hand_does_not_take_are_told(given, tmp_path):
    file = make(given, tmp_path).file
    assert not any("counts, and not" in line for line in make(given, tmp_path, samples="5").told)
    file.write_text(file.read_text().replace("n: 8", "n: 9"))
    told = make(given, tmp_path, samples="4", template="plain").told
    assert (
        f"what it has counts, and not heldout={given['heldout']}, samples=4, template=plain; change it "
        "there, or delete the file to have it written anew"
    ) in told


BROKEN = {
    "nothing under players": (r"  n: 8.*", "", "line 16: players: nothing stands there"),
    "nothing under checkpoints": (
        r"(    checkpoints:.*\n)(?s:.*)",
        r"\1",
        r"line 23: runs\.base-my_run\.checkpoints: nothing stands there",
    ),
    "nothing under a run": (
        r"(runs:\n  .*:\n)(?s:.*)",
        r"\1",
        r"line 19: runs\.base-my_run: nothing stands there",
    ),
    "no runs": (r"runs:\n(?s:.*)", "", "'runs' is missing; add it"),
    "a data set is a text": (
        r"  heldout:\n(    .*\n)*",
        "  heldout: x\n",
        "datasets.heldout: .*must",
    ),
    "a number is a text": (r"analysis: 16", "analysis: some", "datasets.heldout.analysis: .*must"),
    "players are a list": (r"  n: 8", "  - n", "players: .*must be"),
    "a step is a text": (r"      10: ", "      ten: ", "checkpoints"),
    "a folder is a number": (r"      20: .*", "      20: 5", r"checkpoints\.20: .*must be"),
}


@pytest.mark.bad_input(of="config")
@pytest.mark.parametrize(("old", "new", "message"), BROKEN.values(), ids=BROKEN)
def test_a_config_that_was_changed_into_none_is_told_with_its_line(
    given, tmp_path, old, new, message
):
    file = make(given, tmp_path).file
    file.write_text(re.sub(old, new, file.read_text(), count=1))
    study = make(given, tmp_path)
    assert any("was changed by hand" in line for line in study.told)
    with refused(message):
        resolve(study.preview, study.places)
