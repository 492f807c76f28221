from dataclasses import replace

import polars as pl
from random_runs import texts

from sft_interactions.figures import comparison
from sft_interactions.figures.logical_model import signed


def test_the_strongest_of_each_kind_are_drawn_and_shared_ones_counted(model, prompt):
    opposite = model.interactions.with_columns(-pl.col("effect"))
    other = replace(model, interactions=pl.concat([model.interactions[:3], opposite[3:]]))
    shown = texts(comparison.draw([model, other], [prompt]))
    for kind in ("and", "or"):
        rows = model.interactions.filter(pl.col("kind") == kind)["effect"].to_list()
        for effect in rows[: comparison.IN_A_ROW]:
            assert f"{kind.upper()}  {signed(effect)}" in shown
    n = len(model.interactions)
    assert sum(f"3 of {n} salient shared" in text for text in shown) == 2


def test_a_model_without_interactions_says_so(model, prompt):
    empty = replace(model, interactions=model.interactions.clear())
    shown = texts(comparison.draw([model, empty], [prompt]))
    assert shown.count("no salient AND interaction") == 1
    assert shown.count("no salient OR interaction") == 1


def test_scored_tokens_that_differ_are_named_apart(model, prompt):
    def target(*scored):
        prompts = [replace(prompt, target="cooking", scored=text) for text in scored]
        return texts(comparison.draw([model, model], prompts))

    assert "“cooking”" in target("cooking", "cooking")
    assert "“c” of “cooking” (left); “cook” of “cooking” (right)" in target("c", "cook")
    assert "“c” of “cooking”" in target("c")


def test_long_titles_stay_in_their_halves(model, prompt):
    title = (
        "Llama-3.2-3B-Instruct fine-tuned with LoRA (r = 16, lr 1e-4) on GoEmotions, seed 0, t = 1"
    )
    models = [replace(model, title=title), replace(model, title="short, t = 1")]
    figure = comparison.draw(models, [prompt])
    figure.draw_without_rendering()
    drawn = [text for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    middle = figure.bbox.width / 2
    left = [text for text in drawn if text.get_text() in title]
    assert " ".join(text.get_text() for text in left) == title
    assert len(left) > 1
    assert max(text.get_window_extent().x1 for text in left) <= middle
    # Nothing below is drawn over them.
    line = next(text for text in figure.axes[0].texts if text.get_text().startswith("v(N)"))
    assert min(text.get_window_extent().y0 for text in left) > line.get_window_extent().y1
