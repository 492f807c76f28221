"""Players: the words of the user text that are masked. The same words for every model and checkpoint."""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from icu4py.breakers import CharacterBreaker, WordBreaker

# English function words. Negations are left out on purpose: they carry meaning in short texts.
ENGLISH_STOP_WORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below
    between both but by can could did do does doing down during each few for from further had has
    have having he he'd he'll he's her here here's hers herself him himself his how how's i i'd i'll
    i'm i've if in into is it it's its itself just let's me might more most must my myself of off on
    once only or other ought our ours ourselves out over own same shall she she'd she'll she's should
    so some such than that that's the their theirs them themselves then there there's these they
    they'd they'll they're they've this those through to too under until up very was we we'd we'll
    we're we've were what what's when when's where where's which while who who's whom why why's will
    with would you you'd you'll you're you've your yours yourself yourselves
    """.split()
)

# Chinese function words, as the segmenter cuts them, and the words that questions are asked with.
CHINESE_STOP_WORDS = frozenset(
    """
    的 地 得 了 着 过 之 所 者 们 第 个 是 为 在 有 于 以 与 和 及 或 或者 以及 并 并且 而 而且 且 但 但是
    则 即 就 也 都 又 还 还是 再 才 已 已经 曾 将 会 能 可 可以 应 应当 应该 须 要 把 被 给 让 使 由 从 自
    向 往 到 至 对 对于 关于 根据 按照 依照 通过 因 因为 因此 所以 由于 如 如果 若 虽然 然而 不过 只 只有
    只要 除 除了 当 时 后 前 上 中 下 内 外 里 间 之后 之前 以上 以下 其 其他 其中 该 此 这 那 这个 那个
    这些 那些 某 各 每 本 另 等 我 你 您 他 她 它 我们 你们 他们 她们 它们 自己 谁 什么 哪 哪个 哪些 哪一
    哪一项 怎么 如何 为何 几 多少 是否 下列 吗 呢 吧 啊 呀
    """.split()
    # The same in traditional characters, where they differ.
    + """
    著 過 們 個 為 爲 於 與 並 並且 則 還 還是 已經 將 會 應 應當 應該 須 給 讓 從 對 對於 關於 根據 通過
    因為 因爲 由於 雖然 不過 當 時 後 內 裡 裏 間 之後 該 這 這個 那個 這些 妳 牠 我們 你們 妳們 他們
    她們 它們 牠們 誰 什麼 甚麼 哪個 哪一項 怎麼 為何 爲何 幾 嗎
    """.split()
)

# A zero-width space stands between words of Thai or Khmer.
_CHUNK = re.compile(r"[^\s\u200b]+")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA = re.compile(r"[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
# Scripts without blanks between words, which ICU has dictionaries of: Thai, Lao, Burmese, Khmer. Tibetan
# is cut into syllables.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u19e0-\u19ff]"
)
_SENTENCE_END = re.compile(r"[.!?…؟۔։።]+[\"')\]”’»]*(?=\s)|[。！？；｡।॥။។៕]|\n")
_JOINERS = "\u200c\u200d"
_AS_COMPARED = str.maketrans("’‘ʼ＇", "''''", "\u00ad")


@dataclass(frozen=True)
class Word:
    """A player (a word, a phrase, a token or a sentence) and its place, in characters of the text."""

    text: str
    start: int
    end: int


class UnsuitableSampleError(ValueError):
    """A sample that cannot give its players, and is skipped for it.

    Attributes:
        reason: what skipped samples are counted under.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def find_words(text: str) -> list[Word]:
    """Words of ``text`` in reading order: what stands between blanks, less punctuation at its ends.

    Ends are boundaries of Unicode (UAX 29), so marks and vowel signs belong to their word. What stands
    between blanks and is of a script without blanks is cut into words: Chinese by the segmenter jieba;
    Japanese (wherever the text has kana), Thai, Lao, Khmer and Burmese by the dictionaries of ICU.
    """
    japanese = _KANA.search(text) is not None
    return [
        word
        for chunk in _CHUNK.finditer(text)
        for piece, start in _segments(chunk.group(), japanese=japanese)
        for word in _trimmed(piece, chunk.start() + start)
    ]


