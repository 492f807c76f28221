"""The study of checkpoints: what each arm chooses, and how arms are compared."""

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import stats

from sft_interactions import config_file
from sft_interactions.analysis import agreement
from sft_interactions.analysis.dynamics import add_generalizability, classify
from sft_interactions.analysis.planted import plant
from sft_interactions.analysis.protocol import examine, tabulate_over_seeds
from sft_interactions.config import resolve

PATH = Path(__file__).parents[2] / "benchmarks" / "stopping.py"
spec = importlib.util.spec_from_file_location("stopping", PATH)
stopping = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stopping)

STEPS = [0, 25, 50, 75, 100]


def run_of(task, seed, test, rate=2e-4, noise=0.0, analysis=None, validation=None):
    flat = dict.fromkeys(range(1, 101), 1.0)
    losses = {"test": test, "analysis": analysis or test, "validation": validation or test}
    return stopping.Run(f"{task}-{seed}", task, rate, noise, seed, STEPS, losses, flat)


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        ([25, 50, 50], 50),  # at 100 as at 75; 50 is earlier than both
        ([25, 25, 75], 25),
        (
            [50, 50, 75],
            100,
        ),  # at step 50 it was the newest one, so it was not chosen twice as an earlier one
        ([0, 25, 75], 100),
    ],
)
def test_online_stops_when_the_same_earlier_checkpoint_is_chosen_twice(chosen, kept):
    seen = []

    def rule(steps):
        seen.append(len(steps))
        return chosen[len(steps) - 3]

    assert stopping.choose_as_they_arrive(STEPS, rule) == kept
    assert seen[0] == stopping.LEAST_CHECKPOINTS


