"""Numbers of README.md, docs/results.md and, where a table has them, docs/gallery.md are of the tables."""

import re
from itertools import product
from pathlib import Path

import polars as pl
import pytest

from sft_interactions.analysis.verdict import loss_change

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "results" / "reference"
NAMES = {"smollm2": "SmolLM2", "gemma3": "Gemma"}


@pytest.fixture(scope="module")
def readme():
    """Both pages that say what small LLMs show; no sentence is on both."""
    pages = (ROOT / "README.md", ROOT / "docs" / "results.md")
    return " ".join(" ".join(page.read_text("utf-8") for page in pages).split())


def test_no_number_is_on_both_pages():
    """Where it stood twice, these tests would find the right one and miss the other."""
    pages = [
        " ".join((ROOT / page).read_text("utf-8").split())
        for page in ("README.md", "docs/results.md")
    ]
    told = [
        {one for one in re.split(r"(?<=[.;:]) ", page) if re.search(r"\d", one)} for page in pages
    ]
    assert all(len(one) > 20 for one in told)
    assert not {one for one in told[0] & told[1] if len(one.split()) > 3}


@pytest.fixture(scope="module")
def gallery():
    return " ".join((ROOT / "docs" / "gallery.md").read_text("utf-8").split())


def folder(study, model):
    (found,) = (REFERENCE / study / "runs").glob(f"{model}-*")
    return found


def metric(study, model, name, label, step, order=None):
    """A metric over all orders, or of one, AND and OR together."""
    table = pl.read_parquet(folder(study, model) / "metrics.parquet")
    return table.row(
        by_predicate=(pl.col("step") == step)
        & (pl.col("class") == label)
        & (pl.col("kind") == "both")
        & pl.col("order").eq_missing(order)
        & (pl.col("metric") == name),
        named=True,
    )["value"]


def both(study, name, label, step):
    """A metric of both models."""
    return [metric(study, model, name, label, step) for model in NAMES]


STUDY = REFERENCE / "stopping" / "tables"
UNITS = (
    "no one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
VERDICTS = "supported", "contradicted", "inconclusive"
CELLS = [
    f"smollm2-{task}-{kind}"
    for task in ("tweets", "goemotions", "dolly")
    for kind in ("low", "high", "noise-low", "noise-high")
]
# Runs of the study of checkpoints that were finished when part 3.2 of the protocol was changed.
BEFORE_THE_RULE = [
    *(f"{cell}-seed0" for cell in CELLS),
    *(f"{cell}-seed1" for cell in CELLS[:5]),
    "smollm2-dolly-low-seed1",
    "smollm2-tweets-low-seed2",
]


def in_words(number):
    tens, units = divmod(number, 10)
    if tens < 2:
        return UNITS[number]
    return ("twenty", "thirty")[tens - 2] + (f"-{UNITS[units]}" if units else "")


@pytest.fixture(scope="module")
def by_run():
    """The findings of the runs of the study of checkpoints."""
    return pl.read_csv(STUDY / "findings.csv", schema_overrides={"denoising_ends": pl.String})


@pytest.fixture(scope="module")
def by_part():
    rows = pl.read_csv(STUDY / "parts.csv").to_dicts()
    return {row["part"]: row for row in rows}


def over_seeds(path, runs):
    """Number of a finding to its verdict over seeds, from a table for reading."""
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if f"| {runs} |" in line
    ]
    assert {row[1] for row in cells} == {"3"}
    return {int(row[3]): row[4] for row in cells}


def cells_with_three_seeds(by_run):
    return by_run["run"].str.replace("-seed.*", "").value_counts().filter(count=3)["run"].to_list()


