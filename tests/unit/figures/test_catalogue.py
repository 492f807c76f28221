"""What holds for every figure of the catalogue."""

from pathlib import Path

import numpy as np
import pytest
from random_runs import far_beyond, make_run, make_sensitivity, overfitting, with_training
from sample_tables import SAMPLES, STEPS, N

from sft_interactions.analysis.faithfulness import Faithfulness, LogOdds
from sft_interactions.analysis.sparsity import Sparsity
from sft_interactions.figures import (
    carriers,
    comparison,
    evolution,
    faithfulness,
    interactions,
    quality,
    sparsity,
    survival,
)
from sft_interactions.figures.catalogue import FIGURES, FORMATS
from sft_interactions.figures.style import save

CAPTIONS = Path(__file__).parents[3] / "workflow" / "report"
LONG = "Model-{}B-Instruct on a data set with a long name"
LEVEL = 0.95
EVERY_SUBJECT = pytest.mark.parametrize(
    "subject", sorted({entry.subject for entry in FIGURES.values()})
)


def many_runs(n):
    return [make_run(LONG.format(i), tuple(range(0, 10000, 1000)), n=16) for i in range(n)]


@pytest.fixture
def draw_examples(subject, dynamics, model, prompt):
    """Function that draws figures of a subject one by one, the first of them a small one."""
    llm = np.random.default_rng(1).normal(size=(2, 16))
    faithful = Faithfulness("A run", 5, LogOdds(SAMPLES, llm, llm + 0.01, llm + 0.03), "s1")
    sparse = Sparsity("A run", 5, [np.array([1.0, 0.5])], 2.0, 26)
    small = make_run(steps=(0, 1, 2), n=2)
    plain = make_run()

    def draw():
        match subject:
            case "interactions":
                run = make_run(steps=STEPS, n=N)
                yield interactions.draw(run, dynamics, model, prompt)
            case "evolution":
                other = with_training(make_run("Another model on data"))
                far = overfitting(far_beyond(plain, 100), 20)
                of_runs = ([small], many_runs(1), [plain, overfitting(other, 20)], [far])
                yield from (evolution.draw(runs, level=LEVEL) for runs in of_runs)
            case "quality":
                yield from (quality.draw(runs, level=LEVEL) for runs in ([plain], many_runs(5)))
            case "carriers":
                yield from (carriers.draw(runs, level=LEVEL) for runs in ([plain], many_runs(5)))
            case "faithfulness":
                yield faithfulness.draw([faithful] * 2, noise_ratio=0.04)
            case "sparsity":
                yield sparsity.draw([sparse] * 3, n_players=4, threshold=None)
            case "comparison":
                yield comparison.draw([model, model], [prompt])
            case "survival":
                runs = {LONG.format(i): make_sensitivity() for i in range(3)}
                yield survival.draw(runs, level=LEVEL)
            case _:
                pytest.fail(f"draw_examples has no case for {subject}; add one")

    return draw


@pytest.mark.slow
@EVERY_SUBJECT
def test_nothing_is_cut_off(draw_examples):
    for figure in draw_examples():
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 >= -0.02
        assert box.y0 >= -0.02
        assert box.x1 <= width + 0.02
        assert box.y1 <= height + 0.02


@pytest.mark.slow
@EVERY_SUBJECT
def test_drawing_twice_gives_the_same_bytes(draw_examples, tmp_path):
    first, again = (
        [tmp_path / f"{time}.{form}" for form in FORMATS] for time in ("first", "again")
    )
    save(next(draw_examples()), first)
    save(next(draw_examples()), again)
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.suffix


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_caption(name):
    assert (CAPTIONS / f"{name}.rst").read_text().startswith("**")
