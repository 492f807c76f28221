"""Figures 1, 5, 6 and 9, which show single samples, hold the numbers of the tables."""

import json

import numpy as np
import polars as pl
import pytest
from random_runs import make_run, panel, texts

from sft_interactions import tables
from sft_interactions.analysis.dynamics import add_generalizability, classify
from sft_interactions.analysis.faithfulness import LogOdds
from sft_interactions.analysis.salience import select_salient
from sft_interactions.analysis.samples import (
    AnalysedPrompt,
    LogicalModel,
    best_step,
    read_logical_model,
    read_prompt,
)
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.program import extract
from sft_interactions.figures import (
    comparison as fig9,
)
from sft_interactions.figures import (
    faithfulness as fig5,
)
from sft_interactions.figures import (
    interactions as fig1,
)
from sft_interactions.figures import (
    panels,
)
from sft_interactions.figures import (
    sparsity as fig6,
)
from sft_interactions.figures.logical_model import lay_out, text_width
from sft_interactions.figures.style import MEDIUM, save

SALIENCE = {"rule": "max_effect", "threshold": 0.05}
STEPS = (0, 5, 20, 300)
SAMPLES = ["s0", "s1"]
WORDS = ["film", "truly", "wonderful", "friend"]
TEXT = "The film was truly wonderful, friend!"
N = len(WORDS)