def is_between_characters(text: str, place: int) -> bool:
    """Whether a place in ``text`` is a boundary of what a reader takes for characters (UAX 29)."""
    return place in {0, *(end for _, end in _break(CharacterBreaker(text, "und")))}


def is_inside_word(text: str, place: int) -> bool:
    """Whether letters or digits of a script with blanks stand on both sides of a place in ``text``."""
    sides = text[max(0, place - 1) : place + 1]
    return place > 0 and len(sides) == 2 and sides.isalnum() and not _has_no_blanks(sides)


def _break(breaker: CharacterBreaker | WordBreaker) -> Iterator[tuple[int, int]]:
    """(start, end) of the segments of a text, in characters; ICU's own are in units of UTF-16."""
    start = 0
    for segment in breaker:
        yield start, start + len(segment)
        start += len(segment)


def _trimmed(piece: str, start: int) -> list[Word]:
    """``piece``, which begins at ``start``, less punctuation at its ends; nothing if all is that."""
    inner = [(a, b) for a, b in _break(WordBreaker(piece, "und")) if _has_letters(piece[a:b])]
    if not inner:
        return []
    a, b = inner[0][0], inner[-1][1]
    while _is_loose(piece[a]):
        a += 1
    while _is_loose(piece[b - 1]):
        b -= 1
    return [Word(piece[a:b], start + a, start + b)]


