"""How Helion is called: both hooks from one selector, shared compiled kernels, refused settings.

Binding and code generation need no GPU; nothing is launched here but in the interpreter.
"""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace

import helion
import helion.language as hl
import pytest
import torch
from helion.runtime.settings import default_autotuner_fn

from kernelpkg.compile import helion as helion_backend
from kernelpkg.compile import search
from kernelpkg.compile.helion import ConfiguredHelionKernel, PresetConfigSearch, Selection
from kernelpkg.compile.settings import create_helion_decorated_kernel, validate_helion_settings
from kernelpkg.configs.tuned_key import TunedKey
from kernelpkg.errors import ConfigError, DisabledError, RegistrationError

CAPTURE_SIZES = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
"""The sizes at which vLLM captures CUDA graphs, 51 of them."""

ONE = Selection(config_id="one", config={"block_sizes": [16, 32], "num_warps": 4})
TWO = Selection(config_id="two", config={"block_sizes": [32, 16], "num_warps": 8})


def scaled(x: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile_m, tile_n in hl.tile([x.size(0), x.size(1)]):
        out[tile_m, tile_n] = x[tile_m, tile_n] * factor
    return out


def _configured(select=lambda args: ONE, **settings):
    return ConfiguredHelionKernel(
        op_name="scaled", raw_kernel_func=scaled, select=select, settings=settings
    )


def _host(kernel, tokens, selection):
    """The host part that a launcher runs, with what decides its code pinned."""
    launcher = kernel.launcher(_args(tokens), selection)
    assert launcher.keywords["_launcher"].keywords == {"enable_fp_fusion": True}
    return launcher.func


def _args(tokens, width=64):
    return (torch.zeros(tokens, width), 2.0)


def _config(kernel, args):
    return kernel._kernel.bind(args)._config.config


def test_preset_search_searches_nothing():
    """The autotuner returns the selector's config for the arguments, cache or none."""
    seen = []

    def select(args):
        seen.append(args)
        return helion.Config(num_warps=8)

    preset = PresetConfigSearch(args=("x",), config_selector=select)
    assert preset.autotune() == preset.autotune(skip_cache=True) == helion.Config(num_warps=8)
    assert seen == [("x",), ("x",)]


def test_both_hooks_ask_one_selector():
    """The cache key and the preset config come from the same answer."""
    kernel = _configured(lambda args: ONE if args[0].size(0) < 8 else TWO)
    for tokens, selection in ((4, ONE), (16, TWO)):
        args = _args(tokens)
        assert kernel.key(*args)[0] == selection.config_id
        bound = kernel._kernel.bind(args)
        bound.ensure_config_exists(args)
        assert _config(kernel, args)["block_sizes"] == selection.config["block_sizes"]
        assert dict(kernel.selected_config(args)) == dict(selection.config)
    assert kernel.compiled_count() == 2


def by_tokens(args, keys):
    """Pick the tuned number of tokens that a call has."""
    return TunedKey(tokens=args[0].size(0)) if args[0].size(0) != 5 else None


@pytest.fixture
def tuned(tmp_path):
    """Configs of the op "scaled", in vLLM's format."""
    (tmp_path / "scaled").mkdir()
    entries = [
        {"key": {"tokens": 4}, "config": ONE.config},
        {"key": {"tokens": 16}, "config": TWO.config},
        {"key": {"tokens": 32}, "config": TWO.config},
    ]
    (tmp_path / "scaled" / "cpu.json").write_text(json.dumps(entries))
    return tmp_path


def test_a_kernel_with_a_picker(tuned):
    """As vLLM makes one, by position; equal configs share code, whatever their keys."""
    settings = helion.Settings(print_output_code=True)
    kernel = ConfiguredHelionKernel("scaled", by_tokens, scaled, settings, configs_dir=tuned)
    assert (kernel.op_name, kernel.platform, len(kernel.configs)) == ("scaled", "cpu", 3)
    assert (kernel.raw_kernel_func, kernel.helion_settings) == (scaled, settings)
    assert kernel._kernel.settings.print_output_code is True
    for tokens in (4, 16, 32):
        config = kernel.selected_config(_args(tokens))
        assert config is kernel.configs[TunedKey(tokens=tokens)]
        bound = kernel._kernel.bind(_args(tokens))
        bound.ensure_config_exists(_args(tokens))
        assert _config(kernel, _args(tokens))["block_sizes"] == config["block_sizes"]
    assert kernel.compiled_count() == 2
    with pytest.raises(ConfigError, match="Config picker returned None for kernel 'scaled'"):
        kernel.key(*_args(5))
    with pytest.raises(ConfigError, match="invalid config key TunedKey"):
        kernel.key(*_args(6))


def test_a_kernel_without_a_picker_or_configs(tuned, tmp_path):
    """Is refused, by the errors that vLLM raises."""
    with pytest.raises(DisabledError) as caught:
        ConfiguredHelionKernel("scaled", None, scaled, configs_dir=tuned)
    assert str(caught.value) == "No config picker registered for kernel 'scaled'; give one"
    with pytest.raises(DisabledError, match="No configs available for kernel 'scaled' on platform"):
        ConfiguredHelionKernel("scaled", by_tokens, scaled)
    assert issubclass(DisabledError, RuntimeError)
    assert issubclass(DisabledError, ValueError)


def test_the_hooks_that_vllm_has(tuned):
    """The text of a call's key, and its config from that."""
    kernel = ConfiguredHelionKernel("scaled", by_tokens, scaled, configs_dir=tuned)
    key_of = kernel._create_key_computer()
    assert (key_of(*_args(16)), key_of(*_args(5))) == ('{"tokens":16}', None)
    select = kernel._create_config_selector(key_of)
    assert select(_args(16)) is kernel.configs[TunedKey(tokens=16)]


def test_no_config_is_helions_default():
    """A selection without a config runs with what Helion makes up itself."""
    kernel = _configured(lambda args: Selection(config_id="helion", config=None))
    args = _args(4)
    bound = kernel._kernel.bind(args)
    bound.ensure_config_exists(args)
    assert kernel.selected_config(args) is None
    default = bound.config_spec.default_config()
    assert bound._config.config["block_sizes"] == default.config["block_sizes"]


@pytest.mark.parametrize("name", ["key", "autotuner_fn", "config", "configs"])
def test_hooks_of_a_user_are_refused(name):
    """A setting that is made from the picker cannot be given."""
    with pytest.raises(RegistrationError) as caught:
        helion_backend.check_settings({name: lambda *args: None}, "x")
    assert str(caught.value) == (
        f"kernel 'x' uses a custom autotuner, for which setting '{name}' is made from the config "
        "picker; remove it"
    )


def test_a_settings_object_is_taken():
    """What differs from Helion's defaults counts; its default autotuner is not a user's."""
    settings = helion.Settings(ignore_warnings=[helion.exc.TensorOperationInWrapper])
    explicit = helion_backend.explicit_settings(settings)
    explicit.pop("autotune_random_seed", None)  # Helion's default is the clock
    assert explicit == {"ignore_warnings": [helion.exc.TensorOperationInWrapper]}
    assert helion_backend.check_settings({"autotuner_fn": default_autotuner_fn}, "x") == {
        "ignore_warnings": [helion.exc.TensorOperationInWrapper]
    }
    with pytest.raises(RegistrationError, match="setting 'autotuner_fn' is made from the config"):
        helion_backend.check_settings(
            helion_backend.explicit_settings(helion.Settings(autotuner_fn=lambda *args: None)), "x"
        )


def test_settings_are_validated_as_vllm_does():
    """Its function warns of Helion's default; ours of what a user has set."""
    validate_helion_settings(None, "x")
    validate_helion_settings(helion.Settings(static_shapes=False), "x")
    with pytest.warns(UserWarning, match="static_shapes=True is overridden to False"):
        validate_helion_settings(helion.Settings(), "x")
    with pytest.raises(RegistrationError, match="'x' uses a custom autotuner"):
        validate_helion_settings({"autotuner_fn": print}, "x")
    for wrong in ("static_shapes", 7):
        with pytest.raises(RegistrationError) as caught:
            validate_helion_settings(wrong, "x")
        assert str(caught.value) == (
            f"helion_settings is {wrong!r}; give a helion.Settings, a mapping or None"
        )


def test_a_kernel_of_helions():
    """Shapes are dynamic, and further settings go before those of the kernel."""
    settings = helion.Settings(print_output_code=True, static_shapes=True)
    kernel = create_helion_decorated_kernel(scaled, settings, {"autotune_effort": "none"})
    chosen = kernel.settings
    assert (chosen.print_output_code, chosen.static_shapes, chosen.autotune_effort) == (
        True, False, "none",
    )  # fmt: skip
    assert create_helion_decorated_kernel(scaled).settings.static_shapes is False


def test_static_shapes_is_overridden():
    """static_shapes=True becomes False, and a warning says so; False says nothing."""
    message = (
        r"kernel 'x': static_shapes=True is overridden to False, because one compiled kernel "
        r"serves many token counts"
    )
    with pytest.warns(UserWarning, match=f"^{message}$"):
        found = helion_backend.check_settings({"static_shapes": True}, "x")
    assert "static_shapes" not in found
    assert helion_backend.check_settings({"static_shapes": False}, "x") == found
    assert _configured(**found)._kernel.settings.static_shapes is False


def test_settings_that_helion_lacks():
    """An unknown setting, and an unknown warning, are errors that name the nearest."""
    with pytest.raises(RegistrationError) as caught:
        helion_backend.check_settings({"print_output_cod": True}, "x")
    assert str(caught.value) == (
        f"kernel 'x': Helion {helion_backend.HELION_VERSION} has no setting 'print_output_cod'; "
        "did you mean 'print_output_code'?"
    )
    with pytest.raises(RegistrationError) as caught:
        helion_backend.check_settings({"ignore_warnings": ["TensorOperationInWraper"]}, "x")
    assert str(caught.value) == (
        "kernel 'x': ignore_warnings names 'TensorOperationInWraper', which helion.exc does not "
        "have; did you mean 'TensorOperationInWrapper'?"
    )


def test_equal_configs_share_a_compiled_kernel():
    """Two cases with equal configs are one bound kernel and one launcher."""
    kernel = _configured()
    again = Selection(config_id="one", config=dict(ONE.config))
    assert _host(kernel, 4, ONE) is _host(kernel, 8, again)
    assert kernel.compiled_count() == 1
    assert _host(kernel, 8, TWO) is not _host(kernel, 8, ONE)
    assert kernel.compiled_count() == 2


def test_capture_sizes_compile_twice():
    """51 token counts with one config are two kernels: that of size 1, and the rest."""
    assert len(CAPTURE_SIZES) == 51
    kernel = _configured()
    launchers = {id(_host(kernel, tokens, ONE)) for tokens in CAPTURE_SIZES}
    assert (kernel.compiled_count(), len(launchers)) == (2, 2)


@pytest.mark.parametrize("order", [(1, 16), (16, 1)], ids=["one-first", "many-first"])
def test_size_one_has_its_own_code(order):
    """Code made for one row never serves several, whichever comes first."""
    kernel = _configured()
    first, second = (_host(kernel, tokens, ONE) for tokens in order)
    assert first is not second
    assert [_host(kernel, tokens, ONE) for tokens in order] == [first, second]


@pytest.mark.parametrize(
    ("shape", "strides", "wide"),
    [
        pytest.param((4, 64), (64, 1), False, id="small"),
        pytest.param((4, 64), (2**29, 1), False, id="apart"),
        pytest.param((4, 64), (2**30, 1), True, id="far-apart"),
        pytest.param((64, 4), (1, 2**30), True, id="far-columns"),
        pytest.param((0, 64), (2**31, 1), False, id="empty"),
    ],
)
def test_far_apart_rows_have_wide_indices(shape, strides, wide):
    """Few elements that lie 2**31 apart are addressed with 64 bits; Helion counts elements only."""
    kernel = _configured()
    x = torch.empty_strided(shape, strides, device="meta")
    chosen = kernel._kernel_for((x, 2.0))
    assert (chosen is kernel._wide_kernel) is wide
    assert chosen.settings.index_dtype == (torch.int64 if wide else None)


def test_the_width_of_indices_is_a_setting_by_its_name():
    """Results may lie far apart where arguments do not, so 64 bits stay 64."""
    for given in ("int32", "torch.int32", torch.int32):
        settings = helion_backend.check_settings({"index_dtype": given}, "x")
        kernel = _configured(**settings)
        assert kernel._kernel.settings.index_dtype == torch.int32
        assert kernel._wide_kernel.settings.index_dtype == torch.int64
    with pytest.raises(RegistrationError) as caught:
        helion_backend.check_settings({"index_dtype": "int16"}, "x")
    assert str(caught.value) == ("kernel 'x': index_dtype is 'int16'; Helion takes int32 and int64")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HELION_FORCE_AUTOTUNE", "1"),
        ("HELION_AUTOTUNE_EFFORT", "none"),
        ("HELION_INTERPRET", "1"),
        ("HELION_BACKEND", "pallas"),
    ],
)
def test_environment_does_not_go_around_the_preset(monkeypatch, capfd, variable, value):
    """Helion's variables change neither the config of a call nor that it is compiled."""
    monkeypatch.setenv(variable, value)
    kernel = _configured()
    args = _args(4)
    kernel._kernel.bind(args).ensure_config_exists(args)
    assert _config(kernel, args)["block_sizes"] == [16, 32]
    assert kernel.launcher(_args(8), TWO) is not None
    assert _config_of(kernel, "two")["num_warps"] == 8
    assert capfd.readouterr().err == ""


