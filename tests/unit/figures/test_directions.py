import pytest

from sft_interactions.figures.directions import base_direction, is_one_way, visual_order

# Capital letters stand for a script that is written from right to left, as in the examples of UAX 9.
HEBREW = {chr(ord("A") + i): chr(0x5D0 + i) for i in range(26)}


def real(text):
    return "".join(HEBREW.get(character, character) for character in text)


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("it was good", "it was good"),
        ("AB CD EF", "EF CD AB"),
        ("AB iphone twelve CD", "CD iphone twelve AB"),
        ("AB iphone 12 CD", "CD iphone 12 AB"),
        ("AB 12 CD", "CD 12 AB"),
        ("he said AB CD again", "he said CD AB again"),
        ("he said AB 12", "he said 12 AB"),
        ("“ AB CD ”", "” CD AB “"),
        ("12 AB CD", "CD AB 12"),
        ("AB - CD and so", "and so CD - AB"),
    ],
)
def test_words_stand_as_they_are_read(text, drawn):
    pieces = [part for word in text.split(" ") for part in (word, " ")][:-1]
    places = visual_order(list(map(real, pieces)), base_direction(real(text)))
    assert "".join(pieces[place] for place in places) == drawn


def test_the_first_letter_gives_the_direction():
    assert [base_direction(text) for text in ("", "12 !", "a \u05d0", "1 \u05d0 a")] == [*"LLLR"]
    assert [is_one_way(text) for text in ("", "a 1", "a \u0628")] == [True, True, False]