def test_plateau_of_the_training_loss():
    falling = {step: 0.9 ** ((step - 1) // 25) for step in range(1, 101)}
    assert stopping.choose_at_plateau(STEPS, falling) == 100
    slow = {step: (1.0, 0.96, 0.5, 0.4)[(step - 1) // 25] for step in range(1, 101)}
    assert stopping.choose_at_plateau(STEPS, slow) == 50
    just_enough = {step: (1.0, 0.94, 0.89, 0.88)[(step - 1) // 25] for step in range(1, 101)}
    assert stopping.choose_at_plateau(STEPS, just_enough) == 100


def test_regrets_of_the_arms():
    runs = [
        run_of("a", 0, [3.0, 2.0, 1.0, 1.5, 2.5], validation=[3.0, 0.9, 1.0, 1.5, 2.5]),
        run_of("b", 0, [9.0, 8.0, 7.0, 5.0, 6.0]),
        run_of("c", 0, [2.0, 1.0, 1.2, 1.1, 1.9]),
    ]
    by_interactions = [
        {stopping.RELEASED: 25, stopping.MENDED: 100, stopping.ONLINE: 75} for _ in runs
    ]
    table = stopping.tabulate(runs, by_interactions)
    of_a = {row["arm"]: row for row in table.filter(run="a-0").iter_rows(named=True)}
    assert set(of_a) == set(stopping.ARMS)
    assert {arm: row["step"] for arm, row in of_a.items()} == {
        stopping.RELEASED: 25,
        stopping.MENDED: 100,
        stopping.ONLINE: 75,
        stopping.SAME_PROMPTS: 50,
        stopping.VALIDATION: 25,
        stopping.FIXED: 75,  # of b and c: (5.0 + 1.1) / 2 is the lowest; a itself has no say
        stopping.TRAINING: 50,
        stopping.LAST_BUT_ONE: 75,
        stopping.LAST: 100,
        stopping.RANDOM: None,
        stopping.ORACLE: 50,
    }
    assert of_a[stopping.RELEASED]["regret"] == pytest.approx(1.0)
    assert of_a[stopping.RANDOM]["regret"] == pytest.approx((2.0 + 1.0 + 1.5 + 2.5) / 4 - 1.0)
    assert of_a[stopping.ORACLE]["regret"] == 0


def test_equal_losses_go_to_the_earlier_checkpoint():
    chosen = stopping.choose_by_losses(run_of("a", 0, [3.0, 1.0, 1.0, 1.0, 2.0]), [])
    assert chosen[stopping.ORACLE] == 25
    assert stopping.FIXED not in chosen


def test_the_interval_is_that_of_a_two_way_layout():
    generator = np.random.default_rng(0)
    table = generator.normal(size=(12, 3))
    found = stopping.pool({(k,): row for k, row in enumerate(table)})
    # One-way analysis of variance: residual mean square over the number of observations.
    residual = (table - table.mean(1, keepdims=True)).ravel()
    error = np.sqrt(residual @ residual / 24 / 36)
    assert found.degrees == 24
    assert found.mean == pytest.approx(table.mean())
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 24) * error)


def test_the_interval_covers_what_it_should_with_unequal_cells():
    generator = np.random.default_rng(1)
    sizes = (2, 1, 3, 2)
    truth = np.array([0.0, 5.0, -3.0, 2.0])
    hits = 0
    for _ in range(2000):
        cells = {(k,): truth[k] + generator.normal(size=size) for k, size in enumerate(sizes)}
        found = stopping.pool(cells)
        hits += found.low <= truth.mean() <= found.high
    assert 0.935 < hits / 2000 < 0.965


def test_cells_of_one_seed_have_no_interval():
    found = stopping.pool({("a",): [1.0], ("b",): [3.0]})
    assert found.mean == 2.0
    assert np.isnan(found.low)
    assert np.isnan(found.high)


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (-0.2, -0.1, "better"),
        (0.01, 0.02, "worse"),
        (-0.1, 0.02, "not worse by more"),
        (-0.1, 0.2, "cannot be told"),
    ],
)
def test_verdict(low, high, says):
    interval = stopping.Interval((low + high) / 2, low, high, 24)
    assert says in stopping.verdict(interval, 36)
    assert stopping.verdict(interval, 35).startswith("open")


def test_noise_is_compared_by_pairs_of_runs():
    runs, judged = [], []
    for task, clean, noisy in (("a", 10.0, 12.0), ("b", 20.0, 23.0)):
        for noise, value in ((0.0, clean), (0.3, noisy)):
            runs.append(run_of(task, 0, [3.0, 1.0, 1.0, 1.0, 2.0], noise=noise))
            judged.append(stopping.Judged([], None, {}, None, None, {"salient": value}))
    runs.append(run_of("c", 0, [1.0] * 5))  # has no noisy partner
    judged.append(stopping.Judged([], None, {}, None, None, {"salient": 1000.0}))
    row = stopping.compare_noise(runs, judged).row(0, named=True)
    assert row["quantity"] == "salient"
    assert (row["clean"], row["noisy"], row["cells"]) == (15.0, 17.5, 2)
    half = stats.t.ppf(0.975, 1) * 0.5  # the differences are 2 and 3
    assert row["difference"] == pytest.approx(2.5)
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(2.5 - half), pytest.approx(2.5 + half))


def planted_run(training):
    """A planted fine-tuning without noise: samples, rows of ``dynamics``, and what the protocol finds."""
    salience = {"rule": "max_effect", "threshold": 0.05}
    run = plant("two_stages", 6, 8, training=training)
    rows = add_generalizability(
        classify(run.salient(salience)), run.reference_salient(salience), run.n_players
    )
    samples = list(run.samples)
    return samples, rows, examine(rows, samples, run.steps, run.n_players, level=0.95)


def test_a_cell_with_three_seeds_has_a_verdict_over_them():
    runs = [run_of(task, seed, [1.0] * 5) for task, n in (("a", 3), ("b", 2)) for seed in range(n)]
    runs = [dataclasses.replace(run, name=f"{run.task}-seed{run.seed}") for run in runs]
    planted = [planted_run(run.seed) for run in runs]
    tested = [one for _, _, one in planted]
    judged = [stopping.Judged(s, rows, {}, one, one, {}) for s, rows, one in planted]
    rows = stopping.tabulate_seeds(runs, judged, 0.95)
    assert rows["runs"].unique().to_list() == ["a"]
    assert rows["n_seeds"].unique().to_list() == [3]
    assert_frame_equal(rows.drop("runs", "n_seeds"), tabulate_over_seeds(tested[:3], 0.95))
    assert stopping.tabulate_seeds(runs[1:], judged[1:], 0.95).is_empty()
    # What seeds share needs no three of them.
    steps = sorted(planted[0][1]["step"].unique())
    runs = [dataclasses.replace(run, steps=steps) for run in runs]
    shared = stopping.tabulate_agreement(runs, judged, 0.95)
    assert shared.select("runs", "n_seeds").unique(maintain_order=True).rows() == [
        ("a", 3),
        ("b", 2),
    ]
    (samples, _, _), of_b = planted[3], [rows for _, rows, _ in planted[3:]]
    assert_frame_equal(
        shared.filter(runs="b").drop("runs", "n_seeds"),
        agreement.tabulate(of_b, samples, steps, 0.95),
    )
    assert stopping.tabulate_agreement(runs[2:4], judged[2:4], 0.95).is_empty()
    parts = stopping.tabulate_parts(judged)
    assert parts["part"].to_list() == tested[0].parts["part"].to_list()
    most = parts.row(by_predicate=pl.col("part") == "3.2 most", named=True)
    assert (most["supported"], most["contradicted"], most["inconclusive"]) == (5, 0, 0)
    assert most["value"] == pytest.approx(np.mean([one.values["3.2 most"][0] for one in tested]))
    found = stopping.tabulate_findings(runs, judged)
    assert set(found["denoising_ends"]) == {"2"}
    assert set(found["finding 3"]) == {"supported"}
    assert found["finding 3"].equals(found["finding 3, thresholds of step 0"])


def test_the_joint_reading_of_a_run_changes_less_and_is_as_sparse():
    folder = PATH.parents[1] / "results" / "reference" / "stopping" / "smollm2-tweets-low-seed0"
    config = resolve(*config_file.read([PATH.parents[1] / "config" / "stopping.yaml"]))
    assert config["optima"]["reading"] == "single"
    effects = ["sample_id", "kind", "pattern", "effect"]
    change, l1 = {}, {}
    for reading in ("single", "joint"):
        chosen = {**config, "optima": {**config["optima"], "reading": reading}}
        samples, found = stopping.read_interactions(folder, [0, 25], chosen)
        assert len(samples) == 16
        before, after = (found[step][0].select(effects) for step in (0, 25))
        both = before.join(after, on=effects[:3], how="full", coalesce=True, suffix="_after")
        moved = pl.col("effect").fill_null(0) - pl.col("effect_after").fill_null(0)
        change[reading] = both.filter(pl.col("kind") != "bias").select(moved.abs().sum()).item()
        l1[reading] = [found[step][1]["l1_plain"].to_numpy() for step in (0, 25)]
    assert change["joint"] < 0.99 * change["single"]
    np.testing.assert_allclose(l1["joint"], l1["single"], rtol=2e-6)


def test_what_was_extracted_is_kept_for_the_same_settings(tmp_path, monkeypatch):
    reference = PATH.parents[1] / "results" / "reference" / "stopping"
    folder, kept = reference / "smollm2-tweets-low-seed0", tmp_path / "kept"
    config = resolve(*config_file.read([PATH.parents[1] / "config" / "stopping.yaml"]))
    samples, found = stopping.read_interactions(folder, [0, 25], config)
    assert stopping.keep_interactions(kept, folder, [0, 25], config)[0] == samples

    def extract(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(stopping, "extract", extract)
    again, tables = stopping.keep_interactions(kept, folder, [0, 25], config)
    assert again == samples
    for step in (0, 25):
        for one, other in zip(tables[step], found[step], strict=True):
            assert_frame_equal(one, other, check_exact=True)
    # Others are extracted: another setting, run or checkpoint, and what was not finished.
    other = {**config, "extraction": {**config["extraction"], "noise_ratio": 0.05}}
    for place, steps, chosen in (
        (folder, [0, 25], other),
        (folder, [0, 50], config),
        (reference / "smollm2-tweets-low-seed1", [0, 25], config),
    ):
        with pytest.raises(NotImplementedError):
            stopping.keep_interactions(kept, place, steps, chosen)
    (place,) = kept.iterdir()
    file = place / "step-25.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:200] + b"?" + content[201:])
    with pytest.raises(
        ValueError,
        match=r"step-25\.parquet: this is not what was written .*; delete .*, and start again$",
    ):
        stopping.keep_interactions(kept, folder, [0, 25], config)
    place.joinpath("SHA256SUMS").unlink()
    with pytest.raises(NotImplementedError):
        stopping.keep_interactions(kept, folder, [0, 25], config)


@pytest.mark.slow
def test_interactions_of_real_runs_are_judged(tmp_path):
    """The command itself, on one committed run of each task."""
    reference = PATH.parents[1] / "results" / "reference" / "stopping"
    names = [f"smollm2-{task}-high-seed0" for task in ("tweets", "goemotions", "dolly")]
    for name in names:
        (tmp_path / name).symlink_to(reference / name)
    command = [sys.executable, PATH, "--runs", tmp_path, "--output", tmp_path / "tables"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "3 of 36 runs are finished" in done.stdout
    assert "open: 3 of 36" in done.stdout
    made = pl.read_csv(tmp_path / "tables" / "choices.csv")
    committed = pl.read_csv(reference / "tables" / "choices.csv").filter(pl.col("run").is_in(names))
    key = ["run", "arm"]
    fixed = pl.col("arm") != stopping.FIXED  # depends on the other runs
    expected = committed.filter(fixed).sort(key)
    assert len(expected) == 3 * (len(stopping.ARMS) - 1)
    assert_frame_equal(made.filter(fixed).sort(key), expected)
