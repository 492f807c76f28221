import re

import numpy as np
import polars as pl
import pytest
from sample_tables import SALIENT
from scipy import stats

from sft_interactions.analysis.dynamics import add_generalizability, classify
from sft_interactions.analysis.metrics import compute_metrics
from sft_interactions.analysis.turnover import LAST, NONE, UNKNOWN, Stage
from sft_interactions.analysis.verdict import (
    Facts,
    judge,
    loss_change,
    metrics_of_covered,
    overfits_after,
    write_page,
)

STEPS = [0, 10, 20, 30, 40]
LOSSES = {0: 4.2, 10: 2.0, 20: 1.7, 30: 1.8, 40: 2.1}


def metrics(removed=75.0, low=60.0, floor=4.0, before=87.0):
    rows = [
        (0, "preserved", "count", before, before - 10),
        (40, "removed", "count", removed, low),
        (40, "emerged", "count", 30.0, 20.0),
        (40, "removed", "churn_floor", floor, None),
    ]
    return pl.DataFrame(rows, schema=["step", "class", "metric", "value", "ci_low"], orient="row")


def facts(**changes):
    given = {
        "title": "mine",
        "steps": STEPS,
        "n_samples": 16,
        "n_players": 8,
        "metrics": metrics(),
        "stage": Stage("20", 20, 10, 20, (0.3, 0.1, 0.5)),
        "losses": LOSSES,
        **changes,
    }
    return Facts(**given)


@pytest.mark.parametrize(
    ("losses", "kept", "sentence"),
    [
        (
            LOSSES,
            20,
            "Keep step 20: it has the lowest validation loss, 1.700 nats a token, 18 % for the right token "
            "(2.100 at step 40).",
        ),
        (
            {0: 4.2, 10: 3.0, 40: 1.7},
            40,
            "Keep step 40, the last one: it has the lowest validation loss, 1.700 nats a token, 18 % for "
            "the right token; it was still falling; training on may lower it further.",
        ),
        (
            {10: 1.7, 40: 1.7004},
            10,
            "Keep step 10: it has the lowest validation loss, 1.700 nats a token, 18 % for the right token "
            "(1.700 at step 40, which is no less good).",
        ),
        (
            {0: 4.2, 1: 2.0, 40: 3.0},
            1,
            "Keep step 1: it has the lowest validation loss, 2.000 nats a token, 14 % for the right token "
            "(3.000 at step 40).",
        ),
        (
            {10: 1.0, 40: 2.0},
            10,
            "Keep step 10: it has the lowest validation loss, 1.000 nats a token, 37 % for the right token "
            "(2.000 at step 40).",
        ),
        (
            {10: 0.0, 40: 0.001},
            10,
            "Keep step 10: it has the lowest validation loss, 0.000 nats a token, 100 % for the right "
            "token (0.001 at step 40).",
        ),
        (
            {0: 1.5, 10: 1.5, 40: 2.0},
            None,
            "No checkpoint is named: none has a lower validation loss than the model before SFT (1.500; "
            "step 10: 1.500).",
        ),
        (
            {0: 1.0, 10: 1.1, 40: 1.5},
            None,
            "No checkpoint is named: none has a lower validation loss than the model before SFT (1.000; "
            "step 10: 1.100).",
        ),
        ({10: 1.0}, None, "No checkpoint is named: the validation loss is known at step 10 alone."),
        (
            {0: 3.0, 10: 1.0},
            None,
            "No checkpoint is named: beside step 0 the validation loss is known at step 10 alone.",
        ),
        (
            {},
            None,
            "No checkpoint is named: no validation loss is known, and interactions alone do not choose "
            "one.",
        ),
    ],
)
def test_the_checkpoint_is_that_of_the_lowest_validation_loss_or_none(losses, kept, sentence):
    found = judge(facts(losses=losses, steps=sorted({0, *losses})))
    assert (found.kept_step, found.checkpoint) == (kept, sentence)


