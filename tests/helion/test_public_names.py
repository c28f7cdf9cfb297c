"""What `help(kernelpkg)` shows of the public names."""

from __future__ import annotations

import inspect
import pydoc

import pytest

import kernelpkg
from kernelpkg.vllm import plugin

SECRET = "a-token-that-nobody-prints"

PUBLIC = {
    **{f"kernelpkg.{name}": getattr(kernelpkg, name) for name in kernelpkg.__all__},
    **{
        f"plugin.{name}": value
        for name, value in vars(plugin).items()
        if inspect.isfunction(value) and not name.startswith("_")
    },
}
CALLABLE = {name: value for name, value in PUBLIC.items() if callable(value)}


@pytest.mark.parametrize("name", CALLABLE)
def test_no_signature_shows_the_environment(name, monkeypatch):
    """A default that is `os.environ` would print every variable of the process, secrets too."""
    monkeypatch.setenv("KERNELPKG_TEST_SECRET", SECRET)
    value = CALLABLE[name]
    shown = [pydoc.render_doc(value)]
    for member in vars(value).values() if inspect.isclass(value) else (value,):
        if inspect.isfunction(member):
            shown += [repr(one.default) for one in inspect.signature(member).parameters.values()]
    assert SECRET not in "".join(shown)