def _config_of(kernel, config_id):
    with kernel._forcing(Selection(config_id=config_id, config=None)):
        return _config(kernel, _args(8))


def test_effort_and_mode_of_a_user_do_not_go_around_the_preset():
    """The same holds for a user's autotune_effort, force_autotune and ref_mode."""
    settings = {"autotune_effort": "none", "force_autotune": True, "ref_mode": helion.RefMode.EAGER}
    kernel = _configured(**helion_backend.check_settings(settings, "scaled"))
    args = _args(4)
    kernel._kernel.bind(args).ensure_config_exists(args)
    assert _config(kernel, args)["block_sizes"] == [16, 32]


def test_interpreter_needs_no_config():
    """The interpreter runs the function itself, whatever the selector would say."""

    def select(args):
        raise AssertionError("nothing is selected for the interpreter")

    x = torch.arange(6.0).view(2, 3)
    assert torch.equal(_configured(select).interpret(x, 3.0), x * 3)


def test_interpreter_ignores_what_is_printed_of_compiled_code(monkeypatch):
    """Helion's interpreter has no code to print, and refuses to be asked for it."""
    monkeypatch.setenv("HELION_PRINT_OUTPUT_CODE", "1")
    x = torch.arange(6.0).view(2, 3)
    assert torch.equal(_configured().interpret(x, 3.0), x * 3)
    printing = _configured(print_output_code=True)
    assert printing._kernel.settings.print_output_code is True
    assert torch.equal(printing.interpret(x, 3.0), x * 3)