@pytest.mark.parametrize(
    ("losses", "kept", "sentence"),
    [
        (
            {10: 1.9, 15: 1.2, 20: 1.5, 30: 1.6, 40: 1.7},
            20,
            "Keep step 20: of all checkpoints it has the lowest validation loss, 1.500 nats a token, 22 % "
            "for the right token. The loss was lower, 1.200 nats, at step 15, of which there is no "
            "checkpoint.",
        ),
        (
            {10: 1.9, 20: 1.8, 30: 1.7, 40: 1.5, 45: 1.2},
            40,
            "Keep step 40: of all checkpoints it has the lowest validation loss, 1.500 nats a token, 22 % "
            "for the right token. The loss was lower, 1.200 nats, at step 45, of which there is no "
            "checkpoint.",
        ),
        (
            {10: 1.9, 20: 1.8, 35: 1.2},
            20,
            "Keep step 20: of those whose loss is known it has the lowest validation loss, 1.800 nats a "
            "token, 17 % for the right token. The loss was lower, 1.200 nats, at step 35, of which there "
            "is no checkpoint. Of steps 30, 40 no loss is known.",
        ),
        (
            {6: 1.6, 12: 1.3, 18: 1.0, 24: 1.02, 30: 1.2, 36: 1.4},
            None,
            "No checkpoint is named: of 4 checkpoints the validation loss is known of step 30 alone "
            "(1.200). The loss was lower, 1.000 nats, at step 18, of which there is no checkpoint. Of "
            "steps 10, 20, 40 no loss is known.",
        ),
        (
            {0: 1.4, 10: 1.9, 15: 1.2, 20: 1.5, 30: 1.5, 40: 1.5},
            None,
            "No checkpoint is named: none has a lower validation loss than the model before SFT (1.400; "
            "step 20: 1.500).",
        ),
        (
            {5: 1.9, 15: 1.2},
            None,
            "No checkpoint is named: the validation loss is known at steps of which there is no checkpoint "
            "(5, 15). Of steps 10, 20, 30, 40 no loss is known.",
        ),
        (
            {10: 1.9, 20: 1.8, 30: 1.5},
            30,
            "Keep step 30, the last one whose loss is known: it has the lowest validation loss, 1.500 "
            "nats a token, 22 % for the right token; it was still falling; training on may "
            "lower it further. Of step 40 no loss is known.",
        ),
    ],
)
def test_a_step_that_was_not_saved_or_not_evaluated_is_not_taken_for_one_that_was(
    losses, kept, sentence
):
    found = judge(facts(losses=losses))
    assert (found.kept_step, found.checkpoint) == (kept, sentence)


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        (
            {0: 3.0, 10: 1.9, 20: 1.8, 30: 1.7, 40: 1.5},
            "Keep step 40, the last checkpoint: it has the lowest validation loss, 1.500 nats a token, "
            "22 % for the right token; it was still falling there. The training went on to step 80, of "
            "which there is no checkpoint.",
        ),
        (
            {0: 3.0, 10: 1.9, 20: 1.5, 30: 1.7, 40: 1.8},
            "Keep step 20: it has the lowest validation loss, 1.500 nats a token, 22 % for the right token "
            "(1.800 at step 40). The training went on to step 80, of which there is no checkpoint.",
        ),
    ],
)
def test_a_training_that_went_on_after_the_last_checkpoint_is_told(losses, sentence):
    assert judge(facts(losses=losses, ended=80)).checkpoint == sentence
    at_its_end = judge(facts(losses=losses, ended=40)).checkpoint
    assert at_its_end == judge(facts(losses=losses)).checkpoint
    assert "went on" not in at_its_end


def test_a_checkpoint_that_a_preview_leaves_out_may_be_kept():
    assert judge(facts(losses={10: 1.9, 15: 1.2, 20: 1.5}, skipped=[15])).kept_step == 15


def test_overfitting_begins_where_the_loss_was_lowest_saved_or_not():
    assert "It overfits after step 15: to step 20 the loss rises by 0.300 nats." in str(
        judge(facts(losses={10: 1.9, 15: 1.2, 20: 1.5}))
    )


def test_whose_loss_it_is_stands_there():
    found = judge(facts(whose_losses="eval_loss of the trainer"))
    assert "the lowest eval_loss of the trainer, 1.700 nats" in found.checkpoint


def test_a_right_token_that_is_hardly_ever_foreseen_is_told():
    told = judge(facts(losses={10: 5.0, 40: 6.0})).checkpoint
    assert "5.000 nats a token, less than 1 % for the right token" in told


