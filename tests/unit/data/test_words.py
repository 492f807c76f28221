import itertools
import re
import unicodedata

import pytest
from bad_input import refused

from sft_interactions.data.words import (
    choose_players,
    eligible_words,
    find_sentences,
    find_tokens,
    find_words,
    is_between_characters,
    is_inside_word,
    stop_words,
)

# Made up for these tests: a bar-exam question in Chinese.
CHINESE = (
    "甲公司向乙银行借款100万元，后甲公司拒绝还款。"
    "关于本案，下列哪一说法是正确的？\nA: 法院应当支持乙银行"
)
TEXT = "Great film, great cast: truly moving story about loss and hope in hard times"


def texts(words):
    return [word.text for word in words]


def draw(sample_id="a", text=TEXT, n=4, seed=0, excluded=frozenset(), **options):
    return choose_players(sample_id, text, n, seed=seed, excluded=excluded, **options)


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
    assert stop_words("builtin") == stop_words("english") | stop_words("chinese")
    assert texts(eligible_words("A Film ends", stop_words(["film", "A"]))) == ["ends"]
    for apostrophe in "'’‘ʼ＇":
        assert texts(eligible_words(f"I{apostrophe}m sad", stop_words("english"))) == ["sad"]
    composed, decomposed = "\u00e9t\u00e9", "e\u0301te\u0301"
    assert eligible_words(composed, stop_words([decomposed])) == []
    assert eligible_words(decomposed.upper(), stop_words([composed])) == []
    assert eligible_words("be\u00adfore", stop_words("english")) == []


def test_chinese_stop_words_are_those_of_both_ways_to_write():
    simplified = "这个电影没有什么意思，但是我们喜欢它，因为音乐"
    traditional = "這個電影沒有什麼意思，但是我們喜歡它，因為音樂"
    for text, found in (
        (simplified, ["电影", "没有", "意思", "喜欢", "音乐"]),
        (traditional, ["電影", "沒有", "意思", "喜歡", "音樂"]),
    ):
        assert texts(eligible_words(text, stop_words("builtin"))) == found


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(
    ("entry", "fix"),
    [
        ("film ", "write film$"),
        ("of the", "write of, the$"),
        ("film!", "write film$"),
        ("", "write a word$"),
    ],
)
def test_a_stop_word_that_no_word_is_like_is_refused(entry, fix):
    with refused(rf"^players\.stop_words: '{entry}' is not .*; {fix}"):
        stop_words(["sad", entry])


def test_stop_words_of_any_script():
    listed = ["Don’t", "क्या", "well-known", "北京"]
    text = "क्या 北京 well-known films don't like"
    assert texts(eligible_words(text, stop_words(listed))) == ["films", "like"]


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


@pytest.mark.bad_input(of="data")
def test_too_few_words():
    message = "sample a: 2 eligible words, but players.n is 3; lower players.n"
    with refused(re.escape(message)) as error:
        draw(text="the sad film", n=3, excluded=stop_words("english"))
    assert error.value.reason == "too few words"


def test_chinese_is_cut_into_words():
    words = find_words(CHINESE)
    assert {"公司", "银行", "银行借款", "拒绝", "还款", "法院", "支持", "100", "正确"} <= set(
        texts(words)
    )
    assert all(CHINESE[word.start : word.end] == word.text for word in words)
    assert not {"，", "。", "？", ":"} & set(texts(words))
    chosen = texts(eligible_words(CHINESE, stop_words("chinese")))
    assert {"银行", "银行借款", "拒绝"} <= set(chosen)
    assert not {"向", "后", "下列", "哪一", "是", "的", "关于", "应当"} & set(chosen)


def test_players_of_a_chinese_sample():
    players = draw("a", CHINESE, 6, excluded=stop_words("builtin"))
    assert texts(players) == ["甲", "后甲", "还款", "正确", "支持", "银行"]
    again = draw("a", CHINESE, 6, excluded=stop_words("builtin"))
    assert again == players
    # A token may reach over the border of two words, so no two players touch.
    for before, after in itertools.pairwise(players):
        assert before.end < after.start
    for i in range(50):
        drawn = draw(str(i), CHINESE, 6, excluded=stop_words("builtin"))
        assert all(a.end < b.start for a, b in itertools.pairwise(drawn))