def write(frame, path, table):
    tables.write(frame, path, table, created_by="test", config_hash="0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables of a run on random log_odds, as far as these figures read them."""
    root = tmp_path_factory.mktemp("run")
    random = np.random.default_rng(0)
    data = {"sample_id": SAMPLES, "prompt": [TEXT, TEXT], "target": ["positive", "negative"]}
    write(pl.DataFrame(data), root / "analysis.parquet", tables.DATA)
    prefix = "<user> Film? The answer:\n"
    prompts = {
        "sample_id": SAMPLES,
        "rendered": [f"{prefix}{TEXT} <assistant>"] * 2,
        "token_ids": [[1], [1]],
        "player_of_token": [[-1], [-1]],
        "target_token_ids": [[2], [2]],
    }
    write(pl.DataFrame(prompts), root / "prompts.parquet", tables.PROMPTS)
    players = [
        (sample_id, k, word, len(prefix) + TEXT.index(word), 0, 1)
        for sample_id in SAMPLES
        for k, word in enumerate(WORDS)
    ]
    players = pl.DataFrame(players, schema=tables.PLAYERS.columns, orient="row").with_columns(
        char_end=pl.col("char_start") + pl.col("word").str.len_chars().cast(pl.UInt32)
    )
    write(players, root / "players.parquet", tables.PLAYERS)
    salient = {}
    for step in STEPS:
        values = random.normal(size=(2, 2**N)).astype(np.float32).astype(float)
        rows, solve = from_extraction(SAMPLES, values, extract(values, noise_ratio=0.04))
        stem = root / "interactions" / f"step-{step}"
        write(rows, stem.with_suffix(".parquet"), tables.INTERACTIONS)
        write(solve, stem.with_suffix(".solve.parquet"), tables.SOLVE)
        log_odds = {
            "sample_id": np.repeat(SAMPLES, 2**N),
            "mask": np.tile(np.arange(2**N), 2),
            "log_odds": values.ravel(),
        }
        write(pl.DataFrame(log_odds), root / "log_odds" / f"step-{step}.parquet", tables.LOG_ODDS)
        salient[step] = select_salient(rows, solve, **SALIENCE)
    dynamics = add_generalizability(classify(salient), None, N)
    write(dynamics, root / "dynamics.parquet", tables.DYNAMICS)
    (root / "stages.json").write_text(json.dumps({"best_checkpoint_step": 20}))
    return root


@pytest.fixture(scope="module")
def prompt(folder):
    return read_prompt(folder, folder / "analysis.parquet", "s1")


@pytest.fixture(scope="module")
def model(folder):
    return read_logical_model(folder, "A model, t = 20", 20, "s1", SALIENCE)


@pytest.fixture(scope="module")
def dynamics(folder):
    return tables.read(folder / "dynamics.parquet", tables.DYNAMICS)


def test_prompt_finds_its_players_in_the_user_text(prompt):
    assert [prompt.text[a:b] for a, b in prompt.spans] == list(prompt.words) == WORDS
    assert (prompt.sample_id, prompt.target) == ("s1", "negative")


def test_without_a_choice_the_first_sample_is_shown(folder):
    assert read_prompt(folder, folder / "analysis.parquet", None).sample_id == "s0"


def test_an_unknown_sample_is_refused(folder):
    with pytest.raises(ValueError, match=r"figures\.sample: 'nobody' is not among"):
        read_prompt(folder, folder / "analysis.parquet", "nobody")


def test_best_step_is_read(folder):
    assert best_step(folder) == 20


def test_logical_model_gives_the_output_within_the_noise_bound(folder, model):
    solve = tables.read(folder / "interactions" / "step-20.solve.parquet", tables.SOLVE)
    bound = solve.filter(sample_id="s1")["noise_bound"].item()
    assert abs(model.prediction - model.log_odds) <= bound * (1 + 1e-9)
    sizes = model.interactions["effect"].abs().to_list()
    assert sizes == sorted(sizes, reverse=True)


def test_strongest_are_the_strongest_with_some_of_each_kind():
    effects = [9.0, 8, 7, 6, 5, 4, 3]
    kinds = ["and"] * 5 + ["or"] * 2
    rows = pl.DataFrame({"kind": kinds, "pattern": range(7), "effect": effects}).with_columns(
        pl.col("kind").cast(tables.KIND)
    )
    model = LogicalModel("", 0, rows, 0.0, 0.0, 0.0)
    assert model.strongest(4, 1)["effect"].to_list() == [9, 8, 7, 4]
    assert model.strongest(4, 2)["effect"].to_list() == [9, 8, 4, 3]
    assert model.strongest(4, 3)["effect"].to_list() == [9, 8, 7, 4]
    assert len(model.strongest(10, 3)) == 7


def test_prompt_lines_hold_the_whole_text_within_the_width(prompt):
    width = 1.0
    lines = lay_out(prompt, width)
    assert "".join(text for line in lines for _, text, _ in line) == f"“{TEXT}”"
    assert [text for line in lines for _, text, player in line if player] == WORDS
    assert len(lines) > 1
    for line in lines:
        left, text, _ = line[-1]
        assert len(line) == 1 or left + text_width(text.rstrip(), MEDIUM) <= width


def test_a_long_prompt_is_cut_around_its_players():
    text = "word " * 200 + "film and friend" + " word" * 200
    start = text.index("film")
    prompt = AnalysedPrompt(
        "s", text, "t", ["film", "friend"], [(start, start + 4), (start + 9, start + 15)]
    )
    drawn = "".join(piece for line in lay_out(prompt, 6) for _, piece, _ in line)
    assert drawn == "“… film and friend …”"


def test_fig1_boxes_and_bars_are_those_of_the_tables(dynamics, model, prompt):
    figure = fig1.draw(make_run(steps=STEPS, n=N), dynamics, model, prompt)
    shown = texts(figure)
    for row in model.strongest(fig1.SHOWN, fig1.OF_EACH_KIND).iter_rows(named=True):
        assert f"{row['kind'].upper()}  {row['effect']:+.2f}".replace("-", "−") in shown
    n_samples = 9  # of the metrics of make_run
    for step in STEPS:
        axes = panel(figure, f"orders:{step}")
        ends = {"top": np.zeros(N), "bottom": np.zeros(N)}
        for bar in axes.patches:
            order = round(bar.get_x() + bar.get_width() / 2) - 1
            end = "top" if bar.get_height() > 0 else "bottom"
            ends[end][order] += bar.get_height()
        now = dynamics.filter(pl.col("class") != "removed", step=step)
        for sign, end in ((1, "top"), (-1, "bottom")):
            part = now.filter(pl.col("effect") * sign > 0)
            expected = [part.filter(order=k)["effect"].sum() / n_samples for k in range(1, N + 1)]
            assert ends[end] == pytest.approx(expected)


def test_fig1_groups_tell_kept_from_lost(dynamics):
    found = fig1.strengths(dynamics, STEPS, range(1, N + 1), 1)
    key = ["sample_id", "kind", "pattern"]
    last = dynamics.filter(pl.col("class") == "preserved", step=300)
    first = dynamics.filter(step=0)
    for group, how in (("kept", "semi"), ("lost", "anti")):
        total = found[group, "positive"][0].sum() + found[group, "negative"][0].sum()
        assert total == pytest.approx(first.join(last, on=key, how=how)["effect"].sum())
    assert not found["lost", "positive"][-1].any()


@pytest.mark.parametrize(
    ("steps", "boundary", "chosen"),
    [
        ([0, 4, 12], 1, [0, 4, 12]),
        (list(range(10)), 1, [0, 1, 2, 4, 5, 9]),
        (list(range(7)), 0, [0, 1, 2, 4, 5, 6]),
    ],
)
def test_fig1_chooses_checkpoints(steps, boundary, chosen):
    assert fig1.choose_steps(steps, boundary, 6) == chosen


def make_log_odds(error):
    llm = np.random.default_rng(1).normal(size=(2, 16))
    size = np.abs(llm[:, -1] - llm[:, 0])[:, None]
    return LogOdds(SAMPLES, llm, llm + error * size, llm + 3 * error * size)


def test_fig5_draws_the_outputs_sorted_and_the_errors_as_shares():
    log_odds = make_log_odds(0.03)
    figure = fig5.draw([fig5.Faithfulness("A run", 5, log_odds, "s1")], noise_ratio=0.04)
    top, bottom = figure.axes
    order = np.argsort(log_odds.llm[1])
    drawn = {line.get_gid(): line.get_ydata() for line in top.lines}
    np.testing.assert_allclose(drawn["llm"], log_odds.llm[1][order])
    np.testing.assert_allclose(drawn["logical"], log_odds.logical[1][order])
    np.testing.assert_allclose(drawn["salient"], log_odds.salient[1][order])
    for patch, error in zip(bottom.patches, (0.03, 0.09), strict=True):
        shares, edges, _ = patch.get_data()
        assert shares.sum() == pytest.approx(1)
        full = np.flatnonzero(shares)
        assert edges[full[0]] - 1e-9 <= error <= edges[full[-1] + 1] + 1e-9


def test_fig6_draws_the_strengths_of_at_most_twenty_samples():
    strengths = [np.array([1.0, 0.5, 0.1 / k]) for k in range(1, 31)]
    run = fig6.Sparsity("A run", 5, strengths, 2.5, 26)
    figure = fig6.draw([run], n_players=4, threshold=0.05)
    lines = [line for line in figure.axes[0].lines if line.get_gid() == "sample"]
    assert len(lines) == run.n_samples == 20
    for line, expected in zip(lines, strengths[:20], strict=True):
        np.testing.assert_array_equal(line.get_ydata(), expected)
    (salient,) = [line for line in figure.axes[0].lines if line.get_gid() == "salient"]
    assert set(salient.get_xdata()) == {2.5}


def test_fig9_marks_what_is_shared():
    def rows(*items):
        schema = {"kind": tables.KIND, "pattern": pl.UInt32, "effect": pl.Float64}
        return pl.DataFrame(items, schema=schema, orient="row")

    mine = rows(("and", 3, 1.0), ("or", 3, 1.0), ("and", 1, -1.0), ("and", 2, 0.5))
    other = rows(("and", 3, 0.1), ("and", 1, 1.0), ("and", 2, 0.5))
    assert fig9.shared(mine, other).to_list() == [True, False, False, True]


def drawings(dynamics, model, prompt):
    faithful = fig5.Faithfulness("A run", 5, make_log_odds(0.03), "s1")
    sparse = fig6.Sparsity("A run", 5, [np.array([1.0, 0.5])], 2.0, 26)
    return {
        "fig1": fig1.draw(make_run(steps=STEPS, n=N), dynamics, model, prompt),
        "fig5": fig5.draw([faithful, faithful], noise_ratio=0.04),
        "fig6": fig6.draw([sparse] * 3, n_players=4, threshold=None),
        "fig9": fig9.draw([model, model], prompt),
        "none": panels.draw_no_runs([], level=0.95),
    }


def test_nothing_is_cut_off(dynamics, model, prompt):
    for name, figure in drawings(dynamics, model, prompt).items():
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 >= -0.02, name
        assert box.y0 >= -0.02, name
        assert box.x1 <= width + 0.02, name
        assert box.y1 <= height + 0.02, name


def test_saving_twice_gives_the_same_bytes(dynamics, model, prompt, tmp_path):
    for again in (1, 2):
        for name, figure in drawings(dynamics, model, prompt).items():
            save(figure, [tmp_path / f"{name}-{again}.{form}" for form in ("pdf", "png", "svg")])
    for first in tmp_path.glob("*-1.*"):
        second = tmp_path / first.name.replace("-1.", "-2.")
        assert first.read_bytes() == second.read_bytes(), first.name