def test_the_same_numbers_choose_the_same_checkpoint_whatever_the_stage_is():
    kept = {judge(facts(stage=stage)).kept_step for stage in (Stage(NONE), Stage("10", 10, 10, 10))}
    assert kept == {20}


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        (
            LOSSES,
            "It learned: from the model before SFT to step 20 the loss falls by 2.500 nats. It overfits "
            "after step 20: to step 40 the loss rises by 0.400 nats.",
        ),
        (
            {0: 4.2, 10: 3.0, 40: 1.7},
            "It learned: from the model before SFT to step 40 the loss falls by 2.500 nats. No overfitting "
            "shows up to step 40.",
        ),
        (
            {10: 1.7, 40: 1.7004},
            "Whether it learned is not told: the loss before SFT is not known. No overfitting shows up to "
            "step 40.",
        ),
        (
            {0: 1.0, 10: 1.1, 40: 1.5},
            "It did not learn: at no step is the loss 0.001 nats lower than before SFT. From step 10 to "
            "step 40 it rises by 0.400 nats.",
        ),
        (
            {0: 1.0, 10: 1.0, 40: 1.0},
            "It did not learn: at no step is the loss 0.001 nats lower than before SFT.",
        ),
        ({10: 1.0}, "Whether it learned is not told: the loss before SFT is not known."),
        ({}, ""),
    ],
)
def test_whether_it_learned_and_overfits_is_told_from_the_losses(losses, sentence):
    assert judge(facts(losses=losses, steps=sorted({0, *losses}))).learning == sentence
    after = overfits_after(losses, None, 0.95)
    assert (f"It overfits after step {after}:" in sentence) == (after is not None)
    assert ("It overfits" in sentence) == (after is not None)


def single_losses(means, spread, n=8, tokens=2):
    """Losses of n responses whose means a token are given; changes from step to step vary by ``spread``."""
    varies = np.linspace(-1, 1, n) * spread
    return pl.DataFrame(
        [
            (f"s{i}", step, tokens * (mean + varies[i] * step), tokens)
            for step, mean in means.items()
            for i in range(n)
        ],
        schema=["sample_id", "step", "loss", "n_tokens"],
        orient="row",
    )


@pytest.mark.parametrize(
    ("spread", "learned", "overfits"),
    [
        (
            0.001,
            "It learned: from the model before SFT to step 20 the loss falls by 2.500 nats (2.4",
            "It overfits after step 20: to step 40 the loss rises by 0.400 nats (0.3",
        ),
        (
            0.1,
            "It learned: ",
            "Whether it overfits cannot be told: from step 20 to step 40 the loss changes by 0.400 nats (-",
        ),
        (1.0, "Whether it learned cannot be told: ", "Whether it overfits cannot be told: "),
    ],
)
def test_a_change_that_may_be_chance_is_none(spread, learned, overfits):
    found = judge(facts(sample_losses=single_losses(LOSSES, spread))).learning
    assert found.startswith(learned)
    assert overfits in found
    assert "8 responses" in found
    after = overfits_after(LOSSES, single_losses(LOSSES, spread), 0.95)
    assert after == (20 if overfits.startswith("It overfits") else None)


@pytest.mark.parametrize(
    ("means", "spread", "kept", "told"),
    [
        ({0: 4.0, 10: 3.0, 20: 2.0, 40: 2.5}, 0.001, 20, "(2.500 at step 40)."),
        (
            {0: 4.0, 10: 2.01, 20: 2.0, 40: 2.5},
            0.005,
            20,
            "(2.500 at step 40). On 8 responses it cannot be told from step 10.",
        ),
        (
            {0: 4.0, 10: 2.01, 20: 2.0, 30: 2.01, 40: 2.5},
            0.005,
            20,
            "On 8 responses it cannot be told from steps 10, 30.",
        ),
        (
            {0: 4.0, 10: 2.1, 20: 2.0, 40: 2.1},
            0.1,
            20,
            "On 8 responses no other checkpoint can be told from it.",
        ),
        (
            {0: 4.0, 10: 3.0, 20: 2.0},
            0.001,
            20,
            "it was still falling; training on may lower it further.",
        ),
        (
            {0: 4.0, 10: 3.0, 20: 2.01, 40: 2.0},
            0.005,
            40,
            "whether it still falls after step 20 cannot be told. On 8 responses it cannot be told from "
            "step 20.",
        ),
    ],
)
def test_checkpoints_that_cannot_be_told_from_the_best_are_named(means, spread, kept, told):
    steps = sorted(means)
    found = judge(facts(losses=means, steps=steps, sample_losses=single_losses(means, spread)))
    assert found.kept_step == kept
    assert found.checkpoint.endswith(told)