def test_left_out_arguments_are_filled_in(monkeypatch):
    """A call through Helion gives the selector all arguments, defaults and keywords too."""
    seen = []

    def select(args):
        seen.append(args[1:])
        return ONE

    kernel = _configured(select)
    x = torch.zeros(4, 64)
    for call in (lambda: kernel(x), lambda: kernel(x=x, factor=3.0), lambda: kernel(x, factor=4.0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(kernel._kernel), "__call__", lambda self, *args: kernel.key(*args))
            call()
    assert seen == [(2.0,), (3.0,), (4.0,)]


def test_to_config_takes_tuples():
    """A stored config may hold tuples, nested too; Helion gets lists."""
    stored = {"block_sizes": (16, 32), "loop_orders": ((1, 0),), "num_warps": 4}
    assert dict(helion_backend.to_config(stored)) == {
        "block_sizes": [16, 32],
        "loop_orders": [[1, 0]],
        "num_warps": 4,
    }


def test_refused_config():
    """A config that Helion refuses is one line that names kernel, release and config."""
    kernel = _configured()
    bad = Selection(config_id="bad", config={"block_sizes": [16, 32, 64]})
    with pytest.raises(ConfigError) as caught:
        kernel.launcher(_args(4), bad)
    start = (
        f"kernel 'scaled': Helion {helion_backend.HELION_VERSION} refuses the config "
        "{'block_sizes': [16, 32, 64]}: "
    )
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)
    assert kernel.launcher(_args(4), ONE) is not None


