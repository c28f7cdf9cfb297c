"""register_kernel and the registry: kernels without a manifest."""

from __future__ import annotations

import copy
import json
import pickle

import helion
import helion.language as hl
import pytest
import torch

import kernelpkg
from kernelpkg.compile import helion as helion_backend
from kernelpkg.compile import search
from kernelpkg.errors import ConfigError, DisabledError, PackError, RegistrationError
from kernelpkg.launch.host import NotRecorded
from kernelpkg.runtime.register import get_kernel_by_name, get_registered_kernels, unload
from kernelpkg.runtime.without_manifest import register_kernel

pytestmark = pytest.mark.usefixtures("pack")


def doubled(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile_m, tile_n in hl.tile([x.size(0), x.size(1)]):
        out[tile_m, tile_n] = x[tile_m, tile_n] * 2
    return out


def fill_(x: torch.Tensor, value: float, bias: torch.Tensor | None = None) -> None:
    for tile_m, tile_n in hl.tile([x.size(0), x.size(1)]):
        if bias is None:
            x[tile_m, tile_n] = torch.full_like(x[tile_m, tile_n], value)
        else:
            x[tile_m, tile_n] = bias[tile_m, tile_n] + value


@pytest.fixture(autouse=True)
def _restore():
    """Give back what a test registered."""
    before = set(get_registered_kernels())
    yield
    for name in set(get_registered_kernels()) - before:
        unload(name)


@pytest.fixture(params=[False, True], ids=["bare", "with-arguments"])
def decorate(request):
    return register_kernel() if request.param else register_kernel


def test_decorator(decorate):
    """Bare or called, the decorator registers an op by the function's name."""
    kernel = decorate(doubled)
    assert isinstance(kernel, kernelpkg.HelionKernelWrapper)
    assert kernel.qualified == "kernelpkg::doubled"
    assert kernel.raw_kernel_func is doubled
    assert kernel.schema.text == "(Tensor x) -> Tensor"
    x = torch.arange(6.0).view(2, 3)
    assert torch.equal(kernel(x), x * 2)
    assert torch.equal(torch.ops.kernelpkg.doubled(x), x * 2)
    assert kernel.op is torch.ops.kernelpkg.doubled


def test_name_and_namespace():
    """A name of one's own, by position or keyword, and a namespace of one's own."""
    one = register_kernel("twice")(doubled)
    two = register_kernel(op_name="twice", namespace="kp_test_register")(doubled)
    assert (one.qualified, two.qualified) == ("kernelpkg::twice", "kp_test_register::twice")
    x = torch.ones(1, 2)
    assert torch.equal(torch.ops.kp_test_register.twice(x), torch.ops.kernelpkg.twice(x))


def test_an_op_that_writes():
    """mutates_args is the schema's mutation; defaults and optional tensors stay."""
    kernel = register_kernel(mutates_args=("x",))(fill_)
    assert kernel.schema.text == "(Tensor(aa!) x, float value, Tensor? bias=None) -> ()"
    x = torch.zeros(2, 3)
    assert kernel(x, 3.0) is None
    assert torch.equal(x, torch.full((2, 3), 3.0))
    kernel(x, 1.0, bias=torch.ones(2, 3))
    assert torch.equal(x, torch.full((2, 3), 2.0))
    torch.library.opcheck(torch.ops.kernelpkg.fill_.default, (torch.zeros(2, 3), 3.0))
    kernel(torch.zeros(0, 3), 3.0)


def test_a_function_and_its_arguments_in_one_call():
    """A call with the function itself takes the same arguments as the decorator does."""
    kernel = register_kernel(
        fill_,
        mutates_args=["x"],
        namespace="kernelpkg_tests",
        helion_settings={"print_output_code": True},
        input_generator=dict,
    )
    assert kernel.qualified == "kernelpkg_tests::fill_"
    assert kernel.schema.text == "(Tensor(aa!) x, float value, Tensor? bias=None) -> ()"
    assert kernel.helion_settings["print_output_code"] is True
    assert kernel.get_inputs() == {}
    fake = register_kernel(doubled, fake_impl=lambda x: x.new_empty(7))
    assert fake.fake(torch.zeros(2, 3)).shape == (7,)


def test_inferred_and_given_fakes():
    """Without a fake one is inferred; a given one is used as it is."""
    inferred = register_kernel(doubled)
    assert inferred.fake(torch.empty(2, 3, device="meta")).shape == (2, 3)
    torch.library.opcheck(torch.ops.kernelpkg.doubled.default, (torch.randn(2, 3),))
    given = register_kernel("other", fake_impl=lambda x: x.new_empty(7))(doubled)
    assert given.fake(torch.empty(2, 3, device="meta")).shape == (7,)


def test_taken_names():
    """A second kernel of a name is refused in either way, and the first one stays."""
    first = register_kernel(doubled)
    with pytest.raises(RegistrationError) as caught:
        register_kernel(doubled)
    assert str(caught.value) == (
        "kernel 'kernelpkg::doubled' is already registered; choose another name, or unload the "
        "other"
    )
    assert get_kernel_by_name("doubled") is first
    assert get_kernel_by_name("elsewhere::doubled") is None
    library = torch.library.Library("kernelpkg", "FRAGMENT")
    library.define("foreign(Tensor x) -> Tensor")
    with pytest.raises(RegistrationError) as caught:
        register_kernel("foreign")(doubled)
    assert str(caught.value) == "op 'kernelpkg::foreign' is registered already, by another library"
    library._destroy()
    with pytest.raises(RegistrationError) as caught:
        register_kernel(namespace="aten")(doubled)
    assert str(caught.value) == (
        "namespace 'aten' is in use by PyTorch or vLLM; give the pack its own"
    )
    assert set(get_registered_kernels()) & {"kernelpkg::foreign", "aten::doubled"} == set()


@pytest.mark.parametrize("name", ["key", "autotuner_fn", "config", "configs"])
def test_settings_of_a_user(name):
    """Refused settings register nothing."""
    with pytest.raises(RegistrationError) as caught:
        register_kernel(helion_settings={name: None})(doubled)
    assert str(caught.value) == (
        f"kernel 'doubled' uses a custom autotuner, for which setting '{name}' is made from the "
        "config picker; remove it"
    )
    assert get_kernel_by_name("doubled") is None


def test_static_shapes_of_a_user():
    """static_shapes=True in a Settings of Helion's own making is its default, and says nothing."""
    kernel = register_kernel(helion_settings=helion.Settings(static_shapes=True))(doubled)
    assert "static_shapes" not in kernel.backend.settings
    assert kernel.get_configured_op()._kernel.settings.static_shapes is False
    with pytest.warns(UserWarning, match="static_shapes=True is overridden to False"):
        register_kernel("other", helion_settings={"static_shapes": True})(doubled)


def test_registering_makes_no_kernel_of_helions(monkeypatch):
    """It would start CUDA, for its settings, and processes that are forked then cannot use it."""
    for name in ("create_helion_decorated_kernel", "torch.cuda.get_device_properties"):
        monkeypatch.setattr(f"kernelpkg.compile.helion.{name}", lambda *_: pytest.fail("started"))
    kernel = register_kernel(doubled)
    assert kernel.get_configured_op() is kernel.get_configured_op()


def test_copies_and_pickles_hold_the_registered_kernel():
    """As a model does that holds one, when it is copied for an average or a process."""
    kernel = register_kernel(doubled)
    model = torch.nn.Linear(2, 2)
    model.kernel = kernel
    assert copy.deepcopy(model).kernel is copy.copy(kernel) is kernel
    text = pickle.dumps(kernel)
    assert pickle.loads(text) is kernel
    unload("doubled")
    with pytest.raises(RegistrationError) as caught:
        pickle.loads(text)
    assert str(caught.value) == (
        "kernel 'kernelpkg::doubled' is not registered in this process; load its pack, or import "
        "its module, before what holds it is copied or unpickled"
    )


def test_input_generator():
    """Inputs come from the generator, given at once or later, as a call or a decorator."""
    kernel = register_kernel(doubled)
    with pytest.raises(RegistrationError) as caught:
        kernel.get_inputs()
    assert str(caught.value) == (
        "kernel 'doubled' has no input generator; give one with register_input_generator"
    )

    @kernel.register_input_generator
    def inputs():
        return {"small": (torch.ones(1, 2),)}

    assert list(kernel.get_inputs()) == list(inputs()) == ["small"]
    other = register_kernel("other", input_generator=inputs)(doubled)
    assert list(other.get_inputs()) == ["small"]


def test_inputs_of_a_manifest(specs):
    """A kernel with a manifest has inputs for each case to tune, made when they are read."""
    inputs = get_kernel_by_name("silu_mul_fp8").get_inputs()
    assert len(inputs) == 11 * 8
    first = next(iter(inputs))
    assert dict(first) == {"num_tokens": 1, "intermediate_size": 2048, "in_dtype": "bfloat16"}
    x, scale = inputs[first]
    assert (tuple(x.shape), x.dtype, tuple(scale.shape)) == ((1, 4096), torch.bfloat16, (1,))


def test_run_autotune(monkeypatch):
    """Tuning is handed to Helion with the kernel's settings."""
    seen = []
    monkeypatch.setattr(search, "run_autotune", lambda *args: seen.append(args) or "config")
    kernel = register_kernel(helion_settings={"print_output_code": True})(doubled)
    x = torch.ones(1, 2)
    assert kernel.run_autotune([x]) == "config"
    assert kernel.run_autotune([x], autotune_effort="full") == "config"
    assert [args[3] for args in seen] == ["quick", "full"]
    assert seen[0][0] is doubled
    assert seen[0][1]["print_output_code"] is True


@pytest.mark.parametrize(
    ("annotation", "mutates", "message"),
    [
        pytest.param(torch.dtype, (), "argument 'x' has type 'ScalarType'", id="type"),
        pytest.param(torch.Tensor, ("y",), "y", id="mutates"),
    ],
)
def test_a_signature_without_a_schema(annotation, mutates, message):
    """A function whose signature makes no schema is refused in one line."""

    def odd(x) -> torch.Tensor:
        return x

    odd.__annotations__["x"] = annotation
    with pytest.raises(RegistrationError) as caught:
        register_kernel(mutates_args=mutates)(odd)
    assert str(caught.value).startswith("kernel 'odd': no schema for its signature: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mutates", ["result", ""], ids=["name", "empty"])
def test_names_of_written_arguments_are_a_list(mutates):
    """One text is not taken apart into letters."""
    with pytest.raises(RegistrationError) as caught:
        register_kernel(mutates_args=mutates)(doubled)
    assert str(caught.value) == (
        f"kernel 'doubled': mutates_args is '{mutates}'; give a list of names"
    )


def test_a_kernel_of_helions_is_no_function():
    """A decorator too many is said."""
    with pytest.raises(RegistrationError) as caught:
        register_kernel("twice")(helion.kernel(doubled))
    assert str(caught.value).startswith("kernel 'twice': <helion.runtime.kernel.Kernel object at ")
    assert str(caught.value).endswith(" is not a function; give one without a decorator")


def test_nothing_written_may_be_none():
    """As in vLLM, whose default it is."""
    assert register_kernel(mutates_args=None)(doubled).schema.text == "(Tensor x) -> Tensor"


def test_an_op_may_begin_with_an_underscore():
    """What torch.ops has no attribute of."""
    x = torch.ones(1, 2)
    assert torch.equal(register_kernel("_twice")(doubled)(x), x * 2)
    assert torch.equal(torch.ops.kernelpkg._twice(x), x * 2)


def test_names_of_older_releases_of_vllm():
    """Arguments that have other names there are taken by these, and by one name only."""
    assert register_kernel(op_name_or_func=doubled).qualified == "kernelpkg::doubled"
    kernel = register_kernel(op_name_or_func="twice")(doubled)
    assert get_kernel_by_name(kernel_name="twice") is get_kernel_by_name(name="twice") is kernel
    assert kernel.register_input_generator(generator_func=dict) is dict
    assert kernel.get_inputs() == {}
    with pytest.raises(TypeError, match=r"get_kernel_by_name\(\) got an argument by two names"):
        get_kernel_by_name(kernel_name="twice", name="twice")
    with pytest.raises(TypeError, match="multiple values"):
        register_kernel("other", op_name_or_func=doubled)


def test_look_ups():
    """A kernel is found by its name, with its namespace where two have one name."""
    one = register_kernel("twice")(doubled)
    assert get_kernel_by_name("twice") is one
    two = register_kernel("twice", namespace="kp_test_register")(doubled)
    assert get_kernel_by_name("twice") is None
    assert get_kernel_by_name("kernelpkg::twice") is one
    assert get_kernel_by_name("kp_test_register::twice") is two
    assert get_kernel_by_name("nothing") is None
    kernels = get_registered_kernels()
    assert kernels["kernelpkg::twice"] is one
    assert "twice" not in kernels
    assert kernels.get("twice") is None
    unload("kp_test_register::twice")
    kernels = get_registered_kernels()
    assert "twice" in kernels
    assert kernels["twice"] is kernels.get("twice") is one
    assert [name for name in kernels if name.endswith("twice")] == ["kernelpkg::twice"]
    kernels.clear()
    assert get_kernel_by_name("kernelpkg::twice") is one


def test_unload():
    """Unloaded names are free, and can be registered again."""
    kernel = register_kernel(doubled)
    assert unload("doubled", "nothing") == ("kernelpkg::doubled",)
    assert get_kernel_by_name("doubled") is None
    assert not hasattr(torch.ops.kernelpkg, "doubled")
    with pytest.raises(RegistrationError) as caught:
        kernel(torch.ones(1, 2))
    assert str(caught.value) == "op 'kernelpkg::doubled' is not registered"
    kernel.unregister()
    again = register_kernel(doubled)
    assert torch.equal(again(torch.ones(1, 2)), torch.full((1, 2), 2.0))


def _config_file(directory, name, cases, configs, **changes):
    path = directory / name / "cpu.json"
    path.parent.mkdir(parents=True)
    document = {
        "edition": 1,
        "kernel": name,
        "platform": "cpu",
        "tuned_with": {},
        "configs": configs,
        "cases": cases,
        **changes,
    }
    path.write_text(json.dumps(document))


SMALL = {"block_sizes": [16, 16], "num_warps": 1}
LARGE = {"block_sizes": [32, 32], "num_warps": 8}


def _by_rows(args, keys):
    """Pick the smallest tuned number of rows that is not below the call's."""
    fitting = [key for key in keys if key["rows"] >= args[0].size(0)]
    return min(fitting, key=lambda key: key["rows"], default=None)


def _picked(directory, picker=_by_rows):
    return register_kernel(config_picker=picker, configs_dir=directory)(doubled)


@pytest.fixture
def tuned(tmp_path):
    cases = [
        {"key": {"rows": 4}, "config": 0},
        {"key": {"rows": 64}, "config": 1},
        {"key": {"rows": 128}, "config": 1},
        {"key": {}, "config": 0},
    ]
    _config_file(tmp_path, "doubled", cases, [SMALL, LARGE])
    return tmp_path


def test_configs_and_picker(tuned, monkeypatch):
    """The picker names a tuned key; None is the case {}; equal configs compile once."""

    def no_gpu(*_):
        raise NotRecorded("there is no GPU to compile for")

    monkeypatch.setattr("kernelpkg.compile.code._compile", no_gpu)
    kernel = _picked(tuned)
    configured = kernel.get_configured_op()
    for rows, config in ((2, SMALL), (4, SMALL), (5, LARGE), (100, LARGE), (500, SMALL)):
        args = (torch.zeros(rows, 8),)
        assert dict(configured.selected_config(args)) == config
        chosen = next(kernel.plan.options((), args))
        assert chosen.reason == ("the case {}" if rows == 500 else "the picker's case")
        kernel.backend.compile(args, chosen)
    assert configured.compiled_count() == kernel.backend.code().compiled_count() == 2
    assert kernel.backend.code().unrecorded == {"there is no GPU to compile for": 5}
    assert torch.equal(kernel(torch.ones(2, 3)), torch.full((2, 3), 2.0))


def test_without_configs(tmp_path):
    """Without a config file the op runs with Helion's default."""
    kernel = _picked(tmp_path)
    args = (torch.zeros(4, 8),)
    (chosen,) = kernel.plan.options((), args)
    assert (chosen.mode, chosen.config) == ("default", None)
    assert chosen.reason == "nothing is tuned; Helion's own default"
    assert kernel.get_configured_op().selected_config(args) is None


def test_a_picker_that_makes_up_a_key(tuned):
    """A key that is not tuned is an error that shows it."""
    kernel = _picked(tuned, lambda args, keys: {"rows": 5})
    with pytest.raises(ConfigError) as caught:
        next(kernel.plan.options((), (torch.zeros(4, 8),)))
    assert str(caught.value) == (
        "Config picker returned invalid config key {'rows': 5} for kernel 'doubled', which is none "
        "of the tuned keys; return one of them, or None"
    )


def test_a_picker_gets_tuned_keys_and_may_return_a_text(tuned):
    """As vLLM's do, which look for the default among the keys; sorted by their texts."""
    seen = []

    def picker(args, keys):
        seen.extend(keys)
        return str(next(key for key in keys if not key.is_default()))

    kernel = _picked(tuned, picker)
    assert next(kernel.plan.options((), (torch.zeros(4, 8),))).config == LARGE
    assert [str(key) for key in seen] == ['{"rows":128}', '{"rows":4}', '{"rows":64}']


def test_a_picker_that_returns_another_text(tuned):
    """A text that is no key is refused as a key is."""
    kernel = _picked(tuned, lambda args, keys: "rows_4")
    with pytest.raises(ConfigError, match="returned invalid config key 'rows_4' for kernel"):
        next(kernel.plan.options((), (torch.zeros(4, 8),)))


def test_configs_of_a_kernel(tuned, specs):
    """What is tuned, and for which platform, with a manifest or without."""
    configured = _picked(tuned).get_configured_op()
    assert configured.platform == "cpu"
    assert {str(key): dict(config) for key, config in configured.configs.items()} == {
        '{"rows":4}': SMALL,
        '{"rows":64}': LARGE,
        '{"rows":128}': LARGE,
        "{}": SMALL,
    }
    assert all(isinstance(config, helion.Config) for config in configured.configs.values())
    of_manifest = get_kernel_by_name("silu_mul_fp8").get_configured_op()
    assert (of_manifest.platform, of_manifest.configs) == ("cpu", {})


def vllms(picker=_by_rows, **options):
    """Make a kernel as vLLM does, by position."""
    return kernelpkg.HelionKernelWrapper(doubled, "doubled", None, picker, **options)


def test_a_kernel_made_as_vllm_makes_it(tuned):
    """It has its op and its place in the registry, and what it was given."""
    settings = helion.Settings(print_output_code=True)
    kernel = vllms(helion_settings=settings, input_generator=dict, configs_dir=tuned)
    assert torch.equal(torch.ops.kernelpkg.doubled(torch.ones(1, 2)), torch.full((1, 2), 2.0))
    assert get_kernel_by_name("doubled") is kernel
    assert kernel.helion_settings is settings
    assert kernel.backend.settings["print_output_code"] is True
    assert kernel.raw_kernel_func is doubled
    assert kernel.get_inputs() == {}
    with pytest.raises(RegistrationError, match="already registered"):
        vllms(configs_dir=tuned)


def test_a_kernel_that_nothing_is_tuned_for_is_disabled(tmp_path, monkeypatch):
    """As in vLLM, where a miss is an error: it can be tuned and looked up, and not called."""
    reason = (
        "op 'kernelpkg::doubled' is disabled: No configs available for kernel 'doubled' on "
        "platform 'cpu'; tune some, or let miss be 'default'"
    )
    with pytest.warns(UserWarning, match="is disabled") as warned:
        kernel = register_kernel(
            config_picker=_by_rows, configs_dir=tmp_path, miss="error", input_generator=dict
        )(doubled)
    assert [str(warning.message) for warning in warned] == [reason]
    for call in (lambda: kernel(torch.ones(1, 2)), kernel.get_configured_op):
        with pytest.raises(DisabledError) as caught:
            call()
        assert str(caught.value) == reason
        assert isinstance(caught.value, RuntimeError)
    assert not hasattr(torch.ops.kernelpkg, "doubled")
    assert get_kernel_by_name("doubled") is kernel
    assert kernel.get_inputs() == {}
    monkeypatch.setattr(search, "run_autotune", lambda *args: "config")
    assert kernel.run_autotune([torch.ones(1, 2)]) == "config"
    assert unload("doubled") == ("kernelpkg::doubled",)
    with pytest.warns(UserWarning, match="is disabled: No configs available"):
        vllms()


def test_a_miss_is_one_of_two_words():
    """Any other registers nothing."""
    with pytest.raises(RegistrationError) as caught:
        register_kernel(miss="disable")(doubled)
    assert str(caught.value) == (
        "kernel 'doubled': miss is 'disable'; it must be 'default' or 'error'"
    )


def test_a_miss_that_is_an_error(tmp_path):
    """A call without a config is refused where one is needed."""
    cases = [{"key": {"rows": 4}, "config": 0}]
    _config_file(tmp_path, "doubled", cases, [SMALL])
    kernel = vllms(configs_dir=tmp_path)
    assert dict(kernel.get_configured_op().selected_config((torch.zeros(4, 8),))) == SMALL
    with pytest.raises(ConfigError, match="Config picker returned None for kernel 'doubled'"):
        kernel.get_configured_op().selected_config((torch.zeros(5, 8),))


def test_a_broken_config_file(tmp_path):
    """A config file that cannot be read registers nothing, and is named."""
    (tmp_path / "doubled").mkdir()
    (tmp_path / "doubled" / "cpu.json").write_text('{"edition": 1')
    with pytest.raises(PackError) as caught:
        _picked(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/doubled/cpu.json:1: KP501 the file ends in")
    assert get_kernel_by_name("doubled") is None


def test_registering_asks_for_no_device(monkeypatch):
    """Without configs, a decorated function does not start CUDA while its module is imported."""

    def refused(*_):
        raise AssertionError("the device was asked for")

    monkeypatch.setattr(helion_backend, "platform_here", refused)
    register_kernel(doubled)


def test_interpretation_is_asked_for_by_name(monkeypatch):
    """HELION_INTERPRET is read in Helion's words."""
    from kernelpkg.errors import UsageError
    from kernelpkg.runtime.torch_ops import asked_to_interpret

    for word in ("1", "true", "YES", " on "):
        assert asked_to_interpret({"HELION_INTERPRET": word})
    for word in ("", "0", "False", "no", "off"):
        assert not asked_to_interpret({"HELION_INTERPRET": word})
    assert not asked_to_interpret({})
    with pytest.raises(UsageError) as caught:
        asked_to_interpret({"HELION_INTERPRET": "maybe"})
    assert str(caught.value) == (
        "HELION_INTERPRET is 'maybe'; Helion takes 1, on, true, yes and 0, false, no, off"
    )
    monkeypatch.setenv("HELION_INTERPRET", "1")
    assert asked_to_interpret()
    kernel = register_kernel(doubled)
    assert torch.equal(kernel(torch.ones(1, 2)), torch.full((1, 2), 2.0))
    monkeypatch.setenv("HELION_INTERPRET", "0")
    assert torch.equal(kernel(torch.ones(2, 2)), torch.full((2, 2), 2.0))


@pytest.mark.parametrize("name", ["name", "_dir", "__len__", "bad name", "class", "a.b"])
def test_names_that_cannot_be_are_refused(name):
    """A name that Python or torch.ops cannot have is refused, and the namespace stays whole."""

    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    with pytest.raises(RegistrationError, match=r"choose another name|is not an identifier"):
        register_kernel(name, namespace="names")(double)
    register_kernel("double", namespace="names", fake_impl=torch.empty_like)(double)
    unload("names::double")


def test_a_fake_gets_the_defaults_of_the_schema():
    """PyTorch leaves out arguments that equal their defaults; a fake without defaults gets them."""
    seen = []

    def scale(x: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
        return x * factor

    def fake(x, factor):
        seen.append(factor)
        return torch.empty_like(x)

    register_kernel("scale", namespace="names", fake_impl=fake)(scale)
    try:
        result = torch.compile(
            lambda x: torch.ops.names.scale(x),  # noqa: PLW0108  # Dynamo takes functions
            backend="eager",
            fullgraph=True,
        )(torch.ones(3))
        assert seen
        assert set(seen) == {2.0}
        assert torch.equal(result, torch.full((3,), 2.0))
    finally:
        unload("names::scale")