@pytest.mark.parametrize(("n", "number"), [(4, "4 responses"), (1, "1 response")])
def test_fewer_responses_do_not_make_a_surer_verdict(n, number):
    rows = single_losses(LOSSES, 0.001, n=n)
    found = judge(facts(sample_losses=rows))
    assert found.checkpoint.endswith(
        f"(2.100 at step 40). On {number} no other checkpoint can be told from it."
    )
    assert "Whether it learned cannot be told" in found.learning
    assert re.search(
        f"by -2.5.. nats .{number}; 5 are needed., which may be chance", found.learning
    )
    assert "Whether it overfits cannot be told" in found.learning
    assert overfits_after(LOSSES, rows, 0.95) is None


def test_a_change_lies_in_its_interval_as_it_is_written():
    for spread in (0.001, 0.1, 1.0):
        for change in re.findall(
            r"by (\S+) nats \((\S+) to (\S+),",
            judge(facts(sample_losses=single_losses(LOSSES, spread))).learning,
        ):
            value, low, high = map(float, change)
            assert low <= value <= high


def test_a_loss_that_was_as_low_before_is_not_still_falling():
    losses = {0: 4.0, 10: 0.5, 20: 0.9, 40: 0.4998}
    told = judge(facts(losses=losses)).checkpoint
    assert told.startswith("Keep step 40, the last one")
    assert "since step 10 it has fallen by less than 0.001 nats, which is no fall" in told


def test_a_loss_that_was_no_lower_at_a_step_without_checkpoint_is_not_called_so():
    losses = {0: 4.0, 10: 1.0003, 15: 1.0, 20: 1.5, 30: 1.5, 40: 2.0}
    told = judge(facts(losses=losses)).checkpoint
    assert told.startswith("Keep step 10: of all checkpoints it has the lowest validation loss")
    assert "was lower" not in told


def test_a_change_of_responses_of_one_length_is_a_paired_t_test():
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=(2, 12))
    rows = pl.DataFrame(
        {
            "sample_id": [f"s{i}" for i in range(12)] * 2,
            "step": [0] * 12 + [5] * 12,
            "loss": np.concatenate([first, second]),
            "n_tokens": [1] * 24,
        }
    )
    found = loss_change(rows.sample(fraction=1, shuffle=True, seed=1), 0, 5, 0.9)
    known = stats.ttest_rel(second, first).confidence_interval(0.9)
    assert found == pytest.approx(((second - first).mean(), known.low, known.high, 12))


def test_a_change_is_one_a_token():
    """A long response counts more, and five responses are the fewest with an interval."""
    rows = single_losses({0: 1.0, 5: 1.0}, 0.0, n=4)
    rows = rows.with_columns(
        n_tokens=pl.when(pl.col("sample_id") == "s0").then(6).otherwise(2),
        loss=pl.when((pl.col("sample_id") == "s0") & (pl.col("step") == 5))
        .then(8.0)
        .otherwise("loss"),
    )
    assert loss_change(rows, 0, 5, 0.95) == (0.5, -np.inf, np.inf, 4)


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 16])
def test_intervals_of_a_change_hold_the_true_one_as_often_as_they_say(n):
    """Responses of 1 to 20 tokens, with skewed changes of mean 0.3 a token."""
    draw = np.random.default_rng(n)
    held = 0
    for _ in range(500):
        tokens = draw.integers(1, 21, n)
        change = (draw.gamma(4.0, 0.25, n) - 0.7) * tokens
        rows = pl.DataFrame(
            {
                "sample_id": [f"s{i}" for i in range(n)] * 2,
                "step": [0] * n + [5] * n,
                "loss": np.concatenate([np.zeros(n), change]),
                "n_tokens": np.tile(tokens, 2),
            }
        )
        found = loss_change(rows, 0, 5, 0.95)
        held += found.low <= 0.3 <= found.high
    assert 0.9 <= held / 500 <= 0.98


