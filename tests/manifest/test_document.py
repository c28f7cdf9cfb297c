"""One TOML document: what is told about files that cannot be parsed, and lines of what can."""

# ruff: noqa: E501  # tables of cases have a line each

from __future__ import annotations

import textwrap

import pytest

from kernelpkg.errors import PackError, Problem
from kernelpkg.files import digest_bytes
from kernelpkg.manifest.decode import MISSING, Anything, Key, MapOf, Number, Table, Text, table
from kernelpkg.manifest.document import Document, key_lines, line_of
from kernelpkg.manifest.keys import NAME

TABLE = Table(
    keys={
        "edition": Key(kind=Number(whole=True), required=True, doc=""),
        "sizes": Key(kind=MapOf(item=Number(), key=Text("an identifier", NAME)), default={}, doc=""),
        "top": Key(kind=Table(keys={"x": Key(kind=Text(), doc="")}), default={}, doc=""),
    }
)  # fmt: skip


def read(tmp_path, content):
    path = tmp_path / "it.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Document(path, "shown/it.toml", TABLE)


def lines_of(tmp_path, content):
    with pytest.raises(PackError) as caught:
        read(tmp_path, content)
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    "line",
    ["a." * 12_000 + "b = 1", f"[{'a . ' * 12_000}b]", "x = { " + "'a b'." * 12_000 + "c = 1 }"],
    ids=["key", "header", "inline"],
)
def test_a_key_of_thousands_of_parts_is_refused(tmp_path, line):
    """Before it is parsed, which takes hundreds of MB; numbers and texts may have many dots."""
    (tmp_path / "x").write_text(f"edition = 1\n\n{line}\n")
    with pytest.raises(PackError) as caught:
        Document(tmp_path / "x", "x", table())
    assert str(caught.value) == "x:3: KP003 does not parse as TOML: it is nested too deeply"
    numbers = ", ".join(["1.5"] * 1000)
    (tmp_path / "x").write_text(f'a = [{numbers}]\nb = """{line[:20_000]}"""\n')
    free = MapOf(Anything())
    assert len(Document(tmp_path / "x", "x", Table(rest=free)).values["a"]) == 1000


def test_a_document_has_its_values_text_and_digest(tmp_path):
    """Values are decoded, with defaults, and the digest is of the text as Unix writes it."""
    document = read(tmp_path, b"\xef\xbb\xbfedition = 1\r\n[sizes]\r\na = 2\r\n")
    assert document.values == {"edition": 1, "sizes": {"a": 2}, "top": {"x": None}}
    assert document.digest == digest_bytes(b"edition = 1\n[sizes]\na = 2\n")
    assert document.sound
    assert document.problems() == ()
    assert document.line("sizes", "a") == 3
    assert document.line("sizes", "b") == 2


def test_values_are_found_by_path(tmp_path):
    """Behind a part that was refused there is nothing."""
    document = read(tmp_path, "edition = 1\ntop = 4\n[sizes]\na = 1\n")
    assert document.get("sizes", "a") == 1
    assert document.get("top") is MISSING
    assert document.get("top", "x") is MISSING
    assert document.get("nothing", "x") is MISSING


def test_problems_are_sorted_and_told_once(tmp_path):
    """Problems come in the order of their places, those of other files among them."""
    document = read(tmp_path, "edition = 1\n[sizes]\na = 'x'\n")
    document.report(("edition",), "KP999", "second")
    document.report(("edition",), "KP998", "first")
    document.report(("edition",), "KP998", "first")
    document.report_elsewhere(Problem(path="a/other.py", line=9, code="KP900", message="else"))
    assert not document.sound
    assert [str(problem) for problem in document.problems()] == [
        "a/other.py:9: KP900 else",
        "shown/it.toml:1: KP998 first",
        "shown/it.toml:1: KP999 second",
        "shown/it.toml:3: KP012 'a' must be a number, not a text ('x')",
    ]


