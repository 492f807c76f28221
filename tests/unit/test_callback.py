"""Interactions while a model is being fine-tuned."""

import re
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from tiny_models import build_model, build_tokenizer
from tiny_training import PROMPTS, TEXTS, Rows, build_trained_model, build_trainer, logged
from transformers import (
    AutoModelForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)

import sft_interactions as si
from sft_interactions.analysis.online import Reading
from sft_interactions.data.words import choose_players, stop_words

PLAYERS = 4
# A hundredth of what a fault would change, a hundred times what float32 loses.
ROUNDING = 1e-5
IN_WORDS = "answer in one word\n{prompt}"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(320, chat=True, bos=True)


def follow(tokenizer, **settings):
    return si.InteractionCallback(
        PROMPTS, tokenizer=tokenizer, **{"players": PLAYERS, "instruction": IN_WORDS, **settings}
    )


def train(folder, callback, model=None, **settings):
    trainer = build_trainer(folder, model or build_trained_model(), **settings)
    if callback is not None:
        callback.attach(trainer)
    trainer.train()
    return trainer


def masked_prompt(tokenizer, text, target):
    """Token ids and the player of each, by the text of the template alone; and the scored token."""
    start = f"<s><|im_start|>user\n{IN_WORDS.replace('{prompt}', '')}"
    rendered = f"{start}{text}<|im_end|>\n<|im_start|>assistant\n"
    encoded = tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    words = choose_players("prompt", text, PLAYERS, seed=0, excluded=stop_words("builtin"))
    owners = [
        next(
            (k for k, w in enumerate(words) if a < w.end + len(start) and b > w.start + len(start)),
            -1,
        )
        for a, b in encoded["offset_mapping"]
    ]
    target_id = tokenizer(target, add_special_tokens=False)["input_ids"][0]
    return encoded["input_ids"], owners, target_id


@torch.no_grad()
def whole_prompts(model, tokenizer):
    """v of all prompts and maskings in float64, (prompts, 2^n), one whole masked prompt at a time."""
    model = model.double().eval()
    table = model.get_input_embeddings().weight
    values = []
    for text, target in PROMPTS:
        ids, owners, target_id = masked_prompt(tokenizer, text, target)
        for mask in range(2**PLAYERS):
            rows = [
                table[i if k < 0 or mask >> k & 1 else tokenizer.unk_token_id]
                for i, k in zip(ids, owners, strict=True)
            ]
            logits = model(inputs_embeds=torch.stack(rows)[None]).logits[0, -1]
            values.append(torch.logit(logits.softmax(-1)[target_id]).item())
    return np.array(values).reshape(len(PROMPTS), -1)


def measured(callback, step):
    return (
        callback.log_odds.filter(pl.col("step") == step)["log_odds"]
        .to_numpy()
        .reshape(len(PROMPTS), -1)
    )


# --- What is measured -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"bf16": True}], ids=["float32", "autocast"])
def test_log_odds_are_those_of_the_saved_adapter_on_whole_prompts(tmp_path, tokenizer, settings):
    callback = follow(tokenizer)
    train(tmp_path, callback, **settings)
    assert callback.table["step"].to_list() == [0, 2, 4, 6]
    for step in (2, 4, 6):
        base = build_model("llama")
        model = PeftModel.from_pretrained(base, tmp_path / f"checkpoint-{step}")
        expected = whole_prompts(model, tokenizer)
        np.testing.assert_allclose(measured(callback, step), expected, rtol=0, atol=ROUNDING)
    for step, following in ((0, 2), (2, 4), (4, 6)):
        assert np.abs(measured(callback, step) - measured(callback, following)).max() > 0.01
    np.testing.assert_allclose(
        measured(callback, 0), whole_prompts(build_model("llama"), tokenizer), rtol=0, atol=ROUNDING
    )


@pytest.mark.slow
def test_weights_in_half_precision_are_measured_in_float32(tmp_path, tokenizer):
    build_model("llama").save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    callback = follow(tokenizer, float32_copy=True)
    trainer = train(tmp_path, callback, model, max_steps=2)
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.bfloat16}
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-2", dtype=torch.float32)
    expected = whole_prompts(saved, tokenizer)
    np.testing.assert_allclose(measured(callback, 2), expected, rtol=0, atol=ROUNDING)