SCRIPTS = {
    "Hindi": ("यह फ़िल्म (अच्छी) नहीं थी।", ["यह", "फ़िल्म", "अच्छी", "नहीं", "थी"]),
    "Arabic with harakat": ("كِتَابٌ، جَمِيلٌ؟", ["كِتَابٌ", "جَمِيلٌ"]),
    "Hebrew with points": ("«שָׁלוֹם», צה״ל ברח׳ ג׳ירף.", ["שָׁלוֹם", "צה״ל", "ברח׳", "ג׳ירף"]),
    "Tamil": ("இந்தப் படம் நன்று!", ["இந்தப்", "படம்", "நன்று"]),
    "Bengali": ("“বইটি” ভালো।", ["বইটি", "ভালো"]),
    "Persian with a joiner": ("می‌خواهم کتاب‌ها،", ["می‌خواهم", "کتاب‌ها"]),
    "Vietnamese, decomposed": (
        "\u201cTiê\u0301ng Viê\u0323t\u201d he\u0302\u0301!",
        ["Tiê\u0301ng", "Viê\u0323t", "he\u0302\u0301"],
    ),
    "Korean": ("서울은 (아름다운) 도시다.", ["서울은", "아름다운", "도시다"]),
    "Korean, decomposed": ("\u1109\u1165\u110b\u116e\u11af!", ["\u1109\u1165\u110b\u116e\u11af"]),
    "Japanese": ("東京へ行く。ラーメン", ["東京", "へ", "行く", "ラーメン"]),
    "Japanese, Chinese characters apart": ("好きな 東京都庁", ["好き", "な", "東京", "都庁"]),
    "Chinese": ("法院支持银行。", ["法院", "支持", "银行"]),
    "Chinese with a variation selector": ("葛\U000e0100城", ["葛\U000e0100", "城"]),
    "Thai": ("ภาษาไทย(สวยงาม)มาก", ["ภาษา", "ไทย", "สวยงาม", "มาก"]),
    "Thai with zero-width spaces": ("หนัง\u200bดี", ["หนัง", "ดี"]),
    "zero-width spaces": ("foo\u200bbar \u200b", ["foo", "bar"]),
    "Khmer": ("ប្រទេសកម្ពុជា។", ["ប្រទេស", "កម្ពុជា"]),
    "Burmese": ("မြန်မာစကား။", ["မြန်မာ", "စကား"]),
    "Lao": ("ພາສາລາວ", ["ພາສາ", "ລາວ"]),
    "Greek": ("«Καλημέρα», κόσμε·", ["Καλημέρα", "κόσμε"]),
    "Cyrillic": ("«Привет, мир» — й\u0301!", ["Привет", "мир", "й\u0301"]),
    "English beside Thai": ("the ภาษาไทย film", ["the", "ภาษา", "ไทย", "film"]),
    "skin tones and joined emoji": (
        "so 👍🏽good👨‍👩‍👧 🏳️‍🌈 café😢",
        ["so", "good", "café"],
    ),
    "a keycap": ("press 1️⃣ now", ["press", "1️⃣", "now"]),
    "marks first": ("\u0301abc \u200fdef\u200f", ["abc", "def"]),
    "soft hyphens": ("in\u00adside out\u00ad", ["in\u00adside", "out"]),
    "low lines": ("_foo_bar_ ＿x＿", ["foo_bar", "x"]),
    "marks alone": ("\u0301 \u200d \u20dd", []),
    "control characters": ("a\x00 b\x1fc\r\nd\te", ["a", "b", "c", "d", "e"]),
    "a URL": ("see https://a.b/c?d=e&f#g/ now", ["see", "https://a.b/c?d=e&f#g", "now"]),
    "numbers": ("1,234.56 −5 1'000 ½ ٣٫٥ ३", ["1,234.56", "5", "1'000", "½", "٣٫٥", "३"]),
    "apostrophes": ("rock'n'roll l’été dogs' 'tis", ["rock'n'roll", "l’été", "dogs", "tis"]),
    "blanks of every kind": ("a\u00a0b\u3000c\u2009d\u0085e", ["a", "b", "c", "d", "e"]),
}


