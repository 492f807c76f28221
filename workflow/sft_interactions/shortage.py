"""Errors that tell of memory or a disk that ran out, whoever says so and whatever they led to.

Imports the standard library only.
"""

import errno
import os

# What Python, torch, the C library, C++, CUDA and Rust say where memory is used up or limited.
_MEMORY = (
    os.strerror(errno.ENOMEM),
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "could not spawn threads",
    "can't spawn worker thread",
    "can't start new thread",
    "could not create a primitive",  # oneDNN
    "could not create a memory object",
    "failed to map segment from shared object",
)
# Libraries in Rust give errors of their own kinds with these texts.
_DISK = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


def shortage_behind(error: BaseException) -> tuple[str, str] | None:
    """What ran out, ``memory`` or ``disk``, and the first line of the error that told so.

    Errors that this one was raised from, or while handling, are looked at too: code that takes any error of
    a library for a damaged file has one of these behind its own.

    Args:
        error: as it was caught.

    Returns:
        None if nothing tells of a shortage.
    """
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        text = str(one)
        first = text.strip().partition("\n")[0] or type(one).__name__
        if any(said in text for said in _DISK):
            return "disk", first
        if isinstance(one, MemoryError) or any(said in text for said in _MEMORY):
            return "memory", first
        one = one.__cause__ or one.__context__
    return None