def test_what_was_not_looked_at_is_named():
    told = judge(facts(skipped=[5, 15, 40])).checkpoint
    assert told.endswith("(2.100 at step 40). Steps 5, 15 were not looked at.")
    assert judge(facts(skipped=[40])).checkpoint.endswith("(2.100 at step 40).")
    assert judge(facts(skipped=[5])).checkpoint.endswith(" Step 5 was not looked at.")


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            metrics(),
            "Of 87.0 interactions a prompt before SFT, 75.0 are gone by step 40 (noise of the inference "
            "alone: 4.0), and 30.0 are new.",
        ),
        (metrics(removed=5.0, low=4.0), "That cannot be told from what noise alone would do."),
        (
            metrics(removed=0.0, low=0.0, floor=-1.0),
            "Of 87.0 interactions a prompt before SFT, 0.0 are gone by step 40 (noise of the inference "
            "alone: -1.0), and 30.0 are new.",
        ),
        (metrics(removed=5.0, low=3.0), "That cannot be told from what noise alone would do."),
        (
            metrics(before=0.0),
            "No verdict on the interactions: before SFT there are none in these 16 prompts.",
        ),
        (
            metrics().filter(pl.col("metric") != "churn_floor"),
            "are gone by step 40, and 30.0 are new.",
        ),
    ],
)
def test_removals_are_held_against_noise(table, sentence):
    assert judge(facts(metrics=table)).interactions.endswith(sentence)


def test_removals_are_held_against_noise_in_the_same_prompts():
    """In all 40 prompts 75 are gone; noise was tried on 16, of which 4.5 are gone."""
    found = judge(facts(n_samples=40, n_covered=16, covered=metrics(removed=4.5, low=3.5)))
    assert found.interactions == (
        "Of 87.0 interactions a prompt before SFT, 75.0 are gone by step 40 (in the 16 prompts on which "
        "noise was tried: 4.5, and by noise of the inference alone 4.0), and 30.0 are new. That cannot be "
        "told from what noise alone would do."
    )
    few = judge(facts(n_samples=40, n_covered=4, covered=metrics(removed=9.0, low=7.0)))
    assert few.interactions.endswith("more than noise would do cannot be told from 4 prompts.")
    sure = judge(facts(n_samples=40, n_covered=16, covered=metrics(removed=9.0, low=7.0)))
    assert sure.interactions.endswith("30.0 are new.")


def test_what_is_gone_in_some_prompts_is_that_of_their_table_alone():
    samples = [f"s{i}" for i in range(6)]

    def salient(n_gone):
        rows = [
            (sample, "and", pattern, 2, 1.0)
            for i, sample in enumerate(samples)
            for pattern in range(1 + n_gone * i, 20)
        ]
        return pl.DataFrame(rows, schema=SALIENT, orient="row")

    dynamics = add_generalizability(
        classify({0: salient(0), 10: salient(1), 40: salient(2)}), None, 5
    )
    settings = {"level": 0.95}
    found = metrics_of_covered(dynamics, samples, 4, [0, 10, 40], 5, **settings)
    row = found.filter(step=40, metric="count", **{"class": "removed"}).row(0, named=True)
    assert row["value"] == (0 + 2 + 4 + 6) / 4
    of_four = dynamics.filter(pl.col("sample_id").is_in(samples[:4]))
    whole = compute_metrics(of_four, samples[:4], [0, 10, 40], 5, **settings).filter(
        pl.col("order").is_null(), step=40, metric="count", kind="both", **{"class": "removed"}
    )
    assert row["ci_low"] == whole["ci_low"].item()
    assert metrics_of_covered(dynamics, samples, 6, [0, 10, 40], 5, **settings) is None


@pytest.mark.parametrize(("n", "prompts"), [(4, "4 prompts"), (1, "1 prompt")])
def test_of_too_few_prompts_it_is_not_said_that_removals_are_no_noise(n, prompts):
    found = judge(facts(n_samples=n)).interactions
    assert found.endswith(
        f"Whether that is more than noise would do cannot be told from {prompts}."
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "falls after step 20 (10 to 20): there the denoising stage ends. This chooses no checkpoint.",
        ),
        (
            {"stage": Stage("20", 20, 10, 30, (0.3, 0.1, 0.5))},
            "but where cannot be told (10 to 30, all that is possible).",
        ),
        (
            {"stage": Stage("20", 20, 20, 30, (0.3, 0.1, 0.5)), "n_samples": 5},
            "falls after step 20 (20 to 30): there the denoising stage ends. This chooses no checkpoint.",
        ),
        (
            {"steps": [*STEPS, 50]},
            "falls after step 20 (10 to 20): there the denoising stage ends. This chooses no checkpoint.",
        ),
        ({"stage": Stage(LAST)}, "denoising has not ended."),
        ({"stage": Stage(NONE)}, "does not fall: there is no denoising stage."),
        ({"stage": Stage(UNKNOWN)}, "cannot be told from 16 prompts."),
        (
            {"steps": [0, 20, 40], "n_samples": 4},
            "No verdict on the stages: 3 checkpoints, and 5 are needed; 4 prompts, and 5 are needed.",
        ),
    ],
)
def test_the_stage_is_told_only_where_it_can_be(changes, sentence):
    assert judge(facts(**changes)).stage.endswith(sentence)


