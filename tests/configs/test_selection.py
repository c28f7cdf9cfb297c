"""Which config a call gets, and what stands in where none is tuned; without torch."""

# ruff: noqa: E501  # tables of cases have a line each

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.configs import platforms, store
from kernelpkg.configs.selection import (
    HELION_DEFAULT,
    Answer,
    Chosen,
    Move,
    make_selection,
    read_selection,
)
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.errors import ConfigError, PackError
from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.spec import Rule
from kernelpkg.packs.read import read_kernel, read_pack

ROOT = Path(__file__).parents[2]
HERE = "nvidia_h200"
CASE = "in_dtype=bfloat16, has_scale_ub=true, hidden_size=4096, num_tokens="

LISTS = {"indexing": ["pointer", "tensor_descriptor"], "load_eviction_policies": ["", "last"]}
PLAIN = {"block_sizes": [1], "num_warps": 8}
SMALL = {**PLAIN, "num_warps": 2}
LARGE = {**PLAIN, "num_warps": 16}


@pytest.fixture(scope="module")
def spec():
    """Four axes: dtype and bound exact, hidden size nearest, tokens rounded up."""
    return evolve(
        read_kernel(ROOT, "dynamic_per_token_scaled_fp8_quant"),
        rules=(
            Rule(axis="in_dtype", match="exact"),
            Rule(axis="has_scale_ub", match="exact"),
            Rule(axis="hidden_size", match="nearest", max=0.5),
            Rule(axis="num_tokens", match="ceil"),
        ),
        default={"num_warps": 1},
        miss="default",
        picker=None,
    )


def _key(tokens, hidden=4096, dtype="bfloat16", bound=True):
    return {"in_dtype": dtype, "has_scale_ub": bound, "hidden_size": hidden, "num_tokens": tokens}


def _file(*cases, platform=HERE):
    return ConfigFile(
        kernel="k",
        platform=platform,
        configs=tuple(config for _, config in cases),
        cases=tuple(TunedCase(key=key, config=place) for place, (key, _) in enumerate(cases)),
    )


def _options(selection, tokens, hidden=4096, dtype="bfloat16", bound=True, args=None):
    """Axes are given in the order of the manifest: tokens, hidden size, dtype, bound."""
    return list(selection.options((tokens, hidden, dtype, bound), args))


def _told(options):
    return [(chosen.mode, chosen.outcome, chosen.reason) for chosen in options]


def test_own_cases(spec):
    """The rules over the platform's own cases come first; the outcome says how they matched."""
    selection = make_selection(spec, HERE, [_file((_key(16), SMALL), (_key(64), LARGE))])
    for tokens, outcome, config in (
        (16, "exact", SMALL),
        (17, "bucketed", LARGE),
        (1000, "extrapolated", LARGE),
    ):
        first = next(selection.options((tokens, 4096, "bfloat16", True)))
        assert (first.mode, first.outcome, first.config) == ("tuned", outcome, config)
        assert first.platform == HERE
        assert first.reason == f"{outcome} case {CASE}{16 if config is SMALL else 64}"


def test_the_whole_order(spec):
    """Own rules, own {}, each next platform the same way, [helion] default; all with reasons."""
    selection = make_selection(
        spec,
        HERE,
        [
            _file((_key(16), SMALL), ({}, PLAIN)),
            _file((_key(32), LARGE), ({}, SMALL), platform="nvidia_h100"),
        ],
    )
    borrowed = f"{HERE} has no config; borrowed from nvidia_h100: "
    assert _told(_options(selection, 16)) == [
        ("tuned", "exact", f"exact case {CASE}16"),
        ("tuned", "default", "the case {}"),
        ("default", "default", f"{borrowed}bucketed case {CASE}32"),
        ("default", "default", f"{borrowed}the case {{}}"),
        ("default", "default", f"{HERE} has no config for this call; [helion] default"),
    ]


def test_a_variant_that_was_never_tuned(spec):
    """It takes the nearest tuned one, without the lists that belong to the other's arguments."""
    selection = make_selection(spec, HERE, [_file((_key(16), {**SMALL, **LISTS}))])
    first = _options(selection, 4, bound=False)[0]
    assert first.config == SMALL
    assert (first.mode, first.outcome, first.key) == ("tuned", "default", _key(16))
    assert first.reason == (
        "variant was never tuned (has_scale_ub); case in_dtype=bfloat16, has_scale_ub=true, "
        "hidden_size=4096, num_tokens=16, without its positional lists"
    )
    kept = _options(selection, 4)[0]
    assert kept.config == {**SMALL, **LISTS}
    assert kept.config_id != first.config_id


