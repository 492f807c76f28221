import polars as pl
import pytest
from sample_tables import BEST, SALIENCE, WORDS, checkpoint, write, write_run

from sft_interactions import tables
from sft_interactions.analysis.samples import (
    LogicalModel,
    find_shared,
    read_logical_model,
    read_prompt,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    write_run(root)
    return root


def prompt_of(folder, sample_id):
    names = ("analysis", "prompts", "players")
    return read_prompt(*(folder / f"{name}.parquet" for name in names), sample_id)


def test_prompt_finds_its_players_in_the_user_text(folder):
    prompt = prompt_of(folder, "s1")
    assert [prompt.text[a:b] for a, b in prompt.spans] == list(prompt.words) == WORDS
    assert (prompt.sample_id, prompt.target) == ("s1", "negative")


def test_the_scored_tokens_are_named_with_their_response(folder):
    assert prompt_of(folder, "s0").scored_name == "“positive”"
    assert prompt_of(folder, "s1").scored_name == "“neg” of “negative”"


@pytest.mark.parametrize(
    ("rendered", "text", "words"),
    [
        ("film? film, truly. film?", "film, truly", [("film", 6), ("truly", 12)]),
        ("<user>user<assistant user>", "user", [("user", 6)]),
        ("a: a b a b", "a b", [("a", 3), ("b", 5)]),
        ("a: a b a b", "a b", [("a", 7), ("b", 9)]),
    ],
)
def test_the_user_text_is_found_by_its_players(tmp_path, rendered, text, words):
    data = {"sample_id": ["s"], "prompt": [text], "target": ["t"]}
    write(pl.DataFrame(data), tmp_path / "analysis.parquet", tables.DATA)
    prompts = {
        "sample_id": ["s"],
        "rendered": [rendered],
        "token_ids": [[1]],
        "player_of_token": [[0]],
        "target_token_ids": [[2]],
        "target_text": ["t"],
    }
    write(pl.DataFrame(prompts), tmp_path / "prompts.parquet", tables.PROMPTS)
    rows = [("s", k, word, at, at + len(word), 1) for k, (word, at) in enumerate(words)]
    players = pl.DataFrame(rows, schema=tables.PLAYERS.columns, orient="row")
    write(players, tmp_path / "players.parquet", tables.PLAYERS)
    prompt = prompt_of(tmp_path, "s")
    assert [text[a:b] for a, b in prompt.spans] == [word for word, _ in words]
    write(players.with_columns(word=pl.lit("x")), tmp_path / "players.parquet", tables.PLAYERS)
    with pytest.raises(ValueError, match=r"players\.parquet: its words are not those of"):
        prompt_of(tmp_path, "s")


def test_without_a_choice_the_first_sample_is_shown(folder):
    assert prompt_of(folder, None).sample_id == "s0"


def test_an_unknown_sample_is_refused(folder):
    with pytest.raises(ValueError, match=r"figures\.sample: 'nobody' is not in .*prompts\.parquet"):
        prompt_of(folder, "nobody")


def test_logical_model_gives_the_log_odds_within_the_noise_bound(folder):
    best = checkpoint(folder, BEST)
    model = read_logical_model(best, "s1", SALIENCE)
    assert (model.title, model.step) == (best.title, BEST)
    solve = tables.read(best.tables["solve"], tables.SOLVE)
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


def test_shared_have_the_same_kind_pattern_and_sign():
    def rows(*items):
        schema = {"kind": tables.KIND, "pattern": pl.UInt32, "effect": pl.Float64}
        return pl.DataFrame(items, schema=schema, orient="row")

    mine = rows(("and", 3, 1.0), ("or", 3, 1.0), ("and", 1, -1.0), ("and", 2, 0.5))
    other = rows(("and", 3, 0.1), ("and", 1, 1.0), ("and", 2, 0.5))
    assert find_shared(mine, other).to_list() == [True, False, False, True]
