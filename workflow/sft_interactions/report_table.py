"""Tables for readers: csv with all digits and the names of columns, Markdown in words with a legend."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from sft_interactions import tables
from sft_interactions.report_page.wording import WORDS

DIGITS = 3
# Columns with texts of users, which are shown as they are. A bar is taken care of in every cell.
FROM_DATA = ("in_words",)
MARKUP = r"\`*_{}[]<>#$~&"
# Column to its heading.
HEADINGS = {
    "agreement": "share that another seed has",
    "as_published": "verdict by the paper's definitions",
    "best_checkpoint_epoch": "best checkpoint, epoch",
    "best_checkpoint_step": "best checkpoint, step",
    "best_ci_high_step": "best checkpoint, interval to",
    "best_ci_low_step": "best checkpoint, interval from",
    "boundary_step": "denoising stage ends at step",
    "ci_high": "interval to",
    "ci_high_step": "interval to step",
    "ci_low": "interval from",
    "ci_low_step": "interval from step",
    "class": "interactions",
    "denoising_ends": "denoising stage ends at step",
    "detector": "how the end is found",
    "determined": "same under every tie-break and reading",
    "finding_verdict": "verdict on the finding",
    "gamma": "generalizable share γ",
    "kept_by_chance": "kept by chance",
    "largest_error": "largest error",
    "loss_rate": "share lost",
    "lowest_validation_loss": "lowest validation loss",
    "lowest_validation_loss_step": "step of the lowest validation loss",
    "mean_error": "mean error",
    "mean_order": "mean order",
    "metric": "what is measured",
    "n_choices": "other choices",
    "n_same": "of them with the same verdict",
    "n_pairs": "pairs of seed and prompt",
    "n_samples": "prompts",
    "n_seeds": "seeds",
    "next_step": "to step",
    "other_verdicts": "other verdicts",
    "parts_contradicted": "parts contradicted",
    "parts_supported": "parts supported",
    "quantity": "what is measured",
    "removed_share_step": "step at which most removals are done",
    "rho": "uncancelled share ρ",
    "sample_id": "prompt",
    "shared": "that another seed has",
    "shared_by_chance": "shared by chance",
    "statistic": "what is measured",
    "validation_loss_at_best": "validation loss at the best checkpoint",
}
# Name of a metric or a quantity to its words.
METRICS = {
    "churn_floor": "number that noise alone would remove or bring",
    "contribution": "average contribution of one interaction (log-odds)",
    "count": "number of interactions",
    "cross_entropy": "cross-entropy with these interactions alone (nats, lower is better)",
    "for_strength": "fewest interactions that hold 90 % of the strength",
    "gamma": "generalizable share γ",
    "gamma_by_count": "generalizable share γ, by count",
    "mean_order": "mean order",
    "nonzero": "interactions that are not zero",
    "rho": "uncancelled share ρ",
    "salient": "salient interactions",
    "salient_of_small_difference": "share of salient interactions in prompts with a small difference",
    "salient_strength": "share of the strength in salient interactions",
    "small_difference": "share of prompts with a small difference",
    "strength_negative": "strength of negative effects (log-odds)",
    "strength_positive": "strength of positive effects (log-odds)",
    "strength_total": "total strength (log-odds)",
}
# End of a metric's name to what it adds to the words.
ENDINGS = {
    "_chance": "chance level of: ",
    "_churn_floor": "what noise alone gives for: ",
    "_certain": "certain interactions alone, ",
    "_joint": "reading that changes least, ",
    "_single": "each checkpoint by itself, ",
}
_INTERVAL = r"\binterval (from|to)\b"
# What occurs in headings or cells to what the legend says of it.
LEGEND = {
    r"\bΩ_0": "Ω_0: the salient interactions before SFT.",
    r"\b[PER]_[dT]\b": "P, R, E: preserved, removed and newly emerged interactions; P_d at the end of the "
    "denoising stage, P_T at the last checkpoint.",
    r"[LNK][₁₂]": "L, N, K: interactions that are lost, new and kept from checkpoint to checkpoint; L₁ in "
    "the denoising stage, L₂ after it.",
    r"G[₁₂]": "G: interactions of before SFT that are gone for good; G₁ in the denoising stage, G₂ after "
    "it. S: those seen at one checkpoint only, a mean over the checkpoints but the first and the last.",
    r"\b(d / T|by d|by T|to d|to T|at d)\b": "d: the step at which the denoising stage ends; T: the last "
    "step.",
    r"\blog 2\b": "log 2: the cross-entropy without any interaction, 0.693.",
    "γ": "γ: the share of the strength (by count: of the interactions) that the reference model, another "
    "LLM, has too (0 to 1).",
    "ρ": "ρ: the share of the strength that does not cancel (0 to 1).",
    "ζ": "ζ: the noise bound of the extraction.",
    r"\border\b": "Order: the number of players of an interaction.",
    r"(?<!by )\bchance\b": "Chance: what would be there if patterns or signs were drawn at random.",
    r"\bkept by chance\b": "By chance: if each prompt met the interactions of another one.",
    r"\bshared by chance\b": "By chance: if each prompt met the interactions of another one; of what is "
    "preserved or removed, if the other seed had drawn as many of those before SFT.",
    r"\bsmall difference\b": "Small difference: |v(N) − v(∅)| is below a quarter of the range of the "
    "log-odds.",
    r"\b(mean|largest) error\b": "Error: |φ − v| / |v(N) − v(∅)|, a share; its mean over all maskings and "
    "prompts, or the largest.",
    r"\bbest checkpoint\b": "Best checkpoint: the last one up to which interactions go on to emerge at one "
    "pace; it is not chosen by the validation loss.",
    _INTERVAL: "Interval: at the level `bootstrap.level` of the config, over prompts.",
    r"\bseeds\b": "Seeds: repeats of the fine-tuning, with the same samples.",
    r"\beffect\b": "Effect: in log-odds; above 0 it speaks for the target, below 0 against it.",
    r"\bloss\b(?! rate)": "Loss: nats a token.",
    r"\bpreserved\b": "Preserved: salient at every checkpoint so far (by the protocol with one sign); "
    "removed: salient before SFT and not "
    "now; emerged: salient now and not at some checkpoint before.",
}
OVER_SEEDS = "Interval: at the level `bootstrap.level` of the config, over prompts and seeds."
EMPTY = "An empty cell: it does not apply, or is not known."


def write(
    frame: pl.DataFrame,
    csv_path: str | Path,
    md_path: str | Path,
    *,
    n_players: int,
    n_samples: int,
    in_words: bool = False,
    intervals: str | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write a table for readers.

    Args:
        frame: the table.
        csv_path: gets it as it is, with all digits.
        md_path: gets it with headings, metrics and yes or no in words, three digits, and below it what the
            words and symbols that occur mean.
        n_players: players of a prompt, what is masked in it.
        n_samples: analysed prompts of a run, the largest number where runs differ.
        in_words: whether statistics of parts of the findings are put into words too.
        intervals: what the legend says of intervals that are not over prompts.
        notes: further lines below it.
    """
    with tables.replacing(csv_path) as temporary:
        frame.write_csv(temporary)
    if in_words:
        words = pl.col("part").replace_strict(WORDS, default="", return_dtype=pl.String)
        frame = frame.with_columns(statistic=pl.format("{} ({})", words, "statistic"))
    heads = [_cell(HEADINGS.get(column, column.replace("_", " "))) for column in frame.columns]
    rows = [
        [_cell(_in_words(column, value)) for column, value in zip(frame.columns, row, strict=True)]
        for row in frame.iter_rows()
    ]
    own = [place for place, column in enumerate(frame.columns) if column not in FROM_DATA]
    lines = [heads, ["---"] * frame.width, *rows]
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    size = f"At most {n_samples} prompts a run, n = {n_players} players (what is masked) in each."
    explained = [[row[place] for place in own] for row in rows]
    legend = LEGEND if intervals is None else {**LEGEND, _INTERVAL: intervals}
    lines_below = [size, *_legend(heads, explained, legend), *notes]
    if any(cell == "" for row in rows for cell in row):
        lines_below.append(EMPTY)
    with tables.replacing(md_path) as temporary:
        temporary.write_text(f"{table}\n" + "".join(f"- {note}\n" for note in lines_below), "utf-8")


def _in_words(column: str, value: object) -> object:
    if column in ("metric", "quantity"):
        return name_of(str(value))
    if column in FROM_DATA:
        return "".join(f"\\{letter}" if letter in MARKUP else letter for letter in str(value))
    return value


def name_of(metric: str) -> str:
    """A metric in words, such as ``each checkpoint by itself, number of interactions``."""
    if metric in METRICS:
        return METRICS[metric]
    for ending, words in ENDINGS.items():
        if metric.endswith(ending):
            return words + name_of(metric.removesuffix(ending))
    return metric


def _legend(
    heads: Sequence[str], rows: Sequence[Sequence[str]], legend: Mapping[str, str]
) -> list[str]:
    text = "\n".join([*heads, *{cell for row in rows for cell in row}])
    return [meaning for pattern, meaning in legend.items() if re.search(pattern, text)]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value)
    # A bar or a line end would end the cell.
    return " ".join(str(value).split()).replace("|", r"\|")


def _number(value: float) -> str:
    """Three digits, and all of a whole part."""
    if not math.isfinite(value) or abs(value) >= 10**DIGITS - 0.5:
        return f"{value:.0f}"
    return f"{value:.{DIGITS}g}"