def test_verdicts(readme, by_run):
    published = pl.read_parquet(REFERENCE / "tweets" / "findings.parquet")
    protocol = pl.read_parquet(REFERENCE / "tweets" / "protocol.parquet")
    cells = cells_with_three_seeds(by_run)
    assert f"its {len(cells)} cells with three seeds, each tested over them; study 2" in readme
    long = [over_seeds(STUDY / "seed-verdicts.md", cell) for cell in cells]
    short = over_seeds(REFERENCE / "seeds" / "tables" / "seed-verdicts.md", "smollm2-tweets")
    for finding in range(1, 6):
        found = by_run[f"finding {finding}"].to_list()
        verdicts = [
            table.row(
                by_predicate=(pl.col("finding") == finding) & (pl.col("run") == run), named=True
            )["verdict"]
            for table, run in (
                (protocol, "smollm2-tweets"),
                (protocol, "gemma3-tweets"),
                (published, "smollm2-tweets"),
                (published, "gemma3-tweets"),
            )
        ]
        of_cells = [cell[finding] for cell in long]
        cells = [
            " / ".join(str(found.count(verdict)) for verdict in VERDICTS),
            f"{' / '.join(str(of_cells.count(one)) for one in VERDICTS)}; {short[finding]}",
            f"{verdicts[0]}; {verdicts[1]}",
            f"{verdicts[2]}; {verdicts[3]}",
        ]
        line = next(part for part in readme.split("| ") if part.startswith(f"{finding}. "))
        assert f"{line}| {' | '.join(cells)} |" in readme


def test_what_happens(readme, by_run, by_part):
    runs = len(by_run)
    assert f"with noisy labels: {runs} runs, with 16" in readme
    noise = {row["quantity"]: row for row in pl.read_csv(STUDY / "noise.csv").to_dicts()}
    first, later = (
        50
        * (noise[f"loss rate of the {part}"]["clean"] + noise[f"loss rate of the {part}"]["noisy"])
        for part in ("first interval", "later half")
    )
    assert f"In the first 25 of 300 steps {first:.0f} % of the salient ones are lost" in readme
    assert f"later half of the run {later:.0f} % in as many steps" in readme
    assert by_part["3.1 falls"]["supported"] == runs
    early = by_run["denoising_ends"].is_in(["25", "50"]).sum()
    assert (
        f"falls in all {runs} runs. The best estimate of where is step 25 or 50 in {early} of them; that "
        f"it is in the first half of the run can be told in {by_part['3.3 short']['supported']}."
        in readme
    )
    before, kept = (both("tweets", "count", "preserved", step) for step in (0, 72))
    new = both("tweets", "count", "emerged", 72)
    assert (
        f"{before[0]:.0f} interactions a prompt of SmolLM2 are salient before SFT; at the end "
        f"{kept[0]:.0f} of them are preserved and {new[0]:.0f} have emerged. In Gemma "
        f"{kept[1]:.0f} of {before[1]:.0f} are preserved, and {new[1]:.0f} have emerged." in readme
    )


def of_reading(reading):
    """The findings by run and by part, in another reading than the study's own."""
    parts = pl.read_csv(STUDY / reading / "parts.csv").to_dicts()
    return pl.read_csv(STUDY / reading / "findings.csv"), {row["part"]: row for row in parts}


def both_sides(verdicts):
    return " / ".join(str(verdicts.count(one)) for one in VERDICTS[:2])


def test_by_other_readings(readme, by_run, by_part):
    text = " ".join((ROOT / "docs" / "stopping.md").read_text("utf-8").split())
    (now, parts_now), (joint, parts_joint) = map(of_reading, ("default", "joint"))
    assert len(now) == len(joint) <= len(by_run)
    assert f"By the default and the joint reading {len(now)} runs are in the tables" in text
    third = now["finding 3"].to_list()
    against = [now[f"finding {number}"].to_list().count("contradicted") for number in (4, 5)]
    assert (
        f"By the default reading finding 3 is supported in {third.count('supported')} of {len(now)} runs "
        f"and contradicted in {third.count('contradicted')}, and findings 4 and 5 are contradicted in "
        f"{against[0]} and {against[1]} ([all readings]" in readme
    )
    for name in (*range(1, 6), "3, thresholds of step 0"):
        cells = [both_sides(rows[f"finding {name}"].to_list()) for rows in (by_run, now, joint)]
        assert f"| {name} | {' | '.join(cells)} |" in text
    all_parts = by_part, parts_now, parts_joint
    for parts, rows in zip(all_parts, (by_run, now, joint), strict=True):
        assert parts["3.1 falls"]["supported"] == len(rows)
    for rows, number in product((by_run, now, joint), (1, 2)):
        assert "supported" not in rows[f"finding {number}"].to_list()
    for name in ("4.1 high order", "1.4 high ρ", "2.1 many", "2.4 low ρ", "5.2 low order"):
        rows = [parts[name] for parts in all_parts]
        cells = [f"{row['supported']} / {row['contradicted']}" for row in rows]
        assert f"({name.partition(' ')[0]}: {', '.join(cells)})" in text
    contradicted = [
        rows[f"finding {number}"].to_list().count("contradicted")
        for rows in (by_run, now, joint)
        for number in (1, 2)
    ]
    assert (
        f"findings 1 and 2 are contradicted in {min(contradicted)} to {max(contradicted)}." in text
    )


