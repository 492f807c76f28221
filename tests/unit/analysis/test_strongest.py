import polars as pl
import pytest
from sample_tables import BEST, SALIENCE, SAMPLES, WORDS, checkpoint, write_run

from sft_interactions import tables
from sft_interactions.analysis.salience import read_salient
from sft_interactions.analysis.strongest import tabulate, tell

MOST = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    write_run(root)
    read = {
        name: [tables.read(root / f"{name}.parquet", table)]
        for name, table in (
            ("dynamics", tables.DYNAMICS),
            ("players", tables.PLAYERS),
            ("prompts", tables.PROMPTS),
        )
    }
    return checkpoint(root, BEST), read


def test_the_strongest_of_every_sample_are_told_in_order(run):
    best, read = run
    found = tabulate([best], **read, salience=SALIENCE, most=MOST)
    salient = read_salient(best.tables["interactions"], best.tables["solve"], SALIENCE)
    for sample_id, target in zip(SAMPLES, ("positive", "neg"), strict=True):
        rows = found.filter(sample_id=sample_id)
        assert rows["place"].to_list() == list(range(1, MOST + 1))
        mine = salient.filter(sample_id=sample_id).sort(-pl.col("effect").abs())
        assert rows["effect"].to_list() == mine["effect"].to_list()[:MOST]
        expected = [
            tell(kind, [WORDS[k] for k in range(len(WORDS)) if pattern >> k & 1], effect, target)
            for kind, pattern, effect in mine[:MOST].select("kind", "pattern", "effect").rows()
        ]
        assert rows["in_words"].to_list() == expected
        assert set(rows["class"]) <= {"preserved", "emerged"}
    assert found["step"].unique().to_list() == [BEST]
    assert found["run"].unique().to_list() == [best.label]


def test_dynamics_of_another_study_are_refused_in_one_line(run):
    best, read = run
    other = {**read, "dynamics": [read["dynamics"][0].filter(pl.col("kind") == "and")]}
    with pytest.raises(ValueError, match="not those of the run's dynamics; delete both") as error:
        tabulate([best], **other, salience=SALIENCE, most=MOST)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "words", "effect", "told"),
    [
        ("and", ["good"], 1.0, "“good” speaks for “yes”"),
        ("or", ["good"], -1.0, "“good” speaks against “yes”"),
        ("and", ["not", "good"], -1.0, "“not” and “good” together speak against “yes”"),
        ("and", ["a", "b", "c"], 0.1, "“a”, “b” and “c” together speak for “yes”"),
        ("or", ["a", "b", "c"], 0.1, "any of “a”, “b” or “c” speaks for “yes”"),
    ],
)
def test_an_interaction_in_words(kind, words, effect, told):
    assert tell(kind, words, effect, "yes") == told
