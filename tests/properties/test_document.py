"""The line scanner against tomllib, over random TOML documents written with all its spellings."""

from __future__ import annotations

import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from kernelpkg.manifest.document import key_lines, line_of

BARE = st.from_regex(r"[A-Za-z0-9_-]{1,4}", fullmatch=True)
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\x7f", min_codepoint=32), max_size=5
)
KEYS = st.one_of(
    BARE, BARE, st.sampled_from(["'a", 'b"', "a.b", "", "é", "[x]", "#", "a = 1", "\\U"])
)
SCALARS = st.one_of(
    st.integers(-99, 99),
    st.booleans(),
    st.sampled_from(
        ["1979-05-27 07:32:00", "1979-05-27T07:32:00Z", "07:32:00", "1e6", "nan", "0x1F"]
    ),
    TEXTS.map(lambda text: ("text", text)),
    TEXTS.map(lambda text: ("lines", text)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)


def basic(text):
    escaped = "".join(
        f"\\U{ord(c):08X}" if c == "é" or ord(c) < 32 else {'"': '\\"', "\\": "\\\\"}.get(c, c)
        for c in text
    )
    return f'"{escaped}"'


class Writer:
    """Writes a document, and notes on which line each path is first spelled."""

    def __init__(self, draw):
        self.draw = draw
        self.text = ""
        self.lines = {}

    def note(self, path):
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def put(self, text):
        self.text += text

    def gap(self, *, breaks=False):
        words = ["", " ", "  ", "\t"] + (["\n", " # it's \"\n", "\n\n"] if breaks else [])
        self.put(self.draw(st.sampled_from(words)))

    def key(self, key):
        bare = key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key)
        ways = [key] if bare else []
        ways.append(basic(key))
        if "'" not in key and "é" not in key:
            ways.append(f"'{key}'")
        self.put(self.draw(st.sampled_from(ways)))

    def value(self, path, value):
        if isinstance(value, list):
            self.put("[")
            self.gap(breaks=True)
            for place, item in enumerate(value):
                self.note((*path, place))
                self.value((*path, place), item)
                self.gap(breaks=True)
                if place < len(value) - 1 or self.draw(st.booleans()):
                    self.put(",")
                self.gap(breaks=True)
            self.put("]")
        elif isinstance(value, dict):
            self.put("{")
            self.gap()
            for place, (key, item) in enumerate(value.items()):
                self.put("," if place else "")
                self.pair(path, key, item)
            self.put("}")
        elif isinstance(value, tuple):
            kind, text = value
            if kind == "lines" and "'''" not in text and not text.endswith("'"):
                self.put(f"'''\n{text}\n] # no '' end\n'''")
            elif kind == "lines":
                self.put(f'"""{basic(text)[1:-1]}\n"" = \\\n   """')
            else:
                self.put(basic(text))
        else:
            self.put(str(value).lower() if isinstance(value, bool) else str(value))

    def pair(self, path, key, value):
        self.gap()
        self.note((*path, key))
        dotted = isinstance(value, dict) and value and self.draw(st.booleans())
        self.key(key)
        path = (*path, key)
        if dotted:  # one key of a dotted table, written at once: a.b = 1
            inner, value = next(iter(value.items()))
            path = (*path, inner)
            self.gap()
            self.put(".")
            self.gap()
            self.note(path)
            self.key(inner)
        self.gap()
        self.put("=")
        self.gap()
        self.value(path, value)
        self.gap()

    def header(self, path, *, array=False):
        self.put("[[" if array else "[")
        for place, key in enumerate(path):
            self.put("." if place else "")
            self.gap()
            self.key(key)
            self.gap()
        self.put("]]" if array else "]")

    def end(self):
        self.put(self.draw(st.sampled_from(["\n", "\r\n", " # a [comment] = 'x\n", "\n\n"])))


@st.composite
def documents(draw):
    """A document, and its lines by path."""
    writer = Writer(draw)
    for key, value in draw(
        st.dictionaries(KEYS.map(lambda k: f"{k}0"), VALUES, max_size=3)
    ).items():
        writer.pair((), key, value)
        writer.end()
    names = draw(st.lists(KEYS, max_size=4, unique=True))
    for name in names:
        top = f"{name}1"
        kind = draw(st.sampled_from(["table", "array", "deep", "late"]))
        tables = draw(st.integers(1, 3)) if kind == "array" else 1
        for place in range(tables):
            path = (top, place) if kind == "array" else (top, "in") if kind == "deep" else (top,)
            if kind == "late":  # the table below comes first, and the one around it later
                writer.note((top, "sub"))
                writer.header((top, "sub"))
                writer.end()
            writer.note((top,))
            writer.note(path)
            writer.header((top, "in") if kind == "deep" else (top,), array=kind == "array")
            writer.end()
            for key, value in draw(st.dictionaries(KEYS, VALUES, max_size=3)).items():
                if kind == "late" and key == "sub":
                    continue
                writer.pair(path, key, value)
                writer.end()
            if kind == "array" and draw(st.booleans()):
                inner = (*path, "below1")
                writer.note(inner)
                writer.header((top, "below1"))
                writer.end()
    return writer.text, writer.lines


def paths_of(value, at=()):
    """The paths of everything in a document, as tomllib reads it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*at, key)
            yield from paths_of(item, (*at, key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield (*at, place)
            yield from paths_of(item, (*at, place))


@settings(max_examples=150)
@given(documents())
def test_every_path_has_the_line_on_which_it_is_spelled(document):
    """The scanner finds what tomllib finds, no more, and where the writer put it."""
    text, lines = document
    found = key_lines(text)
    assert set(found) == set(paths_of(tomllib.loads(text)))
    assert found == lines


@settings(max_examples=30)
@given(documents(), st.lists(st.one_of(KEYS, st.integers(0, 2)), max_size=3))
def test_a_path_that_is_not_there_has_the_line_around_it(document, more):
    """A key that is missing is reported at its table."""
    lines = key_lines(document[0])
    for path, line in lines.items():
        assert line_of(lines, path) == line
        assert line_of(lines, (*path, "nothing here", *more)) == line
    assert line_of(lines, ("nowhere", *more)) == 1