def _kernel_of_descriptors(kernel, calls):
    """Stands in for a Helion kernel whose config loads by tensor descriptors."""

    class Stub:
        def bind(self, args):
            calls.append(("bind", kernel.key(*args)[0]))
            env = SimpleNamespace(shape_env=SimpleNamespace(guards=[]))
            return SimpleNamespace(_run=self.run, _config="indexing tensor_descriptor", env=env)

        def run(self, *args, **options):
            calls.append(("run", *options))

    return Stub()


def test_descriptors_go_through_helion_with_their_selection():
    """Helion looks at pointers at each call then, and still both hooks answer as at first."""
    kernel, calls = _configured(), []
    kernel._kernel = _kernel_of_descriptors(kernel, calls)
    launch = kernel.launcher(_args(4), TWO)
    launch(*_args(4))
    assert calls == [("bind", "two"), ("bind", "two"), ("run", "_launcher")]
    assert kernel.key(*_args(4))[0] == "one"


def test_a_selection_is_forced_in_its_thread_only():
    """While one thread compiles with a selection, the hooks of another ask the selector."""
    kernel, found = _configured(), []
    with kernel._forcing(TWO):
        thread = threading.Thread(target=lambda: found.append(kernel.key(*_args(4))[0]))
        thread.start()
        thread.join()
        assert kernel.key(*_args(4))[0] == "two"
    assert found == ["one"]


def test_run_autotune_is_helions(monkeypatch):
    """Tuning uses Helion's own search, with dynamic shapes and the effort asked for."""
    seen = {}

    def autotune(self, args, **options):
        seen.update(settings=self.settings, args=args, key=self._key_fn)
        return helion.Config(num_warps=2)

    monkeypatch.setattr(type(helion.kernel(scaled)), "autotune", autotune)
    settings = helion_backend.check_settings({"print_output_code": True}, "scaled")
    found = search.run_autotune(scaled, settings, [torch.zeros(2, 4), 2.0], "full")
    assert found == helion.Config(num_warps=2)
    chosen = seen["settings"]
    assert (chosen.static_shapes, chosen.autotune_effort) == (False, "full")
    assert chosen.print_output_code is True
    assert chosen.autotuner_fn is default_autotuner_fn
    assert len(seen["args"]) == 2