def test_a_variant_that_misses_for_other_reasons(spec):
    """Where the variant is tuned and the rest misses, no config of it is stretched."""
    selection = make_selection(spec, HERE, [_file((_key(16), SMALL))])
    assert _told(_options(selection, 16, hidden=100_000)) == [
        ("default", "default", f"{HERE} has no config for this call; [helion] default")
    ]


def test_the_empty_case(spec):
    """The case {} is for every call, and is not a case of the rules."""
    selection = make_selection(spec, HERE, [_file(({}, LARGE))])
    options = _options(selection, 16)
    assert [chosen.reason for chosen in options] == [
        "the case {}",
        f"{HERE} has no config for this call; [helion] default",
    ]
    assert (options[0].config, options[0].key) == (LARGE, {})


@pytest.mark.parametrize(
    ("default", "which", "config_id"),
    [
        pytest.param({"num_warps": 1}, "[helion] default", '{"num_warps":1}', id="manifest"),
        pytest.param(None, "Helion's own default", HELION_DEFAULT, id="helion"),
    ],
)
def test_nothing_tuned(spec, default, which, config_id):
    """With no file at all, the manifest's default or Helion's own is left."""
    (only,) = _options(make_selection(evolve(spec, default=default), HERE, []), 16)
    assert (only.config, only.config_id, only.mode) == (default, config_id, "default")
    assert only.reason == f"nothing is tuned; {which}"
    assert (only.platform, only.key) == (None, None)


def test_a_miss_can_be_an_error(spec):
    """[miss] action = "error" leaves what is tuned here, and makes nothing up."""
    strict = evolve(spec, miss="error")
    assert _options(make_selection(strict, HERE, []), 16) == []
    selection = make_selection(strict, HERE, [_file((_key(16), SMALL))])
    assert [chosen.outcome for chosen in _options(selection, 16)] == ["exact"]
    assert _options(selection, 16, hidden=100_000) == []


@pytest.mark.parametrize(
    ("fits", "count"), [(True, 2), (None, 2), (False, 1)], ids=["fits", "unknown", "too-large"]
)
def test_borrowed_configs_must_fit(spec, fits, count):
    """What needs more shared memory than this GPU has is left out; what is unknown is tried."""
    file = _file((_key(16), SMALL), platform="nvidia_h100")
    selection = make_selection(spec, HERE, [file], fits={"nvidia_h100": fits})
    assert len(_options(selection, 16)) == count


def test_equal_configs_have_equal_ids(spec):
    """Across cases, files and the order of fields, equal configs are one id."""
    turned = dict(reversed(SMALL.items()))
    selection = make_selection(
        spec,
        HERE,
        [
            _file((_key(16), SMALL), (_key(32), turned), ({}, PLAIN)),
            _file((_key(16), turned), platform="nvidia_h100"),
        ],
    )
    ids = {
        chosen.config_id
        for tokens in (16, 32)
        for chosen in _options(selection, tokens)
        if chosen.config == SMALL
    }
    assert len(ids) == 1
    assert len({chosen.config_id for chosen in _options(selection, 16)}) == 3


def test_the_first_option_looks_at_nothing_else(spec, monkeypatch):
    """A call that its platform has a config for does not ask what would come next."""
    selection = make_selection(
        spec, HERE, [_file((_key(16), SMALL)), _file((_key(16), LARGE), platform="nvidia_h100")]
    )
    walked = []
    whole = type(selection)._from_table
    monkeypatch.setattr(
        type(selection),
        "_from_table",
        lambda self, table, *rest: walked.append(table.platform) or whole(self, table, *rest),
    )
    next(selection.options((16, 4096, "bfloat16", True)))
    assert walked == [HERE]


def test_a_picker_of_its_own(spec):
    """host.py:pick gets arguments and keys, and names one, or None for the case {}."""
    seen = []

    def pick(args, keys):
        seen.append((args, list(keys)))
        return None if args == ("none",) else keys[-1]

    selection = make_selection(
        spec, HERE, [_file((_key(16), SMALL), (_key(32), LARGE), ({}, PLAIN))], custom=pick
    )
    first = _options(selection, 1, args=("some",))[0]
    assert (first.config, first.outcome, first.mode) == (LARGE, "exact", "tuned")
    assert seen[0] == (("some",), [_key(16), _key(32)])
    assert [c.reason for c in _options(selection, 1, args=("none",))] == [
        "the case {}",
        f"{HERE} has no config for this call; [helion] default",
    ]


