"""What a bad input is answered with: one line that says where, what is wrong, and how to mend it.

Tests with the marker ``bad_input`` say by ``of`` what was bad; each of them has to come here.
"""

import re
from contextlib import contextmanager

import pytest

KINDS = ("config", "data", "folder", "command_line")
_PLACE = re.compile(
    r"\S:\s?\S|, (line|row|entry) \d|\S/\S|^--\w|^[A-Z_]+ |\w[._]\w|'"
)  # before the first semicolon
# Verbs of what is to be done; of a value in a config, what it must be.
_MEND = re.compile(
    r"; .*\b(add|ask|call|check|choose|copy|correct|cut|de-quantise|delete|did you mean|divide|download|"
    r"drop|fill|gather|give|join|keep|known are|known keys|leave|list|loosen|lower|make|move|name|put|"
    r"raise|rebuild|remove|rename|run|save|set|split|start|swap|take|train|unset|use|wait|write)\b"
    r"|\bmust (be|have|not|match|contain) |has none of the allowed forms"
)
# How often a message was looked at; see the fixture in conftest.py.
looked_at = []


def assert_one_line(error):
    """Check the message of an error: no line end, a place, and a mend."""
    message = str(error)
    looked_at.append(message)
    assert message.splitlines() == [message], f"not one line: {message!r}"
    assert _PLACE.search(message.partition(";")[0]), f"names no place: {message}"
    assert _MEND.search(message), f"says no mend: {message}"


@contextmanager
def refused(pattern, error=ValueError):
    """As ``pytest.raises``, of an error whose message is one line with place and mend."""
    with pytest.raises(error, match=pattern) as caught:
        yield caught
    assert_one_line(caught.value)


def marked(table, of):
    """Cases of a table by name, of which those whose last value is a message are refused inputs."""
    return [
        pytest.param(
            *case, id=name, marks=pytest.mark.bad_input(of=of) if isinstance(case[-1], str) else ()
        )
        for name, case in table.items()
    ]
