"""Something that is done after a module was imported, and that leaves imports as they are."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zipfile

import pytest

from kernelpkg.vllm.arrival import Arrival


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A directory of modules on the path; what was imported of it is forgotten."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    (tmp_path / "arriving").mkdir()
    (tmp_path / "arriving" / "__init__.py").touch()
    yield tmp_path / "arriving"
    for name in set(sys.modules) - before:
        if name.startswith("arriving"):
            del sys.modules[name]


@pytest.fixture
def arrival():
    """Notes whether the module was complete each time it was told that one arrived."""
    seen: list[bool] = []
    found = Arrival(lambda: seen.append(hasattr(sys.modules["arriving.late"], "DONE")))
    found.seen = seen
    yield found
    found.stop()


def test_it_is_told_after_the_module_was_executed(modules, arrival):
    """Once for an import, and not at all for other modules or when it was imported before."""
    (modules / "late.py").write_text("DONE = 1\n")
    (modules / "other.py").touch()
    arrival.watch(["arriving.late"])
    importlib.import_module("arriving.other")
    assert arrival.seen == []
    importlib.import_module("arriving.late")
    importlib.import_module("arriving.late")
    assert arrival.seen == [True]
    assert arrival.arrived == {"arriving.late"}
    importlib.reload(sys.modules["arriving.late"])
    assert arrival.seen == [True, True]


def test_the_module_is_as_without_it(modules, arrival):
    """Spec, loader and file are those that the import system makes itself."""
    (modules / "late.py").write_text("DONE = 1\n")
    arrival.watch(["arriving.late"])
    late = importlib.import_module("arriving.late")
    assert type(late.__loader__) is importlib.machinery.SourceFileLoader
    assert late.__spec__.loader is late.__loader__
    assert vars(late.__loader__) == {"name": "arriving.late", "path": str(modules / "late.py")}
    assert late.__file__ == str(modules / "late.py")


def test_a_module_that_is_looked_for_has_not_arrived(modules, arrival):
    """Asking whether a module is there imports nothing; one that is not there stays so."""
    (modules / "late.py").write_text("DONE = 1\n")
    arrival.watch(["arriving.late", "arriving.never"])
    assert importlib.util.find_spec("arriving.late") is not None
    assert importlib.util.find_spec("arriving.never") is None
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'arriving\.never'"):
        importlib.import_module("arriving.never")
    assert arrival.seen == []


def test_an_import_that_fails_is_no_arrival(modules, arrival):
    """The error is the module's own, and a second attempt that succeeds is told."""
    (modules / "late.py").write_text("DONE = 1 / 0\n")
    arrival.watch(["arriving.late"])
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("arriving.late")
    assert arrival.seen == []
    (modules / "late.py").write_text("DONE = 1  # at last\n")
    importlib.import_module("arriving.late")
    assert arrival.seen == [True]


def test_modules_of_one_loader(tmp_path, modules, arrival, monkeypatch):
    """A loader that several modules share tells of the one that is waited for, and stays good."""
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("arriving/__init__.py", "")
        for name in ("late", "other", "third"):
            archive.writestr(f"arriving/{name}.py", "DONE = 1\n")
    monkeypatch.syspath_prepend(tmp_path / "packed.zip")
    arrival.watch(["arriving.late"])
    assert importlib.util.find_spec("arriving.late") is not None
    for name in ("other", "late", "third"):
        assert importlib.import_module(f"arriving.{name}").DONE == 1
    assert arrival.seen[0] is True


def test_watching_and_stopping(arrival, monkeypatch):
    """It stands in the list of finders once, and a list that is gone through is left alone."""
    monkeypatch.setattr(sys, "meta_path", before := list(sys.meta_path))
    arrival.watch(["a"])
    arrival.watch(["b"])
    assert sys.meta_path == [arrival, *before]
    assert arrival.names == {"b"}
    arrival.stop()
    arrival.stop()
    assert sys.meta_path == before
    assert arrival not in before