def test_a_picker_may_return_a_text(spec):
    """It gets tuned keys, and may return the text of one."""
    file = _file((_key(16), SMALL), (_key(32), LARGE))
    selection = make_selection(spec, HERE, [file], custom=lambda args, keys: str(keys[1]))
    assert _options(selection, 1, args=())[0].config == LARGE
    assert list(selection.configs.values()) == [SMALL, LARGE]
    assert make_selection(spec, "nvidia_b200", [file]).configs == {}


@pytest.mark.parametrize(
    "made_up", [{"num_tokens": 5}, {}, "num_tokens_5"], ids=["other", "empty", "text"]
)
def test_a_picker_that_makes_up_a_key(spec, made_up):
    """A key that is not tuned is an error that shows it."""
    selection = make_selection(
        spec, HERE, [_file((_key(16), SMALL))], custom=lambda args, keys: made_up
    )
    with pytest.raises(ConfigError) as caught:
        _options(selection, 1, args=())
    assert str(caught.value) == (
        f"Config picker returned invalid config key {made_up!r} for kernel "
        "'dynamic_per_token_scaled_fp8_quant', which is none of the tuned keys; return one of "
        "them, or None"
    )


def test_axes_are_taken_by_name(spec):
    """Rules may name the axes in another order than the manifest does."""
    for rules in itertools.permutations(spec.rules):
        turned = evolve(spec, rules=rules)
        selection = make_selection(turned, HERE, [_file((_key(16), SMALL))])
        assert _options(selection, 16)[0].outcome == "exact"


def _write(root, platform, *cases):
    file = evolve(_file(*cases, platform=platform), kernel="dynamic_per_token_scaled_fp8_quant")
    path = root / "configs" / "dynamic_per_token_scaled_fp8_quant" / f"{platform}.json"
    store.write(path, file)


def test_read_selection(spec, tmp_path):
    """Files are read in the order of the chain; those that cannot fit this GPU are left out."""
    pack = evolve(read_pack(ROOT, "kernelpkg"), root=str(tmp_path))
    _write(tmp_path, "nvidia_h100", (_key(16), SMALL))
    _write(tmp_path, "nvidia_b200", (_key(16), PLAIN))
    _write(tmp_path, "amd_instinct_mi300x", (_key(16), LARGE))
    here = platforms.resolve("NVIDIA H200")
    selection = read_selection(pack, spec, here)
    assert [table.platform for table in selection.tables] == ["nvidia_h100", "nvidia_b200"]
    assert selection.own() is None
    _write(tmp_path, "nvidia_h200", (_key(16), LARGE))
    selection = read_selection(pack, spec, here)
    assert selection.tables[0].platform == "nvidia_h200"
    assert selection.own() is selection.tables[0]
    small = platforms.resolve("NVIDIA L4")
    assert small.shared_memory is not None
    assert [table.platform for table in read_selection(pack, spec, small).tables] == []


def test_read_selection_of_a_broken_file(spec, tmp_path):
    """A file that does not read is an error, not a fallback."""
    pack = evolve(read_pack(ROOT, "kernelpkg"), root=str(tmp_path))
    path = tmp_path / "configs" / spec.name / "nvidia_h200.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"edition": 1')
    with pytest.raises(PackError, match="ends in the middle of its JSON"):
        read_selection(pack, spec, platforms.resolve("NVIDIA H200"))


def test_a_tuned_variant_keeps_to_its_rules(spec):
    """Another variant stands in for one that was never tuned, not for one whose rules say miss."""
    strict = evolve(
        spec, rules=(*spec.rules[:3], Rule(axis="num_tokens", match="ceil", over="miss"))
    )
    file = _file((_key(16), SMALL), (_key(4096, dtype="float16"), LARGE))
    selection = make_selection(strict, HERE, [file])
    (chosen,) = _options(selection, 100)
    assert (chosen.mode, chosen.config) == ("default", {"num_warps": 1})
    borrowed = _options(selection, 100, dtype="float32")[0]
    assert borrowed.key == _key(4096, dtype="float16")


def test_a_miss_that_is_an_error_allows_what_was_tuned_here(spec):
    """Only the rules over the platform's own cases, and its `{}` case."""
    strict = evolve(spec, miss="error")
    own, other = (
        _file((_key(16), SMALL)),
        _file((_key(16, bound=False), LARGE), platform="nvidia_h100"),
    )
    selection = make_selection(strict, HERE, [own, other])
    assert [found.config for found in _options(selection, 8)] == [SMALL]
    assert _options(selection, 8, bound=False) == []
    empty = make_selection(strict, HERE, [_file((_key(16), SMALL), ({}, PLAIN)), other])
    assert [found.config for found in _options(empty, 8, bound=False)] == [PLAIN]