def test_runs_that_were_finished_after_the_rule(readme, by_run):
    later = by_run.filter(~pl.col("run").is_in(BEFORE_THE_RULE))["finding 3"].to_list()
    counts = [in_words(later.count(one)).replace("no", "none") for one in VERDICTS[:2]]
    assert (
        f"Of {in_words(len(later))} runs that were finished since, finding 3 is supported in {counts[0]} "
        f"and contradicted in {counts[1]};" in readme
    )
    # Each cell had been seen.
    assert set(by_run["run"].str.replace("-seed.*", "")) == {
        run.rpartition("-")[0] for run in BEFORE_THE_RULE
    }


def test_over_seeds(by_run):
    text = (ROOT / "docs" / "stopping.md").read_text("utf-8")
    cells = cells_with_three_seeds(by_run)
    assert cells
    for cell in cells:
        own = over_seeds(STUDY / "seed-verdicts.md", cell)
        line = [cell.removeprefix("smollm2-"), *(own[number] for number in range(1, 6))]
        of_others = "not made"
        if cell in cells_with_three_seeds(of_reading("default")[0]):
            now, joint = (
                over_seeds(STUDY / reading / "seed-verdicts.md", cell)
                for reading in ("default", "joint")
            )
            of_others = f"{now[3]}; {joint[3]}"
        assert f"| {' | '.join(line)} | {of_others} |" in text


# Part of the protocol to what README says that the paper says, in the order of its table.
CLAIMS = {
    "3.1 falls": "*In the denoising stage* interactions are lost faster than after it",
    "3.2 most": "most of what goes for good goes then",
    "3.3 short": "the stage is short: less than half of the run",
    "1.1 few": "fewer are new than are lost",
    "1.2 low order": "what is new is of lower order than what is lost",
    "1.4 high ρ": "what is new cancels less than what is lost",
    "4.1 high order": "what is lost is of higher order, beside what stays, than later",
    "4.3 ρ ≈ 0": "what is lost cancels as it would by chance",
    "2.1 many": "*In the overfitting stage* more are new than are lost",
    "2.2 high order": "what is new is of higher order than what was new before",
    "2.4 low ρ": "what is new cancels more than what was new before",
    "5.1 stable": "what was preserved stays, but for a tenth of what there was",
    "5.2 low order": "*At the end* what is preserved is of lower order than the rest of what there was",
}


def test_every_claim_of_the_paper(readme, by_part):
    rows_now, now = of_reading("default")
    # Those with γ need a second LLM.
    others = {part for part in by_part if "γ" in part}
    assert {*CLAIMS, *others} == set(by_part)
    assert all(
        by_part[part]["inconclusive"] == by_part["1.3 high γ"]["inconclusive"] for part in others
    )
    assert f"{in_words(len(others)).capitalize()} of the parts compare with a second LLM" in readme
    rows = [
        f"| {claim} | {' | '.join(cells)} |"
        for part, claim in CLAIMS.items()
        for cells in [
            [" / ".join(str(one[part][side]) for side in VERDICTS) for one in (by_part, now)]
        ]
    ]
    assert " ".join(rows) in readme
    order, stays = by_part["1.2 low order"], by_part["5.1 stable"]
    assert order["supported"] == now["1.2 low order"]["supported"] == 0
    assert (
        "That what is new early is of lower order than what is lost is supported in no run and "
        f"contradicted in {order['contradicted']}; in the others it cannot be told. That what is preserved "
        f"early stays is contradicted in {stays['contradicted']} runs, or by another reading of the "
        f"same log-odds in {now['5.1 stable']['contradicted']} of {len(rows_now)}." in readme
    )


