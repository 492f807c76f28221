"""The numbers of README.md are those of the committed tables."""

import json
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "results" / "reference"
NAMES = {"smollm2": "SmolLM2", "gemma3": "Gemma"}


@pytest.fixture(scope="module")
def readme():
    return " ".join((ROOT / "README.md").read_text("utf-8").split())


def folder(study, model):
    (found,) = (REFERENCE / study / "runs").glob(f"{model}-*")
    return found


def metric(study, model, name, label, step):
    """A metric over all orders, AND and OR together."""
    table = pl.read_parquet(folder(study, model) / "metrics.parquet")
    return table.row(
        by_predicate=(pl.col("step") == step)
        & (pl.col("class") == label)
        & (pl.col("kind") == "both")
        & pl.col("order").is_null()
        & (pl.col("metric") == name),
        named=True,
    )["value"]


def both(study, name, label, *steps):
    """A metric of both models, each at its step, or both at one."""
    return [
        metric(study, model, name, label, step)
        for model, step in zip(NAMES, steps * (2 // len(steps)), strict=True)
    ]


def test_verdicts(readme):
    table = pl.read_parquet(REFERENCE / "small" / "findings.parquet")
    for finding in range(1, 6):
        cells = []
        for model in NAMES:
            row = table.row(
                by_predicate=(pl.col("finding") == finding) & pl.col("run").str.starts_with(model),
                named=True,
            )
            cells.append(f"{row['verdict']} ({row['parts_supported']} of {row['parts']})")
        line = next(part for part in readme.split("| ") if part.startswith(f"{finding}. "))
        assert f"{line}| {' | '.join(cells)} |" in readme


def test_what_happens(readme):
    gone = both("small", "count", "removed", 60)
    before = both("small", "count", "preserved", 0)
    assert (
        f"After 60 steps, {gone[0]:.0f} of {before[0]:.0f} interactions a prompt (SmolLM2) and "
        f"{gone[1]:.0f} of {before[1]:.0f} (Gemma)" in readme
    )
    for floor in both("small", "churn_floor", "removed", 60):
        assert f"Noise of the inference alone would remove {floor:.0f}." in readme
    kept = both("small", "count", "preserved", 2000)
    order = both("small", "mean_order", "preserved", 2000)
    assert (
        f"Few are preserved to the end: {kept[0]:.1f} and {kept[1]:.1f} a prompt, of mean order "
        f"{order[0]:.1f} and {order[1]:.1f}." in readme
    )
    early, late = (
        both("small", "count", "emerged", 60, 200),
        both("small", "count", "emerged", 2000),
    )
    assert (
        f"from {early[0]:.0f} (step 60) to {late[0]:.0f} a prompt in SmolLM2, from {early[1]:.0f} "
        f"(step 200) to {late[1]:.0f} in Gemma" in readme
    )
    for name, text in (
        ("rho", "ρ falls from {:.2f} to {:.2f} in SmolLM2 and from {:.2f} to {:.2f} in Gemma"),
        ("rho_chance", "falls too, from {:.2f} to {:.2f} and from {:.2f} to {:.2f}."),
    ):
        early, late = both("small", name, "emerged", 60, 200), both("small", name, "emerged", 2000)
        assert text.format(early[0], late[0], early[1], late[1]) in readme
    gamma = metric("small", "smollm2", "gamma", "preserved", 2000)
    chance = metric("small", "smollm2", "gamma_chance", "preserved", 2000)
    assert f"({gamma:.2f} against {chance:.2f} in SmolLM2)" in readme


def test_what_the_data_determine(readme):
    certain = both("tweets", "count_certain", "preserved", 0)
    single = both("tweets", "count_single", "preserved", 0)
    shares = [100 * one / all_ for one, all_ in zip(certain, single, strict=True)]
    assert f"have {shares[0]:.0f} % in SmolLM2 and {shares[1]:.0f} % in Gemma" in readme
    least = []
    for model in NAMES:
        change = pl.read_parquet(folder("tweets", model) / "joint_change.parquet")
        least.append(100 * change["change"].sum() / change["single_change"].sum())
    assert (
        f"SmolLM2's need change no more than {least[0]:.0f} % of what they do if each checkpoint is "
        f"looked at by itself, Gemma's {least[1]:.0f} %" in readme
    )


def test_under_other_choices(readme):
    lines = (REFERENCE / "small" / "tables" / "sensitivity.md").read_text("utf-8").splitlines()
    header, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    found = [dict(zip(header, row, strict=True)) for row in rows[1:]]
    choices = {row["choice"] for row in found} - {"the study's own"}
    assert f"Under {len(choices)} other choices of ours finding 3 stays supported" in readme
    assert {row["verdict"] for row in found if row["finding"] == "3"} == {"supported"}
    supported = {row["finding"] for row in found if row["verdict"] == "supported"}
    assert supported == {"2", "3"}
    assert "of the others only finding 2 is ever supported" in readme


def test_the_protocol(readme):
    table = pl.read_parquet(REFERENCE / "tweets" / "protocol.parquet")
    assert table.filter(pl.col("verdict") == "supported").is_empty()
    assert "Of the default study no finding is supported by it" in readme
    third = table.filter(pl.col("finding") == 3)
    ends = dict(third.select("run", "denoising_ends").iter_rows())
    assert (
        f"at step {ends['smollm2-tweets']} of 72 in SmolLM2, and at step {ends['gemma3-tweets']} of 72 "
        "in Gemma" in readme
    )
    published = dict(third.select("run", "as_published").iter_rows())
    assert published["gemma3-tweets"] == "supported"
    stages = json.loads((folder("tweets", "gemma3") / "stages.json").read_text("utf-8"))
    published_end = stages["boundary_step"]
    assert f"(as published: step {published_end}, and finding 3 supported)" in readme


def test_seeds_and_shuffled_labels(readme):
    table = pl.read_parquet(REFERENCE / "seeds" / "turnover.parquet").sort("step")
    rates = {run: rows["loss_rate"] for (run,), rows in table.group_by("run")}
    seeds = [rates[f"smollm2-tweets-seed{seed}"] for seed in range(3)]
    first, last = ([f"{100 * one[place]:.0f}" for one in seeds] for place in (0, -1))
    shuffled = rates["smollm2-shuffled-seed0"]
    assert (
        f"from {first[0]}, {first[1]} and {first[2]} % to {last[0]}, {last[1]} and {last[2]} % in the "
        f"last quarter; with labels that cannot be learned from {100 * shuffled[0]:.0f} to "
        f"{100 * shuffled[-1]:.0f} %" in readme
    )
    protocol = pl.read_parquet(REFERENCE / "seeds" / "protocol.parquet")
    assert protocol["denoising_ends"].unique().to_list() == ["18"]
    assert "in all four runs the loss rate falls at step 18 of 72" in readme
    over = (REFERENCE / "seeds" / "tables" / "seed-verdicts.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1:-1] for line in over.splitlines() if line.startswith("| smollm2")]
    found = {int(row[3]): row[4].strip() for row in cells}
    assert {row[1].strip() for row in cells} == {"3"}
    assert [found[number] for number in range(1, 6)] == [
        *["contradicted"] * 2,
        *["inconclusive"] * 3,
    ]
    assert "findings 1 and 2 are contradicted, and 3, 4 and 5 inconclusive" in readme


STUDY = REFERENCE / "stopping" / "tables"
WORDS = {0: "no", 19: "nineteen"}


def test_which_checkpoint(readme):
    arms = pl.read_csv(STUDY / "arms.csv")
    regret = dict(arms.select("arm", "regret").iter_rows())
    runs = pl.read_csv(STUDY / "choices.csv")["run"].n_unique()
    assert f"36 runs, of which {runs} are finished" in readme
    assert f"loses {regret['interactions, as released']:.3f} nats of test loss" in readme
    assert f"may also give no advice {regret['interactions, mended']:.3f}," in readme
    assert f"loss on the same sixteen prompts {regret['loss, same prompts']:.3f};" in readme
    assert f"random checkpoint would be {regret['random']:.3f}." in readme
    findings = pl.read_csv(STUDY / "findings.csv")
    verdicts = findings.select(pl.selectors.starts_with("finding"))
    assert "supported" not in verdicts.unpivot()["value"].to_list()
    assert f"In none of the {WORDS[runs]} runs is a finding of the paper supported" in readme
    early = findings["denoising_ends"].cast(pl.String).is_in(["25", "50"]).sum()
    assert f"falls early in {early} of them" in readme
    noise = pl.read_csv(STUDY / "noise.csv")
    assert ((noise["ci_low"] <= 0) & (noise["ci_high"] >= 0)).all()


def test_results_of_the_study_of_checkpoints():
    """docs/stopping.md against the tables of benchmarks/stopping.py."""
    text = (ROOT / "docs" / "stopping.md").read_text("utf-8").replace("−", "-").replace("**", "")
    text = text[text.index("## Results") :]
    choices = pl.read_csv(STUDY / "choices.csv")
    runs = choices["run"].n_unique()
    assert f"{runs} of 36 runs are finished" in text
    differences = {row["arm"]: row for row in pl.read_csv(STUDY / "differences.csv").to_dicts()}
    for row in pl.read_csv(STUDY / "arms.csv").to_dicts():
        if (arm := row["arm"]) == "oracle":
            continue
        cells = [f"{row['regret']:.3f}", ""]
        if arm in differences:
            found = differences[arm]
            cells[1] = (
                f"{found['difference']:.3f} ({found['ci_low']:.3f} to {found['ci_high']:.3f})"
            )
        near = "" if row["near_oracle"] is None else f"{row['near_oracle'] * runs:.0f} of {runs}"
        assert "| " + " | ".join([arm, *cells, near]).replace("|  |", "| |").rstrip() in text, arm
    findings = pl.read_csv(STUDY / "findings.csv")
    for number in range(1, 6):
        verdicts = findings[f"finding {number}"].to_list()
        counts = [verdicts.count(v) for v in ("supported", "contradicted", "inconclusive")]
        assert f"| {number} | {' | '.join(map(str, counts))} |" in text
    ends = findings["denoising_ends"].cast(pl.String).to_list()
    assert f"ends at step 25 ({ends.count('25')} runs), 50 ({ends.count('50')})" in text
    assert sorted(set(ends)) == ["25", "275", "50"]
    last = choices.filter(pl.col("arm") == "last")["regret"]
    assert f"all of them overfit, by {last.min():.2f} to {last.max():.2f} nats" in text
    released = choices.filter(pl.col("arm") == "interactions, as released")["step"].to_list()
    assert released.count(50) == 11
    assert "names step 50, the third checkpoint, in eleven of the nineteen runs" in text
    noise = {row["quantity"]: row for row in pl.read_csv(STUDY / "noise.csv").to_dicts()}
    both = [
        50
        * (noise[f"loss rate of the {part}"]["clean"] + noise[f"loss rate of the {part}"]["noisy"])
        for part in ("first interval", "later half")
    ]
    assert f"{both[0]:.0f} % of the interactions are lost" in " ".join(text.split())
    assert f"of the later half it is {both[1]:.0f} %" in " ".join(text.split())


def test_planted_runs(readme):
    """Against the row of the default reading in docs/validity.md, made by benchmarks/planted.py."""
    text = (ROOT / "docs" / "validity.md").read_text("utf-8")
    row = next(
        line
        for line in text.splitlines()
        if line.startswith("| ζ 0.04, of mean, high_order, τ 0.05, joint | 0.9")
    )
    preserved, emerged, removed = (cell.split(" / ") for cell in row.split(" | ")[1:4])
    percent = [f"{100 * float(one):.0f} %" for one in (*preserved, emerged[0], removed[0])]
    assert (
        f"{percent[0]} of what is called preserved is, {percent[2]} of what is called emerged, and "
        f"{percent[3]} of what is called removed; of what is preserved, {percent[1]} is found"
        in readme
    )