ANSWERS = {
    "exact": (16, 4096, "exact", f"exact case {CASE}16", []),
    "between": (4, 4096, "bucketed", f"bucketed case {CASE}16", [("num_tokens", 4, 16, False)]),
    "beyond": (99, 5000, "extrapolated", f"extrapolated case {CASE}16", [("hidden_size", 5000, 4096, True), ("num_tokens", 99, 16, True)]),
    "missing": (16, 9999, "missing", "no config is tuned, and [miss] action is 'error'", []),
    "refused": (16, 1, "refused", "the kernel does not take the call: guard 'hidden_size > 1' refuses it", []),
    "divided": (0, 2, "refused", "the kernel does not take the call: guard '64 // num_tokens >= 0' divides by zero", []),
}  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "hidden", "outcome", "reason", "moves"), ANSWERS.values(), ids=ANSWERS
)
def test_what_a_call_gets_and_why(spec, tokens, hidden, outcome, reason, moves):
    """`explain` and the coverage of an op say of a call what is said here."""
    guards = tuple(map(parse_expr, ["hidden_size > 1", "64 // num_tokens >= 0"]))
    strict = evolve(spec, guards=guards, miss="error")
    selection = make_selection(strict, HERE, [_file((_key(16), SMALL))])
    answer = selection.answer(_key(tokens, hidden))
    assert (answer.outcome, answer.reason) == (outcome, reason)
    assert [(m.axis, m.value, m.to, m.extrapolated) for m in answer.moves] == moves
    assert (answer.chosen is None) == (outcome in ("missing", "refused"))


def test_an_answer_can_leave_the_guards_out(spec):
    """Who knows already which calls they refuse asks for the config alone."""
    selection = make_selection(evolve(spec, guards=(parse_expr("num_tokens > 99"),)), HERE, [])
    assert selection.answer(_key(1)).outcome == "refused"
    assert selection.answer(_key(1), guarded=False).outcome == "default"


CHOSEN = Chosen(
    config_id="a",
    config={"num_warps": 4},
    outcome="exact",
    mode="tuned",
    platform="nvidia_h200",
    key={"n": 4},
    reason="exact case n=4",
)


def move(value, to, *, axis="n", extrapolated=True):
    return Move(axis=axis, value=value, to=to, extrapolated=extrapolated)


@pytest.mark.parametrize(
    ("value", "to", "ratio"),
    [(16, 4, 4.0), (1, 4, 4.0), (4, 4, 1.0), (0, 4, math.inf), (-2, 4, math.inf),
     (2, 0.5, 4.0), (True, False, 1.0), ("int8", "float16", 1.0), (None, 4, 1.0)],
    ids=str,
)  # fmt: skip
def test_a_ratio_is_the_larger_over_the_smaller(value, to, ratio):
    assert move(value, to).ratio == ratio


ORIGINS = {
    "tuned": (CHOSEN, "tuned"),
    "variant": (evolve(CHOSEN, outcome="default"), "variant"),
    "empty": (evolve(CHOSEN, outcome="default", key={}), "empty"),
    "borrowed": (evolve(CHOSEN, outcome="default", mode="default"), "borrowed"),
    "manifest": (evolve(CHOSEN, mode="default", platform=None, key=None), "manifest"),
    "helion": (evolve(CHOSEN, mode="default", platform=None, config=None, key=None), "helion"),
    "none": (None, "none"),
}  # fmt: skip


@pytest.mark.parametrize(("chosen", "origin"), ORIGINS.values(), ids=ORIGINS)
def test_where_a_config_comes_from(chosen, origin):
    assert Answer(outcome="default", chosen=chosen).origin == origin


def test_calls_of_one_stretch_have_one_case_and_one_outcome():
    """How far they are from it does not part them, nor does the value of another axis' move."""
    one = Answer(outcome="extrapolated", chosen=CHOSEN, moves=(move(9, 4),))
    further = evolve(one, moves=(move(90, 4),))
    inside = evolve(one, moves=(move(3, 4, extrapolated=False), move(9, 4, axis="other")))
    assert one.kind("n") == further.kind("n")
    assert one.kind("n") != inside.kind("n")
    assert one.kind("n") != evolve(one, outcome="bucketed").kind("n")
    assert one.kind("n") != evolve(one, chosen=evolve(CHOSEN, key={"n": 8})).kind("n")
    refused = Answer(outcome="refused", guard="guard 'n < 4' refuses it")
    assert refused.kind("n") != evolve(refused, guard="guard 'n < 5' refuses it").kind("n")