@pytest.mark.parametrize(
    ("content", "incomplete"),
    [
        ("edition = 1\nq = 1", False),
        ("edition = '1'", True),
        ("", True),
        ("edition = 1\n[sizes]\n'a b' = 1", True),
    ],
    ids=["unknown", "mistyped", "missing", "misnamed"],
)
def test_a_document_that_lacks_parts_is_incomplete(tmp_path, content, incomplete):
    """What is missing is told once, and not again by those who look for it."""
    assert read(tmp_path, content).incomplete == incomplete


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("edition = 2", 1),
        ("# edition = 1\n\n  edition=3  # much later", 3),
        ("edition = 2\r\nnot even toml", 1),
        ("edition = 2\n[tables.of = the future", 1),
        ("edition = +2", 1),
        ("edition = 0b10", 1),
        ('"edition" = 2', 1),
        ("[sizes]\na = 1\n", None),
        ("edition = 1\n[sizes]\nedition = 2\n", None),
        ('edition = 1\n[top]\nx = """\nedition = 2\n"""\n', None),
    ],
)
def test_an_edition_of_the_future_is_found_before_the_rest(tmp_path, content, line):
    """Newer manifests may not be TOML of today; a size of the name is not the edition."""
    if line is None:
        assert read(tmp_path, content).get("sizes") is not MISSING
        return
    (found,) = lines_of(tmp_path, content)
    assert found.startswith(f"shown/it.toml:{line}: KP002 edition ")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("edition = 1\na = ", "shown/it.toml:2: KP003"),
        ("edition = 1\n\n\n[", "shown/it.toml:4: KP003"),
        ("edition = 1\nedition = 1\n", "shown/it.toml:2: KP003"),
        ("edition = 1\nx = '''\n\n", "shown/it.toml:2: KP003"),
        ("edition = 1\n\0", "shown/it.toml:2: KP003"),
        (b"edition = 1\n\xff", "shown/it.toml:2: KP003 is not UTF-8"),
        (b"e\0d\0", "shown/it.toml:1: KP003"),
    ],
)
def test_what_does_not_parse_has_its_line(tmp_path, content, place):
    """One line says where the document is broken."""
    (found,) = lines_of(tmp_path, content)
    assert found.startswith(place)


def test_a_number_of_thousands_of_digits(tmp_path):
    """Python does not read it, and its line is found all the same."""
    (found,) = lines_of(tmp_path, f"edition = 1\n[sizes]\na = {'7' * 5000}\nb = 2\n")
    assert found == "shown/it.toml:3: KP003 does not parse as TOML: a number has too many digits"


def toml_lines(text):
    return key_lines(textwrap.dedent(text).lstrip("\n"))


def test_tables_keys_and_entries():
    """Everything in a document has the line on which it is spelled."""
    assert toml_lines("""
        # a comment with [brackets] = "and 'quotes
        edition = 1
        [a]
        b = [1,
             [2, 3],  # ] = 4
             { c = 4 }]
        "d e".'f'.g = "]\\"" # tail
        [[t]]
        x = '''
        [not.a.table]
        '''
        [[t]]
        [t.y]
    """) == {
        ("edition",): 2,
        ("a",): 3,
        ("a", "b"): 4,
        ("a", "b", 0): 4,
        ("a", "b", 1): 5,
        ("a", "b", 1, 0): 5,
        ("a", "b", 1, 1): 5,
        ("a", "b", 2): 6,
        ("a", "b", 2, "c"): 6,
        ("a", "d e"): 7,
        ("a", "d e", "f"): 7,
        ("a", "d e", "f", "g"): 7,
        ("t",): 8,
        ("t", 0): 8,
        ("t", 0, "x"): 9,
        ("t", 1): 12,
        ("t", 1, "y"): 13,
    }


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ('"\\U0001F600"', "😀"),
        ('"\\\\U0001F600"', "\\U0001F600"),
        ("\"'quoted'\"", "'quoted'"),
        ("''", ""),
        ('""', ""),
        ('"a\tb"', "a\tb"),
        ('"a\\tb"', "a\tb"),
        ("'a\\tb'", "a\\tb"),
        ("1.2", "1"),
        ("-", "-"),
    ],
)
def test_keys_are_read_as_tomllib_reads_them(key, name):
    """Escapes of keys are TOML's, not JSON's or Python's."""
    assert next(iter(key_lines(f"{key} = 0"))) == (name,)


@pytest.mark.parametrize(
    "value",
    [
        '""',
        '"""\n"""',
        '""""quoted"""""',
        "''''quoted'''''",
        '"""a \\""" b"""',
        "1979-05-27 07:32:00",
        "1979-05-27T07:32:00+01:00",
        "[]",
        "[ # ]\n]",
        "{}",
        "-inf",
        '"\\\\"',
    ],
)
def test_what_follows_a_value_is_found(value):
    """No value, however it is written, takes the key behind it along."""
    text = f"a = {value}\nb = [{value}, {value}]\nc = 0\n"
    found = key_lines(text)
    assert found["c",] == text.count("\n")
    assert ("b", 1) in found
    assert ("b", 2) not in found


def test_windows_line_ends_count_once():
    """A line is a line, whatever ends it."""
    assert key_lines("a = 1\r\n\r\nb = 2\r\n") == {("a",): 1, ("b",): 3}


def test_a_table_that_is_implied_first_stands_at_its_header():
    """A header of its own says where a table is; until then, that of a table in it does."""
    assert key_lines("[a.b]\n[c.d]\n[a]\n") == {("a",): 3, ("a", "b"): 1, ("c",): 2, ("c", "d"): 2}


def test_a_path_that_is_not_there_has_the_line_around_it():
    """What is missing is told where it is missing."""
    lines = {("a",): 3, ("a", "b"): 4}
    assert line_of(lines, ("a", "b", "c", 7)) == 4
    assert line_of(lines, ("a", "x")) == 3
    assert line_of(lines, ("x",)) == 1
    assert line_of(lines, ()) == 1
