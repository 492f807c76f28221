"""Captions of figures: the texts of Snakemake's own report, filled in and turned into markup."""

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from docutils.core import publish_parts
from docutils.utils import SystemMessage
from jinja2 import Environment, StrictUndefined, TemplateError

# A caption may not read files or bring markup of its own, and what docutils warns of stops.
_SETTINGS = {
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "halt_level": 2,
    "report_level": 5,
    "_disable_config": True,
}


def render(caption: str, params: Mapping[str, Any], name: str) -> str:
    """A caption as HTML.

    Args:
        caption: reStructuredText, a Jinja template that names ``snakemake.params``.
        params: those of the rule of the figure. Their texts are shown as they are, and are no markup.
        name: of its file, for messages.

    Raises:
        ValueError: a param is missing, or the text is no proper reStructuredText. The message starts with
            ``name``.
    """
    # The result is reStructuredText, not HTML: the escaping is that of _literal.
    environment = Environment(undefined=StrictUndefined, autoescape=False, finalize=_literal)
    job = SimpleNamespace(params=SimpleNamespace(**params))
    try:
        text = environment.from_string(caption).render(snakemake=job)
        parts = publish_parts(text, writer="html5", settings_overrides=_SETTINGS)
    except (TemplateError, SystemMessage) as error:
        raise ValueError(f"{name}: this caption cannot be shown ({error}); mend it") from None
    return str(parts["body"])


def _literal(value: Any) -> Any:
    """A text with a backslash before everything that could be markup."""
    if not isinstance(value, str):
        return value
    return re.sub(r"([^\w\s]|_)", r"\\\1", " ".join(value.split()))