def test_what_cancels_in_the_default_study(readme):
    rho, chance = (both("tweets", name, "emerged", 72) for name in ("rho", "rho_chance"))
    assert f"(ρ {rho[0]:.2f}; {chance[0]:.2f} by chance)" in readme
    assert f"({rho[1]:.2f} and {chance[1]:.2f})" in readme


def test_with_the_thresholds_of_step_0(readme, by_run):
    first = by_run["finding 3, thresholds of step 0"].to_list().count("supported")
    assert f"0 finding 3 is supported in {first} of the {len(by_run)} runs" in readme


def test_what_seeds_share(readme):
    """README and docs/stopping.md against the table at the last checkpoint."""
    text = (ROOT / "docs" / "stopping.md").read_text("utf-8")
    table = pl.read_csv(STUDY / "seed-agreement.csv").filter(pl.col("step") == 300)
    ranges = {}
    for cell in table["runs"].unique(maintain_order=True):
        rows = {row["class"]: row for row in table.filter(runs=cell).to_dicts()}
        cells = [
            f"{100 * rows[name]['agreement']:.0f} % "
            f"({100 * rows[name]['shared_by_chance'] / rows[name]['count']:.0f} %)"
            for name in ("emerged", "preserved", "removed")
        ]
        line = [cell.removeprefix("smollm2-"), str(rows["salient"]["n_seeds"]), *cells]
        assert f"| {' | '.join(line)} |" in text
        for name, row in rows.items():
            key = name, cell.rpartition("-")[2]
            ranges.setdefault(key, []).append(100 * row["agreement"])
            ranges.setdefault((name, "chance"), []).append(
                100 * row["shared_by_chance"] / row["count"]
            )
    low, high, chance = (
        f"{min(ranges[key]):.0f} to {max(ranges[key]):.0f} %"
        for key in (("emerged", "low"), ("emerged", "high"), ("emerged", "chance"))
    )
    preserved = ranges["preserved", "low"] + ranges["preserved", "high"]
    assert (
        f"another seed of the same fine-tuning has {low} at the low learning rate and {high} at the "
        f"high one ({chance} by chance); of what is preserved {min(preserved):.0f} to "
        f"{max(preserved):.0f} %." in readme
    )


def test_what_passes_the_papers_test_of_finding_3(readme):
    text = (ROOT / "docs" / "validity.md").read_text("utf-8")
    passed = [
        re.search(rf"^\| unchanged \| 8 \| {noise} % \|(?:[^|]+\|){{3}} 0 / (\d+)", text, re.M)[1]
        for noise in ("0.2", "1", "2")
    ]
    assert (
        f"hardly says no: {passed[0]}, {passed[1]} and {passed[2]} of 40 runs in which nothing but noise "
        "happens pass it ([noise of 0.2, 1 and 2 %]" in readme
    )


def test_what_is_supported_where_it_is_not_so(readme, by_run):
    """Against the table in docs/validity.md, made by ``benchmarks/planted.py supports``."""
    text = (ROOT / "docs" / "validity.md").read_text("utf-8")
    rows = re.findall(r"^\| \w+ \| 16 \| sample, low orders \|(.*\*.*)\|$", text, re.M)
    cells = [cell for row in rows for cell in row.split("|") if "*" in cell]
    assert (len(rows), {cell.split()[0] for cell in cells}) == (6, {"0"})
    assert (
        f"nor does any of {40 * len(cells):,} with 16 prompts, read as these {len(by_run)} runs are."
        in readme
    )


def test_runs_of_a_task_share_their_prompts(readme, by_run):
    tasks = {"tweets": "on tweets", "goemotions": "on GoEmotions", "dolly": "on Dolly"}

    def told(number, verdict):
        found = []
        for task, where in tasks.items():
            rows = by_run.filter(pl.col("run").str.contains(f"-{task}-"))
            n = rows[f"finding {number}"].to_list().count(verdict)
            found.append(f"{n or 'none'} of {len(rows)} {where}")
        return f"{found[0]}, {found[1]} and {found[2]}"

    assert f"finding 1 is contradicted in {told(1, 'contradicted')}" in readme
    assert f"finding 3 supported in {told(3, 'supported')}." in readme
    analysed = {
        tuple(sorted(rows.filter(split="analysis")["sample_id"].unique()))
        for rows in map(pl.read_parquet, (STUDY.parent).glob("smollm2-*/losses.parquet"))
    }
    assert len(analysed) == len(tasks)


