"""The parts of a batch in several processes, with the results of one.

A function that can share its work out takes ``mapped``, which is :func:`in_turn` by default:

    with Workers(8) as workers:
        solved = extract(v, mapped=workers.map)

What is one part is up to that function and never depends on the number of processes, and a process has one
thread, so that results are the same to the bit, and in the same order, whatever that number is.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from multiprocessing import connection, get_context, parent_process
from types import ModuleType, TracebackType
from typing import Protocol, Self, TypeVar

from threadpoolctl import ThreadpoolController

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")
# What libraries of linear algebra and polars read when they are loaded.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


class Mapped(Protocol):
    """Calls a function with every part, and gives the results in the order of the parts."""

    def __call__(
        self, function: Callable[[_Part], _Result], parts: Iterable[_Part], /
    ) -> Iterator[_Result]: ...


def in_turn(function: Callable[[_Part], _Result], parts: Iterable[_Part], /) -> Iterator[_Result]:
    """One part after the other, in this process and one thread of its linear algebra.

    The matrices are small: threads would wait for each other longer than they work, and add in another
    order.
    """
    for part in parts:
        with _libraries().limit(limits=1):
            result = function(part)
        yield result


@cache
def _libraries() -> ThreadpoolController:
    """The libraries of linear algebra that this process has loaded."""
    return ThreadpoolController()


class Workers:
    """Processes that work on parts; to be used in a ``with`` statement, which ends them.

    Args:
        n: how many. One is this process itself; others start with the first parts.

    Raises:
        ValueError: fewer than one.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"workers: {n} processes; ask for at least one")
        self._n = n
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[_Part], _Result], parts: Iterable[_Part], /
    ) -> Iterator[_Result]:
        """See :class:`Mapped`; function, parts and results must be picklable.

        Raises:
            ValueError: a process was killed. What the function raises is raised here.
        """
        if self._n == 1:
            yield from in_turn(function, parts)
            return
        if self._pool is None:
            # Polars and BLAS have threads, which no fork survives.
            spawn = get_context("spawn")
            self._pool = ProcessPoolExecutor(self._n, spawn, initializer=_prepare)
        try:
            # This starts as many processes as there are parts, if there are fewer than that yet.
            with _one_thread(), _without_main():
                results = self._pool.map(function, parts)
            yield from results
        except BrokenProcessPool as error:
            raise ValueError(
                f"one of {self._n} processes was killed, most likely for want of memory; give the job "
                "fewer threads or more memory"
            ) from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that start meanwhile have one thread each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes that start meanwhile do not run the main script, as they would to find functions in it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _prepare() -> None:
    """What a process does first: it is to end with its parent, and in silence."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