def _has_letters(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _is_loose(character: str) -> bool:
    """Whether Unicode joins a character to a word that is no part of it: a low line, a direction mark."""
    return unicodedata.category(character) in ("Pc", "Cf") and character not in _JOINERS


def _segments(chunk: str, *, japanese: bool) -> list[tuple[str, int]]:
    """Pieces of what stands between blanks, each with its start; one, if its script has blanks."""
    if _HAN.search(chunk) and not japanese:
        return _chinese(chunk)
    if _has_no_blanks(chunk):
        return [(chunk[a:b], a) for a, b in _break(WordBreaker(chunk, "und"))]
    return [(chunk, 0)]


def _has_no_blanks(text: str) -> bool:
    """Whether some of a text is of a script that has no blanks between words."""
    return any(script.search(text) for script in (_HAN, _KANA, _UNSPACED))


def _chinese(chunk: str) -> list[tuple[str, int]]:
    import rjieba  # for texts in Chinese only

    pieces: list[tuple[str, int]] = []
    for piece, start, _ in rjieba.tokenize(chunk):
        if pieces and unicodedata.category(piece[0]).startswith("M"):
            # A variation selector, which the segmenter takes for a word.
            pieces[-1] = (pieces[-1][0] + piece, pieces[-1][1])
        else:
            pieces.append((piece, start))
    return pieces


def find_sentences(text: str) -> list[Word]:
    """Sentences of ``text``, less punctuation at their ends.

    A sentence ends with . ! ? … ؟ ۔ before a blank, with 。！？；।, or with its line.
    """
    places = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    return [sentence for a, b in pairwise(places) for sentence in _trimmed(text[a:b], a)]


def find_tokens(text: str, words: Sequence[Word], offsets: Sequence[tuple[int, int]]) -> list[Word]:
    """Tokens of ``text`` that touch one of ``words``.

    Tokens that share a character (bytes of a rare one) are taken together.

    Args:
        offsets: (start, end) of every token, in characters of ``text``; what lies outside is left out.
    """
    spans: list[tuple[int, int]] = []
    for start, end in offsets:
        if spans and start < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        elif 0 <= start < end <= len(text):
            spans.append((start, end))
    tokens = []
    for start, end in spans:
        if any(start < word.end and end > word.start for word in words):
            token = text[start:end].strip()
            start += text[start:end].index(token)
            tokens.append(Word(token, start, start + len(token)))
    return tokens


def stop_words(setting: str | Collection[str]) -> frozenset[str]:
    """Stop-words of the config value: a language, ``"builtin"`` (all we have), ``"none"``, or a list.

    Raises:
        ValueError: an entry of a list holds blanks or outer punctuation, so that no word is like it.
    """
    builtin = {
        "english": ENGLISH_STOP_WORDS,
        "chinese": CHINESE_STOP_WORDS,
        "builtin": ENGLISH_STOP_WORDS | CHINESE_STOP_WORDS,
        "none": frozenset(),
    }
    if isinstance(setting, str):
        return builtin[setting]
    for entry in setting:
        words = [word.text for word in find_words(entry)]
        if not entry or "".join(words) != entry:
            raise ValueError(
                f"players.stop_words: {entry!r} is not a word alone, as prompts are cut into words; write "
                f"{', '.join(words) or 'a word'}"
            )
    return frozenset(map(plain_form, setting))


def plain_form(word: str) -> str:
    """A word as stop-words are compared.

    Case, kind of apostrophe, composition and soft hyphens do not matter.
    """
    return unicodedata.normalize("NFC", word.casefold()).translate(_AS_COMPARED)


def eligible_words(text: str, excluded: Collection[str]) -> list[Word]:
    """Words of ``text`` that may be players: those whose case-folded form is not ``excluded``."""
    return [word for word in find_words(text) if plain_form(word.text) not in excluded]


def choose_players(
    sample_id: str,
    text: str,
    n: int,
    *,
    seed: int,
    excluded: Collection[str],
    choice: str = "random",
    unit: str = "word",
    offsets: Sequence[tuple[int, int]] = (),
) -> list[Word]:
    """Choose ``n`` players of one sample among its eligible words, in reading order.

    Args:
        choice: ``random`` draws them; the draw depends on ``seed``, ``sample_id`` and the places of
            the words only, so every model and checkpoint masks the same ones (arXiv 2401.16318 draws
            8-10 words at random likewise). Words that touch, as in Chinese, are not drawn together,
            since a token could belong to both. ``first`` takes the first ``n``; ``all`` takes all,
            of a text that has just ``n``.
        unit: ``word``; ``sentence`` (stop-words do not matter); ``token``, those that touch an eligible
            word.
        offsets: for ``token``, as in :func:`find_tokens`.

    Raises:
        UnsuitableSampleError: the text has fewer than ``n`` eligible units, or for ``all`` more.
    """
    if unit == "sentence":
        candidates = find_sentences(text)
    else:
        candidates = eligible_words(text, excluded)
        if unit == "token":
            candidates = find_tokens(text, candidates, offsets)
    if choice == "random":
        chosen = _draw(sample_id, candidates, n, seed, may_touch=unit == "token")
    else:
        chosen = candidates if choice == "all" else candidates[:n]
    if len(chosen) < n:
        apart = f", {len(chosen)} of them apart" if len(chosen) < len(candidates) else ""
        raise UnsuitableSampleError(
            f"too few {unit}s",
            f"sample {sample_id}: {len(candidates)} eligible {unit}s{apart}, but players.n is {n}; "
            "lower players.n, shorten players.stop_words or raise filter.min_words",
        )
    if len(chosen) > n:
        raise UnsuitableSampleError(
            f"too many {unit}s",
            f"sample {sample_id}: {len(chosen)} eligible {unit}s, but players.n is {n} and "
            "players.choice is all; raise players.n or lower filter.max_words",
        )
    return chosen


def _draw(
    sample_id: str, candidates: Sequence[Word], n: int, seed: int, *, may_touch: bool
) -> list[Word]:
    def rank(word: Word) -> bytes:
        return hashlib.sha256(f"{seed}:{sample_id}:{word.start}".encode()).digest()

    chosen: list[Word] = []
    for word in sorted(candidates, key=rank):
        touching = any(word.start == other.end or word.end == other.start for other in chosen)
        if len(chosen) < n and (may_touch or not touching):
            chosen.append(word)
    return sorted(chosen, key=lambda word: word.start)
