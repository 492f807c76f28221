"""Settings of a training, as transformers' Trainer leaves them in ``training_args.bin``.

The file is a pickle of objects, which could run any program. It is read here so that it cannot: no class of
it is imported. Imports the standard library only.
"""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NAME = "training_args.bin"


class _Unknown:
    """Stands for an object of any class or function, and does nothing with what it is made of."""

    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Unknown":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    """Makes numbers, texts and containers of them, and of no class anything but `_Unknown`."""

    def find_class(self, module: str, name: str) -> type[_Unknown]:
        return _Unknown

    def persistent_load(self, pid: Any) -> None:
        return None


def read_training_args(folder: Path) -> Mapping[str, Any]:
    """Settings of the training by name, those that are numbers, texts or None.

    Args:
        folder: a checkpoint, or the output folder of a trainer.

    Returns:
        Empty where there is no such file, or none that can be read: nothing is known then.
    """
    try:
        with zipfile.ZipFile(folder / NAME) as parts:
            (name,) = (one for one in parts.namelist() if one.endswith("/data.pkl"))
            with parts.open(name) as file:
                state = _Reader(file).load().state
        return {
            key: value
            for key, value in state.items()
            if isinstance(key, str)
            and (value is None or isinstance(value, bool | int | float | str))
        }
    except Exception:  # whatever a damaged or foreign file leads to
        return {}


def values_of(name: str, folders: Iterable[Path]) -> set[Any]:
    """What a setting is, in those of the folders (see :func:`read_training_args`) that tell it."""
    settings = [read_training_args(folder) for folder in folders]
    return {one[name] for one in settings if name in one}


def why_no_cross_entropy(folders: Iterable[Path]) -> str | None:
    """Why the losses of a training are no cross-entropy, by its settings; None if they may be.

    Args:
        folders: checkpoints, and the output folder.
    """
    for folder in folders:
        settings = read_training_args(folder)
        smoothing = settings.get("label_smoothing_factor")
        if isinstance(smoothing, int | float) and smoothing:
            return (
                f"are not taken: label_smoothing_factor is {smoothing:g} in {folder / NAME}, and a "
                "smoothed loss is no cross-entropy"
            )
        if settings.get("loss_type") == "dft":
            return (
                f"are not taken: loss_type is dft in {folder / NAME}, which weights every token by its "
                "probability"
            )
    return None
