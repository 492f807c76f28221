from operator import itemgetter

import numpy as np
import polars as pl
import pytest
from sample_tables import SAMPLES, STEPS, WORDS, N, checkpoint, write, write_run

from sft_interactions import tables
from sft_interactions.report_page.explorer import CLASSES, KINDS, RunTables, explore


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path)
    paths = [checkpoint(tmp_path, step).tables for step in STEPS]
    return RunTables(
        "a-run",
        "A run",
        STEPS,
        tmp_path / "analysis.parquet",
        tmp_path / "prompts.parquet",
        tmp_path / "players.parquet",
        tmp_path / "dynamics.parquet",
        [one["log_odds"] for one in paths],
        [one["interactions"] for one in paths],
    )


def rewrite(path, table, change):
    write(tables.read(path, table).with_columns(change), path, table)


def test_the_rows_are_those_of_dynamics(run):
    explored = explore(run)
    patterns, rows = explored["patterns"], explored["rows"]
    found = [
        (
            SAMPLES[rows["sample"][row]],
            STEPS[rows["step"][row]],
            CLASSES[rows["class"][row]],
            KINDS[patterns["kind"][pattern]],
            patterns["pattern"][pattern],
            patterns["order"][pattern],
            rows["general"][row],
            rows["effect"][row],
        )
        for row, pattern in enumerate(rows["pattern"])
    ]
    expected = tables.read(run.dynamics, tables.DYNAMICS).select(
        "sample_id", "step", "class", "kind", "pattern", "order", "generalizable", "effect"
    )
    key = itemgetter(slice(6))
    for row, wanted in zip(sorted(found, key=key), sorted(expected.rows(), key=key), strict=True):
        assert row[:7] == wanted[:7]
        assert row[7] == pytest.approx(wanted[7], rel=1e-5)
    assert all(
        patterns["sample"][pattern] == sample
        for sample, pattern in zip(rows["sample"], rows["pattern"], strict=True)
    )


def test_log_odds_and_their_logical_model_are_those_of_the_definition(run):
    explored = explore(run)
    for place, step in enumerate(STEPS):
        v = tables.read(run.log_odds[place], tables.LOG_ODDS)
        rows = tables.read(run.interactions[place], tables.INTERACTIONS)
        for sample in explored["samples"]:
            of_sample = pl.col("sample_id") == sample["id"]
            llm = v.filter(of_sample).sort("mask")["log_odds"].to_numpy()
            # Eq. 2-3 of the paper, term by term.
            phi = np.zeros(2**N)
            for kind, pattern, effect in (
                rows.filter(of_sample).select("kind", "pattern", "effect").iter_rows()
            ):
                for mask in range(2**N):
                    acts = {
                        "bias": True,
                        "and": mask & pattern == pattern,
                        "or": mask & pattern != 0,
                    }[kind]
                    phi[mask] += effect * acts
            expected = {
                "v_all": llm[-1],
                "v_none": llm[0],
                "phi_all": phi[-1],
                "phi_none": phi[0],
                "range": llm.max() - llm.min(),
                "residual": np.abs(phi - llm).max(),
            }
            for key, value in expected.items():
                assert sample[key][place] == pytest.approx(value, rel=1e-5, abs=1e-6), (key, step)
            is_small = abs(llm[-1] - llm[0]) < 0.25 * (llm.max() - llm.min())
            assert sample["small"][place] == is_small


def test_a_pattern_has_its_effect_at_every_checkpoint(run):
    patterns = explore(run)["patterns"]
    zeros = 0
    for place in range(len(STEPS)):
        effects = {
            tuple(row[:3]): row[3]
            for row in tables.read(run.interactions[place], tables.INTERACTIONS)
            .select("sample_id", "kind", "pattern", "effect")
            .iter_rows()
        }
        for row, sample in enumerate(patterns["sample"]):
            key = (SAMPLES[sample], KINDS[patterns["kind"][row]], patterns["pattern"][row])
            zeros += key not in effects
            assert patterns["effects"][place][row] == pytest.approx(effects.get(key, 0), rel=1e-5)
    assert zeros  # else nothing was tested of those that an extraction does not have


def test_the_pieces_are_the_rendered_prompt_with_its_players(run):
    rendered = tables.read(run.prompts, tables.PROMPTS)["rendered"]
    for sample, text in zip(explore(run)["samples"], rendered, strict=True):
        assert "".join(piece for piece, _ in sample["pieces"]) == text
        players = {player: piece for piece, player in sample["pieces"] if player >= 0}
        assert players == dict(enumerate(WORDS)) == dict(enumerate(sample["words"]))


def test_players_that_are_not_where_the_table_has_them_are_refused(run):
    rewrite(run.players, tables.PLAYERS, pl.col("char_start") + 1)
    with pytest.raises(ValueError, match=r"players.parquet: s0: player 0 is not where .* delete"):
        explore(run)


def test_tables_of_other_samples_are_refused(run):
    renamed = pl.col("sample_id").replace("s1", "s2")
    rewrite(run.interactions[1], tables.INTERACTIONS, renamed)
    with pytest.raises(
        ValueError, match=r"step-5.parquet: sample s2 is not one of the run; delete"
    ):
        explore(run)
    rewrite(run.interactions[1], tables.INTERACTIONS, pl.col("sample_id").replace("s2", "s1"))
    rewrite(run.log_odds[2], tables.LOG_ODDS, renamed)
    with pytest.raises(ValueError, match=r"step-20.parquet: its samples are not those .* delete"):
        explore(run)
    rewrite(run.log_odds[2], tables.LOG_ODDS, pl.col("sample_id").replace("s2", "s1"))
    rewrite(run.analysis, tables.DATA, renamed)
    with pytest.raises(ValueError, match=r"prompts.parquet: sample s1 is not in .* delete both"):
        explore(run)
    rewrite(run.analysis, tables.DATA, pl.col("sample_id").replace("s2", "s1"))
    rewrite(run.dynamics, tables.DYNAMICS, pl.col("step") + 1)
    with pytest.raises(ValueError, match=r"dynamics.parquet: it has samples or steps"):
        explore(run)