@pytest.mark.slow
def test_a_measurement_is_an_explanation_of_each_prompt(tmp_path, tokenizer):
    callback = follow(tokenizer)
    trainer = train(tmp_path, callback, max_steps=2)
    trainer.model.train()  # as a training leaves it; explain is not to see its dropout
    words = callback.interactions.filter(pl.col("step") == 2, pl.col("order") == 1)
    for number, (text, target) in enumerate(PROMPTS):
        explained = si.explain(
            trainer.model, tokenizer, text, target, n_players=PLAYERS, instruction=IN_WORDS
        )
        np.testing.assert_allclose(measured(callback, 2)[number], explained.log_odds, atol=ROUNDING)
        of_prompt = words.filter(pl.col("sample_id") == f"prompt-{number:04}")
        assert {word for (word,) in of_prompt["words"].to_list()} <= set(explained.words)
    assert trainer.model.training


@pytest.mark.slow
def test_gamma_is_the_share_of_effect_that_the_reference_model_has(
    tmp_path, tokenizer, plain_tokenizer
):
    reference = build_model("gemma3")
    callback = follow(
        tokenizer,
        reference_model=reference,
        reference_tokenizer=plain_tokenizer,
        reference_template="plain",
    )
    train(tmp_path, callback, max_steps=2)
    values = [
        si.explain(
            reference,
            plain_tokenizer,
            text,
            target,
            n_players=PLAYERS,
            template="plain",
            instruction=IN_WORDS,
        ).log_odds
        for text, target in PROMPTS
    ]
    samples = [f"prompt-{number:04}" for number in range(len(PROMPTS))]
    _, salient = Reading().read(samples, np.array(values), "reference")
    there = {
        (row["sample_id"], row["kind"], row["pattern"], row["effect"] > 0)
        for row in salient.iter_rows(named=True)
    }
    for step, gamma in callback.table.select("step", "gamma").iter_rows():
        rows = callback.interactions.filter(pl.col("step") == step, pl.col("salient"))
        shares = []
        for sample in samples:
            own = list(rows.filter(pl.col("sample_id") == sample).iter_rows(named=True))
            shared = [
                abs(row["effect"])
                for row in own
                if (sample, row["kind"], row["pattern"], row["effect"] > 0) in there
            ]
            shares.append(sum(shared) / sum(abs(row["effect"]) for row in own))
        assert gamma == pytest.approx(np.mean(shares))
        assert 0 < gamma < 1


# --- What is left as it was -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lora", "settings"),
    [
        (True, {}),
        (False, {}),
        (True, {"bf16": True}),
        (True, {"activation_checkpointing": True}),
        (True, {"neftune_noise_alpha": 5.0}),
    ],
    ids=["lora", "all weights", "autocast", "checkpointed activations", "noise on embeddings"],
)
def test_training_is_the_same_to_the_bit(tmp_path, tokenizer, lora, settings):
    found = []
    for name, callback in (("without", None), ("with", follow(tokenizer, every=1))):
        trainer = train(tmp_path / name, callback, build_trained_model(lora=lora), **settings)
        found.append((trainer.model.state_dict(), logged(trainer, "loss"), torch.get_rng_state()))
    (weights, losses, state), (others, other_losses, other_state) = found
    assert callback.table["step"].to_list() == [0, 1, 2, 3, 4, 5, 6]
    assert losses == other_losses
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())
    assert torch.equal(state, other_state)


def test_other_processes_than_the_first_do_nothing(tmp_path, tokenizer):
    callback = follow(tokenizer)
    trainer = build_trainer(tmp_path, build_trained_model())
    callback.attach(trainer)
    state = TrainerState(is_world_process_zero=False)
    callback.on_train_begin(trainer.args, state, TrainerControl())
    callback.on_save(trainer.args, state, TrainerControl())
    with pytest.raises(ValueError, match=r"^InteractionCallback: nothing has been measured; train"):
        _ = callback.table


# --- What is logged -------------------------------------------------------------------------------


