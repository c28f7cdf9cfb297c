"""The configs of a kernel without a manifest: files in both formats, and what a miss gets."""

from __future__ import annotations

import json

import pytest

from kernelpkg.configs.picked import PickedPlan, platform_configs
from kernelpkg.configs.tuned_key import TunedKey
from kernelpkg.errors import ConfigError, PackError

SMALL = {"block_sizes": [16], "num_warps": 1}
LARGE = {"block_sizes": [32], "num_warps": 8}
ENTRIES = [{"key": {"rows": 64}, "config": LARGE}, {"key": {}, "config": SMALL}]
OURS = {
    "edition": 1,
    "kernel": "op",
    "platform": "cpu",
    "tuned_with": {},
    "configs": [SMALL, LARGE],
    "cases": [{"key": {"rows": 64}, "config": 1}, {"key": {}, "config": 0}],
}


def write(directory, document):
    """Write a config file; a text as it is."""
    path = directory / "op" / "cpu.json"
    path.parent.mkdir()
    path.write_text(document if isinstance(document, str) else json.dumps(document, indent=1))
    return path


@pytest.mark.parametrize("document", [ENTRIES, OURS], ids=["vllm", "ours"])
def test_both_formats_are_read(tmp_path, document):
    """A file of vLLM's gives what one of ours does."""
    write(tmp_path, document)
    found = platform_configs("op", "cpu", tmp_path)
    assert found == {TunedKey(rows=64): LARGE, TunedKey.default(): SMALL}
    assert platform_configs("op", "nvidia_h200", tmp_path) == {}
    assert platform_configs("op", "cpu", None) == {}


@pytest.mark.parametrize("document", [ENTRIES, OURS], ids=["vllm", "ours"])
def test_fields_that_the_kernel_registers_are_taken(tmp_path, document):
    """Whoever knows the kernel says which; no other field is known."""
    text = json.dumps(document).replace('"num_warps": 8', '"num_warps": 8, "split_k": 4')
    write(tmp_path, text)
    found = platform_configs("op", "cpu", tmp_path, lambda: ("split_k",))
    assert found[TunedKey(rows=64)] == {**LARGE, "split_k": 4}
    with pytest.raises(PackError, match=r"KP502 .*field 'split_k' is not known; did you mean"):
        platform_configs("op", "cpu", tmp_path, lambda: ("split_ks",))


def test_all_that_is_wrong_with_entries_of_vllm_is_reported(tmp_path):
    """Each problem in a line, with its place in the file."""
    entries = [
        *ENTRIES,
        ENTRIES[0],
        {"key": {"rows": [1]}, "config": SMALL},
        {"key": "rows_64", "config": SMALL},
        {"key": {"rows": 1}, "config": {"block_size": [1]}},
        {"key": {"rows": 2}, "config": SMALL, "ms": 1.0},
        7,
    ]
    lines = [json.dumps(entry) for entry in entries]
    lines[-2] = '{"key": {"rows": 3, "rows": 4}, "config": {}}'
    path = write(tmp_path, "[\n" + ",\n".join(lines) + "\n]\n")
    with pytest.raises(PackError) as caught:
        platform_configs("op", "cpu", tmp_path)
    wanted = "an object with 'key' and 'config' is expected, not"
    assert str(caught.value).replace(f"{path}:", "").splitlines() == [
        "4: KP825 entry 2: the key is there before; keep one",
        "5: KP821 entry 3: a key has a number, text, true, false or null for each axis",
        f'6: KP821 entry 4: {wanted} {{"key": "rows_64", "config": {{"block_...',
        "7: KP502 entry 5: field 'block_size' is not known; did you mean 'block_sizes'?",
        "8: KP821 entry 6: 'rows' is given twice; keep one",
        f"9: KP821 entry 7: {wanted} 7",
    ]


@pytest.mark.parametrize("text", ["[", "7", '{"edition": 2}'], ids=["cut", "number", "edition"])
def test_what_is_neither_is_our_readers(tmp_path, text):
    """A file of no format is told as a broken one of ours."""
    write(tmp_path, text)
    with pytest.raises(PackError, match=r"cpu\.json:.* KP50[127] "):
        platform_configs("op", "cpu", tmp_path)


def plan(directory, picker=None, **options):
    return PickedPlan("op", picker, directory, lambda: "cpu", **options)


@pytest.mark.parametrize("miss", ["default", "error"])
def test_what_is_tuned_goes_first(tmp_path, miss):
    """The picker's config, the default one, and Helion's own only where a miss is none."""
    write(tmp_path, ENTRIES)
    found = plan(tmp_path, lambda args, keys: keys[0] if args[0] else None, miss=miss)
    assert found.lack is None
    last = [None] if miss == "default" else []
    assert [chosen.config for chosen in found.options((), (1,))] == [LARGE, SMALL, *last]
    assert [chosen.config for chosen in found.options((), (0,))] == [SMALL, *last]
    assert [chosen.outcome for chosen in found.options((), (1,))][:2] == ["exact", "default"]


def test_a_miss_may_be_an_error(tmp_path):
    """Where no key is taken and there is no default config; no file at all is said before."""
    write(tmp_path, ENTRIES[:1])
    found = plan(tmp_path, lambda args, keys: None, miss="error")
    with pytest.raises(ConfigError) as caught:
        list(found.options((), ()))
    assert str(caught.value) == (
        "Config picker returned None for kernel 'op', and none of the configs is the default one; "
        'there are {"rows":64}'
    )
    assert plan(tmp_path / "none", miss="error").lack == plan(None, miss="error").lack
    assert plan(None, miss="error").lack == (
        "No configs available for kernel 'op' on platform 'cpu'; tune some, or let miss be "
        "'default'"
    )
    assert plan(None).lack is None
    assert [chosen.config for chosen in plan(None).options((), ())] == [None]


def test_the_platform_is_asked_for_when_it_matters():
    """Not where there are no configs to read."""

    def refused():
        raise AssertionError("the device was asked for")

    PickedPlan("op", None, None, refused)
    with pytest.raises(AssertionError):
        PickedPlan("op", None, None, refused, miss="error")
