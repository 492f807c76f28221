"""The profiles: they name rules that exist, leave none out, and keep the number of submissions small."""

import os
import re
from pathlib import Path

import pytest
import yaml
from tiny_study import run_snakemake

from sft_interactions.figures import style
from sft_interactions.figures.catalogue import FIGURES

ROOT = Path(__file__).parents[2]
PROFILES = {
    path.parent.name: yaml.safe_load(path.read_text()) for path in ROOT.glob("profiles/*/*")
}
RULES, OWN_LINES = {}, {}
for path in sorted(ROOT.glob("workflow/rules/*.smk")):
    for base, name, body in re.findall(
        r"^(?:use rule (\w+) as |rule )(\w+)(?: with)?:\n((?:[ \t].*\n|\n)+)",
        path.read_text(),
        re.M,
    ):
        OWN_LINES[name] = body
        RULES[name] = body + RULES.get(base, "")
LOCAL = set(
    re.search(r"^localrules:\n((?:    \w+,\n)+)", (ROOT / "Snakefile").read_text(), re.M)[1]
    .replace(",", " ")
    .split()
)
LONG_MINUTES = 60
FIGURES_SMK = (ROOT / "workflow" / "rules" / "figures.smk").read_text()


def dry_run(*arguments):
    done = run_snakemake("--dry-run", *arguments, env=os.environ, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_name_rules_that_exist(name):
    profile = PROFILES[name]
    settings = ("groups", "set-resources", "set-threads")
    assert {rule for key in settings for rule in profile.get(key, {})} <= set(RULES)


def test_model_jobs_get_a_gpu_in_every_profile_that_has_some():
    for name in ("slurm", "gpus"):
        gpus = {rule: r.get("gpu") for rule, r in PROFILES[name]["set-resources"].items()}
        heavy = (
            "finetune",
            "inference",
            "inference_of_mask_embedding",
            "losses_of_step",
            "mask_embedding",
        )
        assert gpus == dict.fromkeys(heavy, 1), name


def test_every_rule_is_long_local_or_grouped():
    groups = PROFILES["slurm"]["groups"]
    for rule, body in RULES.items():
        if rule in LOCAL or rule in groups:
            continue
        minutes = re.search(r"runtime=(?:growing\()?(\d+)", body)
        minutes = int(minutes[1]) if minutes else 0
        assert minutes >= LONG_MINUTES, f"add rule {rule} to `groups` in profiles/slurm"


def test_every_figure_of_the_catalogue_has_a_rule_and_a_place_in_the_group_of_figures():
    assert set(FIGURES) <= set(RULES)
    groups = PROFILES["slurm"]["groups"]
    assert {name: groups.get(name) for name in FIGURES} == dict.fromkeys(FIGURES, "figures")


def test_a_change_of_colours_or_sizes_draws_every_figure_anew():
    """Snakemake sees a change of a file that it is told of, and of no other code."""
    assert all("        style=STYLE,\n" in RULES[name] for name in FIGURES)
    assert all(
        "style=STYLE" in own for own in OWN_LINES.values() if "FIGURES[" in own and "input:" in own
    )
    (path,) = re.findall(r'^STYLE = f"\{workflow.basedir\}/(.+)"$', FIGURES_SMK, re.M)
    assert Path(style.__file__) == ROOT / path


def test_every_rule_with_a_script_has_what_all_need():
    for name, body in RULES.items():
        needed = {"conda:", "threads:", "resources:", "output:", "log:", "benchmark:", "message:"}
        if name == "report":  # it shows the benchmarks of the others
            needed.remove("benchmark:")
        if "script:" in body:
            assert {part for part in needed if part not in body} == set(), name


def test_a_rule_made_from_another_has_its_own_files_and_message():
    for name, lines in OWN_LINES.items():
        if lines != RULES[name]:
            for part in ("output:", "log:", "benchmark:", "message:"):
                assert part in lines, f"rule {name} has no {part} of its own"


def test_local_rules_compute_nothing():
    heavy = {rule for rule in LOCAL if "script:" in RULES.get(rule, "")}
    assert heavy == {"own_checkpoints"}


@pytest.mark.slow
def test_a_large_study_is_submitted_in_few_pieces():
    # Without environments, since a dry run with them asks for the conda executable.
    arguments = "--profile profiles/slurm --software-deployment-method env-modules"
    shown = dry_run(*arguments.split(), "--configfile", "benchmarks/scale.yaml")
    jobs = int(re.search(r"^total +(\d+)$", shown, re.M)[1])
    groups = re.findall(r"Group job ([a-z]+)", shown)
    alone = re.findall(r"^Job \d+: (\w+)", shown, re.M)
    n_runs, n_steps = 20, 10
    # finetune, inference, stability, joint and the two readings of the sensitivity; and the models
    long_jobs = n_runs * (1 + n_steps + 2 + 2) + 5
    assert len(alone) == long_jobs
    assert len(groups) <= 4 * n_runs + 5
    assert jobs > 1.8 * (len(alone) + len(groups))