def test_the_page_has_the_sentences_and_the_numbers_and_titles_are_text():
    run = facts(title="a | b <script>$x$", losses={5: 3.0, **LOSSES})
    page = write_page([run], [judge(run)])
    assert "**Keep step 20: it has the lowest" in page
    assert "| 0 | 87.0 |  |  | 4.200 |" in page
    assert "| 5 |  |  |  | 3.000 |" in page
    assert "| 40 |  | 75.0 | 30.0 | 2.100 |" in page
    assert r"a \| b \<script\>\$x\$" in page
    assert "\n- It learned: " in page
    assert "Loss: validation loss, in nats a token; 0 is best" in page


def test_the_page_says_what_an_interaction_is_and_why_a_cell_is_blank():
    blank = "add up. Where they are blank, the loss alone is known."
    run = facts(losses={5: 3.0, **LOSSES}, players="sentences")
    page = write_page([run], [judge(run)])
    assert "An interaction is an effect of sentences that act together on the answer" in page
    assert blank in page
    assert blank not in write_page([facts()], [judge(facts())])


def test_the_page_says_of_how_many_responses_the_loss_is():
    run = facts(sample_losses=single_losses(LOSSES, 0.1, n=9), whose_losses="loss of responses")
    assert "Loss: loss of responses (9 of them), in nats" in write_page([run], [judge(run)])


def test_the_page_has_what_the_model_reads_between_more_marks_than_it_has():
    run = facts(read=("a ```b``` c", "joy", "joy"))
    page = write_page([run], [judge(run)])
    assert "up to the token `joy`:\n\n````\na ```b``` c\n````\n" in page
    assert "Before SFT: step 0." in page


def test_the_page_says_of_what_a_scored_token_is_a_part():
    run = facts(read=("text", "n", f"no\n{'x' * 100}"), n_parts=3)
    page = write_page([run], [judge(run)])
    told = f"up to the token `n` of the response `no {'x' * 77} …` (in 3 of 16 prompts the scored "
    assert f"{told}token is a part of the response, so the interactions are those of its" in page


def test_the_page_calls_players_what_they_are():
    page = write_page([facts(players="sentences")], [judge(facts())])
    assert "16 prompts, 8 masked sentences each" in page
    assert "8 masked words each" in write_page([facts()], [judge(facts())])


SLIGHTLY = {0: 2.0, 10: 1.9999, 40: 1.9998}


def test_a_change_of_less_than_a_thousandth_is_none():
    told = judge(facts(losses=SLIGHTLY))
    assert told.kept_step is None
    assert told.checkpoint.startswith(
        "No checkpoint is named: none has a lower validation loss than the model before SFT (2.000; step "
        "40: 2.000, less than 0.001 nats less)."
    )
    assert told.learning.startswith("It did not learn: at no step is the loss 0.001 nats lower")
    saved = judge(facts(steps=[0, 10], losses={**SLIGHTLY, 40: 1.5}))
    assert saved.kept_step is None
    assert "step 10: 2.000, less than 0.001 nats less" in saved.checkpoint


def test_a_loss_that_has_come_to_rest_is_not_called_falling():
    told = judge(facts(losses={0: 3.0, 10: 2.0, 40: 1.9995}))
    assert told.kept_step == 40
    assert (
        "since step 10 it has fallen by less than 0.001 nats, which is no fall." in told.checkpoint
    )
    assert "still falling" not in told.checkpoint
    assert "still falling" in judge(facts(losses={0: 3.0, 10: 2.0, 40: 1.99})).checkpoint
