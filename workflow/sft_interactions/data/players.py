"""The choice of players that the config's ``players`` block asks for."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def tell_unused_samples(
    settings: Mapping[str, Any], sample_ids: Iterable[str], dataset: str
) -> None:
    """Warn of samples of a file of players that are not among those analysed.

    A program for tables may have changed their ids (``12345e6`` is a number to it), or the data are others.

    Args:
        settings: the config's ``players`` block.
        sample_ids: ids of all samples that are analysed.
        dataset: the data set's name in the config, for messages.
    """
    scheme, _, path = settings["choice"].partition(":")
    if scheme != "path":
        return
    unused = sorted(OwnPlayers(path, settings["n"]).rows.keys() - set(sample_ids))
    if unused:
        logging.getLogger(__name__).warning(
            "players.choice: %d samples of %s are not analysed, first %s; see that datasets.%s has rows of "
            "these ids that pass its filter, and that its analysis is large enough",
            *(len(unused), path, unused[0], dataset),
        )
