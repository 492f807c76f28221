"""The choice of players that the config's ``players`` block asks for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sft_interactions.data.player_file import OwnPlayers
from sft_interactions.data.words import UnsuitableSampleError, Word, choose_players, stop_words

Chooser = Callable[[str, str, Sequence[tuple[int, int]]], list[Word]]


def make_chooser(settings: Mapping[str, Any], seed: int) -> Chooser:
    """Function (sample_id, text, token offsets) -> players, of the config's ``players`` block.

    Raises:
        ValueError: the file of ``players.choice`` cannot be read.
    """
    choice = settings["choice"]
    if choice.startswith("path:"):
        own = OwnPlayers(choice.removeprefix("path:"), settings["n"])
        return lambda sample_id, text, offsets: own.choose(sample_id, text)
    excluded = stop_words(settings["stop_words"])

    def choose(sample_id: str, text: str, offsets: Sequence[tuple[int, int]]) -> list[Word]:
        return choose_players(
            sample_id,
            text,
            settings["n"],
            seed=seed,
            excluded=excluded,
            choice=choice,
            unit=settings["unit"],
            offsets=offsets,
        )

    return choose


def unsuitable_for(settings: Mapping[str, Any], seed: int) -> Callable[[str, str], str | None]:
    """Function (sample_id, text) -> why the sample cannot give its players, or None.

    Tokens are another matter for every model; here a text needs one eligible word for them.
    """
    if settings["unit"] == "token":
        settings = {**settings, "unit": "word", "choice": "random", "n": 1}
    choose = make_chooser(settings, seed)

    def unsuitable(sample_id: str, text: str) -> str | None:
        try:
            choose(sample_id, text, ())
        except UnsuitableSampleError as error:
            return error.reason
        return None

    return unsuitable
