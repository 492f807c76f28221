from sft_interactions.data.players import make_chooser, tell_unused_samples, unsuitable_for
from sft_interactions.data.words import choose_players, stop_words

TEXT = "Great film, great cast: truly moving story about loss and hope in hard times"
SETTINGS = {"n": 4, "choice": "random", "unit": "word", "stop_words": "builtin"}


def test_chooser_follows_the_config():
    choose = make_chooser(SETTINGS, seed=3)
    assert choose("a", TEXT, ()) == choose_players(
        "a", TEXT, 4, seed=3, excluded=stop_words("builtin")
    )
    first = make_chooser({**SETTINGS, "choice": "first", "stop_words": "none"}, seed=3)
    assert [word.text for word in first("a", TEXT, ())] == ["Great", "film", "great", "cast"]


def test_unsuitable_samples_have_a_reason():
    unsuitable = unsuitable_for(SETTINGS, seed=0)
    assert unsuitable("a", TEXT) is None
    assert unsuitable("a", "so sad") == "too few words"
    # Tokens are counted where the tokenizer is known.
    assert unsuitable_for({**SETTINGS, "unit": "token"}, seed=0)("a", "so sad") is None
    assert unsuitable_for({**SETTINGS, "unit": "token"}, seed=0)("a", "so") == "too few words"


def test_samples_of_the_file_that_are_not_analysed_are_told(tmp_path, caplog):
    file = tmp_path / "players.csv"
    file.write_text("sample_id,word\na1,film\na1,cast\n1.23E+15,film\n1.23E+15,cast\nb2,film\n")
    settings = {**SETTINGS, "n": 2, "choice": f"path:{file}"}
    tell_unused_samples(settings, ["a1", "b2", "1.23E+15", "c3"], "reviews")
    tell_unused_samples(SETTINGS, ["a1"], "reviews")
    assert caplog.text == ""
    tell_unused_samples(settings, ["a1", "c3"], "reviews")
    assert f"2 samples of {file} are not analysed, first 1.23E+15; " in caplog.text
    assert "datasets.reviews" in caplog.text