@pytest.mark.parametrize(("text", "words"), SCRIPTS.values(), ids=SCRIPTS)
def test_words_of_other_scripts(text, words):
    found = find_words(text)
    assert texts(found) == words
    assert [text[word.start : word.end] for word in found] == words


@pytest.mark.parametrize(("text", "words"), SCRIPTS.values(), ids=SCRIPTS)
def test_no_mark_is_left_beside_its_word(text, words):
    for word in find_words(text):
        rest = text[word.end : word.end + 1]
        assert not unicodedata.category(rest or " ").startswith("M")
        assert is_between_characters(text, word.start)
        assert is_between_characters(text, word.end)


def test_boundaries_are_counted_in_characters_beyond_the_basic_plane():
    assert [(w.text, w.start) for w in find_words("👨‍👩‍👧😢 film 𝒳 ไทย")] == [
        ("film", 7),
        ("𝒳", 12),
        ("ไทย", 14),
    ]
    places = [place for place in range(8) if is_between_characters("é👍🏽किa", place)]
    assert places == [0, 1, 3, 5, 6]


def test_places_inside_words():
    assert [place for place in range(7) if is_inside_word("ab, c2", place)] == [1, 5]
    assert not any(is_inside_word("法院ไทย", place) for place in range(6))


@pytest.mark.bad_input(of="data")
def test_too_many_players_that_touch():
    with refused(r"4 eligible words, 2 of them apart"):
        draw(text="法院判决支持银行", n=4)


@pytest.mark.bad_input(of="data")
def test_first_and_all():
    assert texts(draw(n=3, choice="first")) == ["Great", "film", "great"]
    words = texts(
        draw(
            n=3, choice="first", excluded=stop_words("english"), text="It was so sad, a sad sad end"
        )
    )
    assert words == ["sad", "sad", "sad"]
    assert texts(draw(text="the sad film", n=3, choice="all")) == ["the", "sad", "film"]
    for text, n, reason in (
        ("sad film", 3, "too few words"),
        ("the sad film", 2, "too many words"),
    ):
        with refused(".") as error:
            draw(text=text, n=n, choice="all")
        assert error.value.reason == reason


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It rains. Is it cold? Yes!", ["It rains", "Is it cold", "Yes"]),
        ('He said "stop!" and left. 3.5 is (more).', ['He said "stop', "and left", "3.5 is (more"]),
        ("no full stop\n\n a second line ", ["no full stop", "a second line"]),
        ("法院支持。银行拒绝！为什么？因为", ["法院支持", "银行拒绝", "为什么", "因为"]),
        ("यह अच्छी है। वह नहीं।", ["यह अच्छी है", "वह नहीं"]),
        ("هل هذا جميل؟ نعم.", ["هل هذا جميل", "نعم"]),
        ("ខ្ញុំទៅ។គាត់មក។", ["ខ្ញុំទៅ", "គាត់មក"]),
        (" ... ! ", []),
    ],
)
def test_sentences(text, sentences):
    found = find_sentences(text)
    assert texts(found) == sentences
    assert [text[s.start : s.end] for s in found] == sentences
    if sentences:
        assert draw(text=text, n=len(sentences), unit="sentence") == found


def test_tokens_are_those_of_eligible_words():
    text = "the sadness 東 of"
    # A blank may belong to its token; the character 東 has two tokens; the rest is the template's.
    offsets = [(-4, 0), (0, 3), (3, 7), (7, 11), (11, 13), (12, 13), (13, 16), (16, 20)]
    tokens = find_tokens(text, eligible_words(text, stop_words("english")), offsets)
    assert [(t.text, t.start, t.end) for t in tokens] == [
        ("sad", 4, 7),
        ("ness", 7, 11),
        ("東", 12, 13),
    ]
    found = draw(text=text, n=2, unit="token", excluded=stop_words("english"), offsets=offsets)
    assert len(found) == 2
    assert set(found) < set(tokens)
    every = draw(
        text=text, n=3, unit="token", choice="all", excluded=stop_words("english"), offsets=offsets
    )
    assert every == tokens
