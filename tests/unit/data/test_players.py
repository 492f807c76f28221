from sft_interactions.data.players import make_chooser, unsuitable_for
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