def test_what_the_data_determine(readme):
    certain = both("tweets", "count_certain", "preserved", 0)
    single = both("tweets", "count_single", "preserved", 0)
    shares = [100 * one / all_ for one, all_ in zip(certain, single, strict=True)]
    assert f"the default study has {single[0]:.0f} and {single[1]:.0f} salient" in readme
    before = both("tweets", "count", "preserved", 0)
    assert f"(the {before[0]:.0f} and {before[1]:.0f} above are read" in readme
    assert f"have {shares[0]:.0f} % of them in SmolLM2 and {shares[1]:.0f} % in Gemma" in readme
    least = []
    for model in NAMES:
        change = pl.read_parquet(folder("tweets", model) / "joint_change.parquet")
        least.append(100 * change["change"].sum() / change["single_change"].sum())
    assert (
        f"effects read so change by {least[0]:.0f} % (SmolLM2) and {least[1]:.0f} % (Gemma) of what they "
        "change by if each checkpoint is read by itself" in readme
    )
    determined = {"smollm2": [], "gemma3": []}
    for line in (REFERENCE / "tweets" / "tables" / "verdicts.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) > 4 and (model := cells[0].partition("-")[0]) in determined:
            determined[model].append(cells[4])
    assert len(determined["smollm2"]) == 5
    assert determined["smollm2"].count("yes") == 1
    assert "one of SmolLM2's five verdicts in study 3 is the same under every tie-break" in readme
    assert f"of Gemma's {in_words(determined['gemma3'].count('yes'))} are" in readme


def test_the_older_study(readme):
    lines = (REFERENCE / "small" / "tables" / "sensitivity.md").read_text("utf-8").splitlines()
    header, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    found = [dict(zip(header, row, strict=True)) for row in rows[1:]]
    choices = {row["choice"] for row in found} - {"the study's own"}
    # Finding 3 has no γ, ρ or effects in it.
    choices -= {"removed effect: last present", "γ: by count", "baseline LLM: tuned"}
    assert {row["verdict"] for row in found if row["finding"] == "3"} == {"supported"}
    assert (
        "By the paper's definitions finding 3 is supported there in both LLMs, and under "
        f"{in_words(len(choices))} other choices of ours that can change it" in readme
    )


def test_the_protocol(readme):
    table = pl.read_parquet(REFERENCE / "tweets" / "protocol.parquet")
    third = table.filter(pl.col("finding") == 3)
    ends = dict(third.select("run", "denoising_ends").iter_rows())
    assert (
        f"loss rate falls at step {ends['smollm2-tweets']} of 72 in SmolLM2, and at step "
        f"{ends['gemma3-tweets']} in Gemma" in readme
    )
    assert third["verdict"].to_list() == ["inconclusive"] * 2


def test_seeds_and_shuffled_labels(readme):
    table = pl.read_parquet(REFERENCE / "seeds" / "turnover.parquet").sort("step")
    rates = {run: rows["loss_rate"] for (run,), rows in table.group_by("run")}
    seeds = [rates[f"smollm2-tweets-seed{seed}"] for seed in range(3)]
    first, last = ([f"{100 * one[place]:.0f}" for one in seeds] for place in (0, -1))
    shuffled = rates["smollm2-shuffled-seed0"]
    assert (
        f"from {first[0]}, {first[1]} and {first[2]} % to {last[0]}, {last[1]} and {last[2]} % in the "
        "last quarter; with labels taken from other tweets (one run) from "
        f"{100 * shuffled[0]:.0f} to {100 * shuffled[-1]:.0f} %" in readme
    )
    protocol = pl.read_parquet(REFERENCE / "seeds" / "protocol.parquet")
    assert protocol["denoising_ends"].unique().to_list() == ["18"]
    over = next(
        line
        for line in (REFERENCE / "seeds" / "tables" / "seed-verdicts.md")
        .read_text("utf-8")
        .splitlines()
        if "| 3.3 short |" in line
    )
    low, high = (72 * float(cell) for cell in over.split("|")[11:13])
    assert (
        f"in all four runs the loss rate falls at step 18 of 72 (interval over the three seeds: {low:.0f} "
        f"to {high:.0f})" in readme
    )


def test_which_checkpoint(readme):
    arms = pl.read_csv(STUDY / "arms.csv")
    regret = dict(arms.select("arm", "regret").iter_rows())
    runs = pl.read_csv(STUDY / "choices.csv")["run"].n_unique()
    assert f"all of its {runs} runs are finished" in readme
    arms = (
        "loss, same prompts",
        "interactions, as released",
        "random",
        "last",
        "interactions, mended",
    )
    assert f"| {' | '.join(f'{regret[arm]:.3f}' for arm in arms)} |" in readme
    choices = pl.read_csv(STUDY / "choices.csv")
    silent = choices.filter(pl.col("step") == 300, arm="interactions, mended").height
    assert f"it gives none in {silent} runs, where the last checkpoint counts" in readme
    mended = pl.read_csv(STUDY / "differences.csv").row(
        by_predicate=pl.col("arm") == "interactions, mended", named=True
    )
    assert (
        f"It loses {mended['difference']:.3f} more than the loss on the same prompts (95 % interval "
        f"{mended['ci_low']:.3f} to {mended['ci_high']:.3f}, for other seeds" in readme
    )
    for page in ("library", "stopping", "verdict"):
        assert f"{runs} of 36 runs" in (ROOT / "docs" / f"{page}.md").read_text("utf-8")


def test_label_noise():
    text = " ".join((ROOT / "docs" / "stopping.md").read_text("utf-8").replace("−", "-").split())
    noise = {row["quantity"]: row for row in pl.read_csv(STUDY / "noise.csv").to_dicts()}
    # They are the same model before SFT.
    assert noise.pop("salient before SFT")["difference"] == 0
    differ = [name for name, row in noise.items() if row["ci_low"] > 0 or row["ci_high"] < 0]
    assert differ == ["loss rate of the later half"]
    assert sum("loss" in name and "rate" not in name for name in noise) == 3
    assert (
        f"of {in_words(len(noise))} quantities, five of interactions and three of losses, one"
        in text
    )
    rate = {
        key: 100 * value
        for key, value in noise[differ[0]].items()
        if key not in ("quantity", "cells")
    }
    assert (
        f"{rate['clean']:.1f} % of the interactions are lost with clean labels and {rate['noisy']:.1f} % "
        f"with noisy ones (difference {rate['difference']:.1f} points, from {rate['ci_low']:.1f} to "
        f"{rate['ci_high']:.1f})" in text
    )
    end, order = noise["salient at the end"], noise["mean order at the end"]
    assert (
        f"{end['clean']:.0f} salient interactions a prompt with clean labels and {end['noisy']:.0f} with "
        f"noisy ones (difference {end['difference']:.0f}, from {end['ci_low']:.0f} to "
        f"{end['ci_high']:.0f}), of mean order {order['clean']:.1f} and {order['noisy']:.1f}."
        in text
    )


def test_results_of_the_study_of_checkpoints(by_run, by_part):
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
    for number in range(1, 6):
        verdicts = by_run[f"finding {number}"].to_list()
        assert f"| {number} | {' | '.join(str(verdicts.count(one)) for one in VERDICTS)} |" in text
    later = by_run.filter(~pl.col("run").is_in(BEFORE_THE_RULE))["finding 3"].to_list()
    counts = [in_words(later.count(one)) for one in VERDICTS]
    assert (
        f"tested by the new one alone: finding 3 is supported in {counts[0]} of these "
        f"{in_words(len(later))}, contradicted in {counts[1].replace('no', 'none')} and inconclusive in "
        f"{counts[2]}." in " ".join(text.split())
    )
    ends = by_run["denoising_ends"].to_list()
    assert sorted(set(ends)) == ["25", "275", "50"]
    assert (
        f"falls in all {in_words(runs)}: the stage of fast removal ends at step 25 "
        f"({ends.count('25')} runs), 50 ({ends.count('50')}) or, "
        f"in {in_words(ends.count('275'))} runs of Dolly" in text
    )
    assert {
        run[:12] for run, end in by_run.select("run", "denoising_ends").rows() if end == "275"
    } == {"smollm2-doll"}
    most, short = by_part["3.2 most"], by_part["3.3 short"]
    assert f"goes in that stage ({100 * most['value']:.0f} % in the mean)" in text
    assert f"(3.3 is supported in {short['supported']}, 3.2 in {most['supported']})" in text
    last = choices.filter(pl.col("arm") == "last")["regret"]
    assert f"higher than the lowest by {last.min():.3f} to {last.max():.2f} nats." in text
    n_sure = 0
    for run in by_run["run"]:
        losses = pl.read_parquet(STUDY.parent / run / "losses.parquet").filter(split="test")
        per_token = losses.group_by("step").agg(pl.col("loss").sum() / pl.col("n_tokens").sum())
        lowest = per_token.sort("loss", "step")["step"][0]
        n_sure += loss_change(losses, lowest, losses["step"].max(), 0.95).low > 0
    assert f"in {n_sure} of {runs} the interval over responses excludes 0." in text
    released = choices.filter(pl.col("arm") == "interactions, as released")["step"].to_list()
    assert (
        f"names step 50, the third checkpoint, in {in_words(released.count(50))} of the "
        f"{in_words(runs)} runs" in text
    )
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


def test_counts_in_the_gallery(gallery):
    def count(model, label, step):
        return metric("tweets", model, "count", label, step)

    before, at_6, at_the_end = (count("smollm2", "preserved", step) for step in (0, 6, 72))
    removed = [count("smollm2", "removed", step) for step in (6, 72)]
    assert removed[0] / before == pytest.approx(0.5, abs=0.05)
    assert removed[0] == before - at_6
    back = before - at_the_end - removed[1]
    first, last = (count("smollm2", "emerged", step) for step in (6, 72))
    assert (
        f"at step 6 half of the {before:.0f} interactions a prompt are removed, at the end "
        f"{removed[1]:.0f}; {at_the_end:.0f} are preserved, and {back:.0f} had gone and came back. "
        f"Newly emerged ones grow from {first:.0f} to {last:.0f}" in gallery
    )
    removed = [count("gemma3", "removed", step) for step in (6, 72)]
    emerged = [count("gemma3", "emerged", step) for step in (6, 72)]
    assert (
        f"{removed[0]:.0f} of {count('gemma3', 'preserved', 0):.0f} interactions are removed at step 6, "
        f"{removed[1]:.0f} at the end. As many as {emerged[0]:.0f} are new at step 6 already, and their "
        f"number falls to {emerged[1]:.0f}" in gallery
    )
    strengths = [metric("tweets", "gemma3", "strength_total", "emerged", step) for step in (18, 72)]
    assert in_words(round(strengths[1] / strengths[0])) + "fold from step 18 on" in gallery


def test_shares_in_the_gallery(gallery):
    def share(model, name, label, step):
        return [
            f"{metric('tweets', model, name + end, label, step):.2f}" for end in ("", "_chance")
        ]

    of_order_8, total = (
        metric("tweets", "smollm2", "strength_total", "preserved", 0, order) for order in (8, None)
    )
    assert (
        f"the AND of all eight words is the largest part ({100 * of_order_8 / total:.0f} %)"
        in gallery
    )
    gamma, chance = share("smollm2", "gamma", "preserved", 0)
    assert (
        f"class is {gamma} before SFT, but so few strong interactions reach {chance} by" in gallery
    )
    assert "in ρ: {} against {}".format(*share("smollm2", "rho", "emerged", 72)) in gallery
    rho, chance = share("gemma3", "rho", "preserved", 72)
    assert f"at the end ({rho}) is what so few interactions have by chance ({chance})" in gallery
    loss = metric("tweets", "smollm2", "cross_entropy", "emerged", 72)
    assert f"target most clearly ({loss:.2f} at the end" in gallery


def test_salient_interactions_in_the_gallery(gallery):
    found = {}
    for line in (REFERENCE / "tweets" / "tables" / "sparsity.md").read_text("utf-8").splitlines():
        if "| 18 | salient interactions |" in line:
            run, _, _, value, *_ = (cell.strip() for cell in line.split("|")[1:])
            found[run] = float(value)
    smollm2, gemma = found["smollm2-tweets"], found["gemma3-tweets"]
    assert f"On average {smollm2:.0f} (SmolLM2) and {gemma:.0f} (Gemma) are salient" in gallery
