import re

import pytest

from sft_interactions.players import (
    choose_players,
    eligible_words,
    find_words,
    stop_words,
)

TEXT = "Great film, great cast: truly moving story about loss and hope in hard times"


def texts(words):
    return [word.text for word in words]


def draw(sample_id="a", text=TEXT, n=4, seed=0, excluded=frozenset()):
    return choose_players(sample_id, text, n, seed=seed, excluded=excluded)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("good, bad!", ["good", "bad"]),
        ('"quoted" (in brackets) [x]...', ["quoted", "in", "brackets", "x"]),
        ("don't won’t O'Brien's", ["don't", "won’t", "O'Brien's"]),
        ("well-known and/or 3.5% $20", ["well-known", "and/or", "3.5", "20"]),
        ("naïve café 東京 Ünal", ["naïve", "café", "東京", "Ünal"]),
        ("so sad 😢 really :( -- ...", ["so", "sad", "really"]),
        ("😀word😀 #tag @name", ["word", "tag", "name"]),
        ("  spaces\tand\nlines  ", ["spaces", "and", "lines"]),
        ("", []),
        ("?!", []),
    ],
)
def test_words_are_what_stands_between_blanks_less_outer_punctuation(text, words):
    found = find_words(text)
    assert texts(found) == words
    assert [text[word.start : word.end] for word in found] == words


def test_a_repeated_word_is_a_word_each_time():
    assert [(w.text, w.start) for w in find_words("no, no no")] == [("no", 0), ("no", 4), ("no", 7)]
    assert [word.start for word in draw(text="no no no no", n=4)] == [0, 3, 6, 9]


def test_stop_words():
    assert texts(eligible_words("The film was NOT bad", stop_words("english"))) == [
        "film",
        "NOT",
        "bad",
    ]
    assert texts(eligible_words("I’m it's sad", stop_words("english"))) == ["sad"]
    assert texts(eligible_words("the film", stop_words("none"))) == ["the", "film"]
    assert texts(eligible_words("A Film ends", stop_words(["film", "A"]))) == ["ends"]


def test_players_are_eligible_words_in_reading_order():
    players = draw(n=6, excluded=stop_words("english"))
    assert len(players) == 6
    assert [player.start for player in players] == sorted(player.start for player in players)
    assert set(players) <= set(eligible_words(TEXT, stop_words("english")))
    assert all(TEXT[player.start : player.end] == player.text for player in players)


def test_the_draw_depends_on_sample_and_seed_only():
    assert draw() == draw()
    assert len({tuple(draw(sample_id=str(i))) for i in range(20)}) > 10
    assert len({tuple(draw(seed=seed)) for seed in range(20)}) > 10
    changed = TEXT.replace("Great", "Awful").replace("story", "movie")
    assert [w.start for w in draw(text=changed)] == [w.start for w in draw()]


def test_every_word_can_be_drawn():
    drawn = {word for i in range(200) for word in draw(sample_id=str(i), n=2)}
    assert drawn == set(find_words(TEXT))


def test_too_few_words():
    message = "sample a: 2 eligible words, but players.n is 3; lower players.n"
    with pytest.raises(ValueError, match=re.escape(message)):
        draw(text="the sad film", n=3, excluded=stop_words("english"))
