"""What tests read out of a page of a study."""

import base64
import gzip
import json
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input"}


class _Page(HTMLParser):
    """Elements of a page, in order: (tag, attributes, text directly or below, whether it was closed)."""

    def __init__(self):
        super().__init__()
        self.elements, self._open, self.pieces = [], [], []

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "attributes": dict(attrs), "text": ""}
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        # Only these may be left open in HTML, and we leave none.
        assert self._open[-1]["tag"] == tag, f"</{tag}> closes <{self._open[-1]['tag']}>"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data
        if not self._open or self._open[-1]["tag"] not in ("script", "style"):
            self.pieces.append(data)

    def close(self):
        super().close()
        assert self._open == [], "an element is not closed"


def elements_of(page):
    """Elements of a page: tag, attributes, text; a page that is not well nested is an error."""
    parser = _Page()
    parser.feed(page)
    parser.close()
    return parser.elements


def text_of(page):
    """The text that a reader sees, with single blanks."""
    parser = _Page()
    parser.feed(page)
    return " ".join("".join(parser.pieces).split())


def cells_of(page):
    """Texts of the cells of its tables."""
    return [" ".join(e["text"].split()) for e in elements_of(page) if e["tag"] in ("td", "th")]


def packed_in(page, name):
    """A text that is packed into a page."""
    (packed,) = (
        e["text"] for e in elements_of(page) if e["attributes"].get("id") == f"packed-{name}"
    )
    return gzip.decompress(base64.b64decode(packed)).decode()


def data_of(page):
    """What the explorer reads."""
    return json.loads(packed_in(page, "data"))