class Heard(TrainerCallback):
    """A logger, which is called before the callback, as those of report_to are."""

    def __init__(self):
        self.names = {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.names.setdefault(state.global_step, set()).update(logs)


class TrainerWithMeans(Trainer):
    """Logs means since its last log, as TRL's trainers do."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps = []

    def training_step(self, *args, **kwargs):
        self.steps.append(1.0)
        return super().training_step(*args, **kwargs)

    def log(self, logs, start_time=None):
        super().log({**logs, "steps_since_log": sum(self.steps)}, start_time)
        self.steps.clear()


@pytest.mark.slow
def test_numbers_reach_the_loggers_and_nothing_of_the_trainers_own(tmp_path, tokenizer):
    callback, heard = follow(tokenizer), Heard()
    trainer = build_trainer(
        tmp_path, build_trained_model(), trainer_class=TrainerWithMeans, logging_steps=3
    )
    trainer.add_callback(heard)
    callback.attach(trainer)
    trainer.train()
    always = {f"interactions/{name}" for name in ("salient", "rho", "rho_chance", "seconds")}
    since = {f"interactions/{name}" for name in ("kept", "lost", "new", "loss_rate")}
    assert heard.names[0] >= always
    assert not heard.names[0] & since
    assert heard.names[2] >= always | since
    assert "interactions/gamma" not in heard.names[2]
    assert not any(name.startswith("interactions/") for name in heard.names[3])
    own = {
        row["step"]: row["steps_since_log"] for row in trainer.state.log_history if "loss" in row
    }
    assert own == {3: 3.0, 6: 3.0}
    for name in ("salient", "kept", "lost", "new", "rho"):
        table = dict(callback.table.select("step", name).drop_nulls().iter_rows())
        assert logged(trainer, f"interactions/{name}") == pytest.approx(table)


@pytest.mark.slow
def test_changes_are_those_of_the_sets_of_interactions(tmp_path, tokenizer):
    callback = follow(tokenizer)
    train(tmp_path, callback)
    sets = {}
    for row in callback.interactions.filter("salient").iter_rows(named=True):
        what = (row["sample_id"], row["kind"], row["pattern"], row["effect"] > 0)
        sets.setdefault(row["step"], set()).add(what)
    n = len(PROMPTS)
    rows = callback.table.to_dicts()
    for before, row in pairwise(rows):
        a, b = sets[before["step"]], sets[row["step"]]
        assert row["salient"] == pytest.approx(len(b) / n)
        assert row["kept"] == pytest.approx(len(a & b) / n)
        assert row["lost"] == pytest.approx(len(a - b) / n)
        assert row["new"] == pytest.approx(len(b - a) / n)
        assert row["loss_rate"] == pytest.approx(len(a - b) / len(a))


@pytest.mark.slow
def test_tables_are_written_whole(tmp_path, tokenizer):
    callback = follow(tokenizer)
    train(tmp_path / "run", callback, max_steps=2)
    callback.save(tmp_path / "tables")
    for name in ("table", "interactions", "log_odds"):
        assert pl.read_parquet(tmp_path / "tables" / f"{name}.parquet").equals(
            getattr(callback, name)
        )


# --- When it measures, and when it stops ------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("replaced", "steps"), [(False, [0, 4, 6]), (True, [0, 4])])
def test_the_last_step_is_measured_unless_the_best_weights_have_taken_its_place(
    tmp_path, tokenizer, replaced, steps
):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2}
    callback = follow(tokenizer, every=4)
    trainer = build_trainer(
        tmp_path, build_trained_model(), eval_dataset=Rows(), **(best if replaced else {})
    )
    callback.attach(trainer)
    trainer.train()
    assert callback.table["step"].to_list() == steps


class Planted(si.InteractionCallback):
    """Loses every interaction before the second measurement, and none later."""

    def _log_odds(self, *_):
        done = len(self._run.steps) if self._run else 0
        v = np.zeros((len(PROMPTS), 2**PLAYERS), dtype=np.float32)
        masks = np.arange(2**PLAYERS)
        for pattern in (0b0011, 0b0101) if not done else (0b1100, 0b1010):
            v += (1 + np.arange(len(PROMPTS)))[:, None] * ((masks & pattern) == pattern)
        return v


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "last"), [(False, 6), (True, 4)])
def test_training_is_stopped_only_if_asked(tmp_path, tokenizer, capsys, stop, last):
    callback = Planted(
        PROMPTS, tokenizer=tokenizer, players=PLAYERS, every=1, patience=3, stop_training=stop
    )
    trainer = train(tmp_path, callback)
    assert trainer.state.global_step == last
    # Found at steps 2, 3 and 4, three times in a row.
    assert logged(trainer, "interactions/denoising_ends") == dict.fromkeys(range(2, last + 1), 1.0)
    line = (
        "interactions: the loss rate has fallen after step 1 (interval 1 to 1); it is not shown that this "
        "is the checkpoint to keep, see docs/stopping.md\n"
    )
    assert capsys.readouterr().out.count(line) == 1
    assert callback.suggestion == line.strip()


class Diverging(TrainerCallback):
    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 4:
            next(model.parameters()).data.fill_(float("nan"))


@pytest.mark.slow
def test_a_failed_measurement_ends_the_measuring_and_not_the_training(tmp_path, tokenizer, capsys):
    callback = follow(tokenizer)
    trainer = build_trainer(tmp_path, build_trained_model(lora=False))
    trainer.add_callback(Diverging())
    callback.attach(trainer)
    trainer.train()
    assert trainer.state.global_step == 6
    assert callback.table["step"].to_list() == [0, 2]
    assert callback.problem.startswith("step 4: model: ")
    assert capsys.readouterr().out.count("measuring has stopped, the training goes on; step 4") == 1


# --- What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"players": 1}, r"^players is 1; give 2 to 16$"),
        ({"players": 7}, r"^prompts\[0\]: it has 5 words that are not stop-words, of which no 7"),
        ({"every": 0}, r"^every is 0; give 'save' or a number"),
        ({"every": "epoch"}, r"^every is 'epoch'; give 'save' or a number"),
        ({"every": 1.5}, r"^every is 1\.5; give 'save' or a number"),
        ({"every": True}, r"^every is True; give 'save' or a number"),
        ({"patience": 0}, r"^patience is 0; give a whole number"),
        ({"patience": float("nan")}, r"^patience is nan; give a whole number"),
        ({"stop_training": "no"}, r"^stop_training is 'no'; give True or False"),
        ({"method": "fast"}, r"^method is 'fast'; give prefix_tree or full_length$"),
        ({"reference_model": "a"}, r"^reference_model and reference_tokenizer: only one is given;"),
    ],
)
def test_wrong_arguments_are_refused(tokenizer, settings, message):
    with pytest.raises(ValueError, match=message):
        follow(tokenizer, **settings)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], r"^prompts: none are given; name one at least"),
        ([PROMPTS[0], "ab"], r"^prompts\[1\]: it is no pair of texts; give \(prompt, target\)$"),
        ([PROMPTS[0], (TEXTS[1], 3)], r"^prompts\[1\]: it is no pair of texts; give"),
        (
            [*PROMPTS, PROMPTS[2]],
            r"^prompts\[5\]: it is prompts\[2\] again, and would count twice;",
        ),
    ],
)
def test_wrong_prompts_are_refused(prompts, message):
    with pytest.raises(ValueError, match=message):
        si.InteractionCallback(prompts, players=PLAYERS)


class Slow:
    is_fast = False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer": None}, r"^tokenizer: the trainer's processing_class is NoneType; give"),
        (
            {"tokenizer": Slow()},
            r"^tokenizer: Slow does not tell the places of tokens; give a fast",
        ),
        ({"template": "unknown_one"}, r"^template is 'unknown_one'; give chat or plain$"),
        ({"template": "plain", "instruction": "x"}, r"^instruction: \{prompt\} is there 0 times"),
        ({"mask_token": "<x>"}, r"^mask_token: '<x>' is not in the tokenizer's vocabulary; name"),
    ],
)
def test_what_cannot_be_tokenized_is_refused_when_it_is_attached(
    tmp_path, tokenizer, settings, message
):
    callback = follow(**{"tokenizer": tokenizer, **settings})
    trainer = build_trainer(tmp_path, build_trained_model())
    with pytest.raises(ValueError, match=message):
        callback.attach(trainer)


def test_one_process_is_not_stopped_alone(tmp_path, tokenizer, monkeypatch):
    callback = follow(tokenizer, stop_training=True)
    trainer = build_trainer(tmp_path, build_trained_model())
    monkeypatch.setattr(type(trainer.args), "world_size", 2)
    with pytest.raises(
        ValueError, match=r"^stop_training: 2 processes train, .*; set it to False$"
    ):
        callback.attach(trainer)


@pytest.mark.slow
def test_a_callback_without_its_trainer_is_refused(tmp_path, tokenizer):
    trainer = build_trainer(tmp_path, build_trained_model())
    trainer.add_callback(follow(tokenizer))
    with pytest.raises(ValueError, match=r"^InteractionCallback: it has no trainer, .*attach\("):
        trainer.train()


def go_on(folder, callback):
    trainer = build_trainer(folder, build_trained_model())
    callback.attach(trainer)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-4"))


@pytest.mark.slow
def test_a_training_that_goes_on_is_measured_as_one_that_did_not_stop(tmp_path, tokenizer):
    kept = tmp_path / "kept"
    whole = follow(tokenizer, folder=kept)
    train(tmp_path, whole)
    # As if it had been killed after the last measurement: step 6 is trained and measured again.
    rest = follow(tokenizer, folder=kept)
    go_on(tmp_path, rest)
    for name in ("table", "interactions", "log_odds"):
        assert getattr(rest, name).equals(getattr(whole, name))
        assert pl.read_parquet(kept / f"{name}.parquet").equals(getattr(whole, name))


def other_words(folder, tokenizer):
    return follow(tokenizer, folder=folder, seed=1)


def without_a_folder(folder, tokenizer):
    return follow(tokenizer)


def without_its_file(folder, tokenizer):
    return follow(tokenizer, folder=folder / "other")


def with_a_damaged_file(folder, tokenizer):
    (folder / "log_odds.parquet").write_bytes(b"PAR1")
    return follow(tokenizer, folder=folder)


def without_the_step(folder, tokenizer):
    rewrite(folder, lambda rows: rows.filter(pl.col("step") < 4))
    return follow(tokenizer, folder=folder)


def of_another_training(folder, tokenizer):
    rewrite(folder, lambda rows: rows.with_columns(pl.col("log_odds") + 0.5))
    return follow(tokenizer, folder=folder)


def rewrite(folder, change):
    file = folder / "log_odds.parquet"
    rows, metadata = pl.read_parquet(file), pl.read_parquet_metadata(file)
    change(rows).write_parquet(file, metadata={"read_from": metadata["read_from"]})


@pytest.mark.slow
def test_a_training_that_goes_on_from_what_is_not_known_is_refused(tmp_path, tokenizer):
    kept = tmp_path / "kept"
    train(tmp_path, follow(tokenizer, folder=kept))
    file = re.escape(str(kept / "log_odds.parquet"))
    content = (kept / "log_odds.parquet").read_bytes()
    for change, message in (
        (
            without_a_folder,
            r"^InteractionCallback: the training goes on from step 4, and what came",
        ),
        (without_its_file, r"other/log_odds.parquet: there is no such file, so what came before"),
        (with_a_damaged_file, rf"^{file}: it is damaged"),
        (other_words, rf"^{file}: it is of other prompts, words, tokens"),
        (without_the_step, rf"^{file}: it has no measurement of step 4, .* step 2, or"),
        (of_another_training, rf"^{file}: its log-odds of step 4 differ by 0.5 from those of"),
    ):
        (kept / "log_odds.parquet").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            go_on(tmp_path, change(kept, tokenizer))


@pytest.mark.slow
def test_a_folder_of_another_training_is_refused(tmp_path, tokenizer):
    train(tmp_path, follow(tokenizer, folder=tmp_path / "kept"), max_steps=2)
    with pytest.raises(ValueError, match=r"log_odds.parquet: it has the measurements of another"):
        train(tmp_path, follow(tokenizer, folder=tmp_path / "kept"), max_steps=2)


@pytest.mark.slow
def test_half_precision_is_refused_before_training(tmp_path, tokenizer):
    trainer = build_trainer(tmp_path, build_trained_model(lora=False).bfloat16())
    follow(tokenizer).attach(trainer)
    with pytest.raises(ValueError, match=r"^model: its weights are bfloat16, .*float32_copy=True"):
        trainer.train()


@pytest.mark.slow
def test_a_reference_model_with_the_trained_weights_is_refused(tmp_path, tokenizer):
    base = build_trained_model(lora=False)
    trainer = build_trainer(tmp_path, base)
    callback = follow(tokenizer, reference_model=base, reference_tokenizer=tokenizer)
    callback.attach(trainer)
    with pytest.raises(ValueError, match=r"^reference_model: it shares weights with the model"):
        trainer.train()


def test_the_players_are_words_of_their_prompt(tokenizer):
    callback = follow(tokenizer)
    for text, words in zip(TEXTS, callback.words, strict=True):
        assert [text[word.start : word.end] for word in words] == [word.text for word in words]
