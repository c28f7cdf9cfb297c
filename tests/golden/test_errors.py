"""Every error that reading manifests can report, word for word: one edit of a good pack for each."""

import os
import re
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from kernelpkg.cli.codes import codes
from kernelpkg.errors import PackError
from kernelpkg.files import digest_bytes
from kernelpkg.packs.read import kernel_names, problem_at, read_kernel, read_pack

GOOD = Path(__file__).parent / "good"
ROOT = Path(__file__).parents[2]
MANIFEST = "kernels/x/kernel.toml"
KERNEL = "kernels/x/kernel.py"
HOST = "kernels/x/host.py"
PACK = "manifests/good.toml"

# What is edited, the text there, the text in its place, and all lines that are reported.
EDITS = {
    "toml that does not parse": (MANIFEST, "version = 1\n", "version = = 1\n",
        "kernels/x/kernel.toml:5: KP003 does not parse as TOML: Invalid value"),
    "toml with a key twice": (MANIFEST, "version = 1\n", "version = 1\nversion = 2\n",
        "kernels/x/kernel.toml:6: KP003 does not parse as TOML: a key or table is given twice, keep one of them (Cannot overwrite a value)"),
    "toml with a table twice": (MANIFEST, "[miss]\n", "[op]\n",
        "kernels/x/kernel.toml:40: KP003 does not parse as TOML: a key or table is given twice, keep one of them (Cannot declare ('op',) twice)"),
    "toml that ends too early": (MANIFEST, "default = { group = 4,", 'default = """',
        "kernels/x/kernel.toml:62: KP003 does not parse as TOML: Unterminated string"),
    "a number of too many digits": (MANIFEST, "version = 1\n", "version = " + "1" * 5000 + "\n",
        "kernels/x/kernel.toml:5: KP003 does not parse as TOML: a number has too many digits"),
    "a number of more than 64 bits": (MANIFEST, "version = 1\n", "version = 9_223_372_036_854_775_808\n",
        "kernels/x/kernel.toml:5: KP003 has a whole number of more than 64 bits; write one that fits into them"),
    "a hexadecimal number of more than 64 bits": (MANIFEST, "num_tokens = [", f"num_tokens = [0x{'f' * 5000}, ",
        "kernels/x/kernel.toml:47: KP003 has a whole number of more than 64 bits; write one that fits into them"),
    "an expression with a number of more than 64 bits": (MANIFEST, "hidden_size % group == 0", "hidden_size % 18446744073709551616 == 0",
        "kernels/x/kernel.toml:27: KP120 expression 'hidden_size % 18446744073709551616 == 0' has a whole number of more than 64 bits"),
    "a key of thousands of characters": (MANIFEST, 'fake_impl = "none"', f"fake_impl = \"none\"\n{'x' * 5000} = 1",
        f"kernels/x/kernel.toml:13: KP010 key '{'x' * 79}…{'x' * 39}' is not known in [op]; known are schema, fake_impl, backward"),
    "toml nested too deeply": (MANIFEST, "version = 1\n", "version = " + "[" * 1200 + "]" * 1200 + "\n",
        "kernels/x/kernel.toml:62: KP003 does not parse as TOML: it is nested too deeply"),
    "an edition of the future": (MANIFEST, "edition = 1", "# later\nedition = 2 # not yet",
        "kernels/x/kernel.toml:2: KP002 edition 2 is newer than this version of kernelpkg reads (1); upgrade kernelpkg"),
    "an edition of the future in hex": (MANIFEST, "edition = 1", "edition = 0x2",
        "kernels/x/kernel.toml:1: KP002 edition 2 is newer than this version of kernelpkg reads (1); upgrade kernelpkg"),
    "no edition": (MANIFEST, "edition = 1\n", "",
        "kernels/x/kernel.toml:1: KP011 key 'edition' is missing; it must be 1"),
    "edition as text": (MANIFEST, "edition = 1", 'edition = "1"',
        "kernels/x/kernel.toml:1: KP012 'edition' must be 1, not a text ('1')"),
    "unknown key": (MANIFEST, 'fake_impl = "none"', 'fake_impl = "none"\nfake_imp = "none"',
        "kernels/x/kernel.toml:13: KP010 key 'fake_imp' is not known in [op]; did you mean 'fake_impl'?"),
    "unknown table": (MANIFEST, "[miss]", "[misses]",
        "kernels/x/kernel.toml:40: KP010 key 'misses' is not known; did you mean 'miss'?"),
    "unknown key with a line break": (MANIFEST, 'fake_impl = "none"', 'fake_impl = "none"\n"fa\\nke" = 1',
        "kernels/x/kernel.toml:13: KP010 key 'fa\\nke' is not known in [op]; known are schema, fake_impl, backward"),
    "missing key": (MANIFEST, "version = 1\n", "",
        "kernels/x/kernel.toml:3: KP011 key 'version' is missing in [kernel]; it must be a whole number at least 1"),
    "missing table": (MANIFEST, "[accuracy]\nout = { rtol = 1e-2, atol = 1e-3 }\n", "",
        "kernels/x/kernel.toml:1: KP109 'out' is written by the op and has no [accuracy]; say how close it must be"),
    "mistyped key": (MANIFEST, "version = 1\n", 'version = "1"\n',
        "kernels/x/kernel.toml:5: KP012 'version' must be a whole number at least 1, not a text ('1')"),
    "whole number as float": (MANIFEST, "version = 1\n", "version = 1.0\n",
        "kernels/x/kernel.toml:5: KP012 'version' must be a whole number at least 1, not a number (1.0)"),
    "number out of range": (MANIFEST, "version = 1\n", "version = 0\n",
        "kernels/x/kernel.toml:5: KP012 'version' must be a whole number at least 1, not 0"),
    "number that is not finite": (MANIFEST, "rtol = 1e-2", "rtol = nan",
        "kernels/x/kernel.toml:62: KP012 'rtol' must be a number at least 0, not a number that is not finite (nan)"),
    "word that is none of the choices": (MANIFEST, 'match = "nearest"', 'match = "nearst"',
        "kernels/x/kernel.toml:34: KP012 'match' must be one of 'exact', 'nearest', 'ceil', 'floor', 'pow2', 'ranges', 'ignore', not 'nearst'; did you mean 'nearest'?"),
    "empty array": (MANIFEST, "num_tokens = [1, 16]", "num_tokens = []",
        "kernels/x/kernel.toml:47: KP012 'num_tokens' must be an array that is not empty, and has 0"),
    "date": (MANIFEST, "version = 1\n", "version = 1979-05-27\n",
        "kernels/x/kernel.toml:5: KP012 'version' must be a whole number at least 1, not a date or time"),
    "entry of an array": (MANIFEST, "num_tokens = [1, 16]", "num_tokens = [1, [16]]",
        "kernels/x/kernel.toml:47: KP012 entry 2 of 'num_tokens' must be a number, true, false or a text, not an array"),
    "table in place of array": (MANIFEST,
        'when = ["hidden_size % group == 0", "dtype in [bfloat16, float32]"]', "when = {}",
        "kernels/x/kernel.toml:27: KP012 'when' must be an array that is not empty, not a table"),
    "axis name that is not an identifier": (MANIFEST,
        'num_tokens = "input.shape[0]"', '"num-tokens" = "input.shape[0]"',
        "kernels/x/kernel.toml:20: KP013 'num-tokens' must be an identifier (letters, digits and underscores)",
        "kernels/x/kernel.toml:37: KP104 key axis 'num_tokens' is not defined in [axes]; did you mean 'num-tokens'?",
        "kernels/x/kernel.toml:47: KP140 axis 'num_tokens' is not defined in [axes]; did you mean 'num-tokens'?",
        "kernels/x/kernel.toml:52: KP140 axis 'num_tokens' is not defined in [axes]; did you mean 'num-tokens'?",
        "kernels/x/kernel.toml:56: KP121 expression 'num_tokens': name 'num_tokens' is not known here; did you mean 'num-tokens'?",
        "kernels/x/kernel.toml:57: KP121 expression 'num_tokens': name 'num_tokens' is not known here; did you mean 'num-tokens'?",
        "kernels/x/kernel.toml:58: KP121 expression 'num_tokens': name 'num_tokens' is not known here; did you mean 'num-tokens'?"),
    "long value": (MANIFEST, 'fake_impl = "none"', 'fake_impl = "' + "n" * 500 + '"',
        "kernels/x/kernel.toml:12: KP012 'fake_impl' must be 'none', 'infer' or a reference of the form 'file.py:function', not 'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn…"),
    "name of another directory": (MANIFEST, 'name = "x"', 'name = "y"',
        "kernels/x/kernel.toml:4: KP101 kernel is named 'y', its directory 'x'; give both the same name"),
    "name that is a keyword": (MANIFEST, 'name = "x"', 'name = "lambda"',
        "kernels/x/kernel.toml:4: KP101 'lambda' is a keyword of Python; choose another name",
        "kernels/x/kernel.toml:4: KP101 kernel is named 'lambda', its directory 'x'; give both the same name"),
    "name that is not an identifier": (MANIFEST, 'name = "x"', 'name = "größe"',
        "kernels/x/kernel.toml:4: KP012 'name' must be an identifier (letters, digits and underscores), not 'größe'"),
    "schema that is none": (MANIFEST, ') -> ()"', ')"',
        "kernels/x/kernel.toml:11: KP102 schema is not of the form '(arguments) -> returns'"),
    "schema with an unknown type": (MANIFEST, "Tensor input", "Tensr input",
        "kernels/x/kernel.toml:11: KP102 schema argument 'input' has type 'Tensr'; kernels take Tensor, int, SymInt, float, bool, str and int[]"),
    "schema with a list": (MANIFEST, "Tensor input", "float[] input",
        "kernels/x/kernel.toml:11: KP102 schema argument 'input' has type 'float[]'; kernels take Tensor, int, SymInt, float, bool, str and int[]"),
    "schema that does not read": (MANIFEST, "Tensor input", "Tensor: input",
        "kernels/x/kernel.toml:11: KP102 schema has an argument that does not read as 'Type name' or 'Type name=default': 'Tensor: input'"),
    "schema with a default that is absent": (MANIFEST, "int group=4", "int group=None",
        "kernels/x/kernel.toml:11: KP102 schema argument 'group' has default 'None', but is not optional; write 'int? group=None'"),
    "schema with an argument twice": (MANIFEST, "Tensor input", "Tensor out",
        "kernels/x/kernel.toml:11: KP102 schema names argument 'out' twice"),
    "schema with an alias twice": (MANIFEST, "Tensor input", "Tensor(a!) input",
        "kernels/x/kernel.toml:11: KP102 schema arguments 'out' and 'input' have one alias 'a!'; give each its own letter"),
    "schema with a default that is none": (MANIFEST, "int group=4", "int group=4.5",
        "kernels/x/kernel.toml:11: KP102 schema argument 'group' has default '4.5'; it must be an int of 64 bits"),
    "schema with a default after none": (MANIFEST, "int group=4", "int group",
        "kernels/x/kernel.toml:11: KP102 schema argument 'group' needs a default, as 'factor' has one"),
    "schema that writes nothing": (MANIFEST, "Tensor(a!) out", "Tensor out",
        "kernels/x/kernel.toml:11: KP102 schema returns nothing and writes no argument; mark what it writes, as in 'Tensor(a!) out'"),
    "schema that returns other things": (MANIFEST, " -> ()", " -> int",
        "kernels/x/kernel.toml:11: KP102 schema returns 'int'; kernels return (), Tensor or (Tensor, Tensor, …)"),
    "schema without a given tensor": (MANIFEST,
        'schema = "(Tensor(a!) out, Tensor input, Tensor? residual,',
        'schema = "(Tensor(a!)? out, Tensor? input, Tensor? residual,',
        "kernels/x/kernel.toml:11: KP102 schema has no tensor that is always given; its device would be the call's",
        "kernels/x/kernel.toml:11: KP103 argument 'input' is 'torch.Tensor | None' by the schema, 'torch.Tensor' in the function (kernels/x/kernel.py:7)",
        "kernels/x/kernel.toml:11: KP103 argument 'out' is 'torch.Tensor | None' by the schema, 'torch.Tensor' in the function (kernels/x/kernel.py:7)"),
    "fake implementation that does not fit": (MANIFEST, 'fake_impl = "none"', 'fake_impl = "infer"',
        "kernels/x/kernel.toml:12: KP102 the op returns nothing, so fake_impl must be 'none'"),
    "signature with other arguments": (KERNEL, "input: torch.Tensor", "inputs: torch.Tensor",
        "kernels/x/kernel.toml:11: KP103 the schema's arguments are (out, input, residual, factor, group), the function's (out, inputs, residual, factor, group) (kernels/x/kernel.py:7)"),
    "signature with other types": (KERNEL, "factor: float", "factor: int",
        "kernels/x/kernel.toml:11: KP103 argument 'factor' is 'float' by the schema, 'int' in the function (kernels/x/kernel.py:7)"),
    "signature with another default": (KERNEL, "factor: float = 2.0", "factor: float = 3.0",
        "kernels/x/kernel.toml:11: KP103 argument 'factor' has default 3.0 in the function, 2.0 by schema (kernels/x/kernel.py:7)"),
    "signature that returns": (KERNEL, "-> None", "-> torch.Tensor",
        "kernels/x/kernel.toml:11: KP103 by the schema the function returns 'None', but is annotated 'torch.Tensor' (kernels/x/kernel.py:7)"),
    "signature without annotation": (KERNEL, "input: torch.Tensor", "input",
        "kernels/x/kernel.toml:11: KP103 argument 'input' of the function has no annotation; write torch.Tensor (kernels/x/kernel.py:7)"),
    "signature with several mistakes": (KERNEL, "def x(\n    out: torch.Tensor,\n    input: torch.Tensor,", "@helion.kernel()\ndef x(\n    out,\n    input,",
        "kernels/x/kernel.toml:11: KP103 argument 'input' of the function has no annotation; write torch.Tensor (kernels/x/kernel.py:8)",
        "kernels/x/kernel.toml:11: KP103 argument 'out' of the function has no annotation; write torch.Tensor (kernels/x/kernel.py:8)",
        "kernels/x/kernel.toml:11: KP103 the function is decorated with 'helion.kernel()'; kernelpkg makes it a kernel, remove it (kernels/x/kernel.py:8)"),
    "signature with keywords": (KERNEL, "    group: int = 4,\n", "    group: int = 4,\n    **kwargs: int,\n",
        "kernels/x/kernel.toml:11: KP103 the schema's arguments are (out, input, residual, factor, group), the function's (out, input, residual, factor, group, **kwargs) (kernels/x/kernel.py:7)"),
    "signature with a decorator": (KERNEL, "def x(", "@helion.kernel()\ndef x(",
        "kernels/x/kernel.toml:11: KP103 the function is decorated with 'helion.kernel()'; kernelpkg makes it a kernel, remove it (kernels/x/kernel.py:8)"),
    "reference with other arguments": (HOST, "def reference(out, input,", "def reference(input,",
        "kernels/x/kernel.toml:8: KP103 'host.py:reference' takes (input, residual, factor, group), but is called with (out, input, residual, factor, group) (kernels/x/host.py:6)"),
    "initial values with other arguments": (MANIFEST, 'init = "randn"', 'init = "host.py:pick"',
        "kernels/x/kernel.toml:58: KP103 'host.py:pick' takes (args, keys), but is called with (axes, args, generator) (kernels/x/host.py:14)"),
    "rule of an unknown axis": (MANIFEST, 'axis = "hidden_size"', 'axis = "hidden"',
        "kernels/x/kernel.toml:33: KP104 key axis 'hidden' is not defined in [axes]; did you mean 'hidden_size'?"),
    "option of another match": (MANIFEST, "max = 0.5", 'over = "miss"',
        "kernels/x/kernel.toml:35: KP105 'over' has no effect with match 'nearest'; it goes with 'ceil' and 'pow2'"),
    "ranges without bounds": (MANIFEST, 'match = "ceil"', 'match = "ranges"',
        "kernels/x/kernel.toml:38: KP105 match 'ranges' needs 'bounds', the last value of each range"),
    "bounds that fall": (MANIFEST, 'match = "ceil"', 'match = "ranges"\nbounds = [4, 4]',
        "kernels/x/kernel.toml:39: KP105 'bounds' must rise, and is [4, 4]"),
    "axis that nothing uses": (MANIFEST,
        'dtype = "input.dtype"', 'dtype = "input.dtype"\nrank = "input.ndim"',
        "kernels/x/kernel.toml:24: KP106 axis 'rank' is used by no rule, guard or argument; remove it"),
    "no axis for an optional tensor": (MANIFEST,
        'has_residual = "residual is not None"', 'has_residual = "group > 4"',
        "kernels/x/kernel.toml:19: KP107 optional tensor 'residual' has no axis for its presence; add has_residual = \"residual is not None\", because lists of a config shift without it"),
    "rule of a presence that is not exact": (MANIFEST,
        'axis = ["has_residual", "dtype"]\nmatch = "exact"',
        'axis = "dtype"\nmatch = "exact"\n[[key]]\naxis = "has_residual"\nmatch = "ignore"',
        "kernels/x/kernel.toml:24: KP107 axis 'has_residual' tells whether 'residual' is given and needs a rule with match 'exact', because lists of a config shift without it"),
    "axis of a presence without a rule": (MANIFEST, 'axis = ["has_residual", "dtype"]', 'axis = "dtype"',
        "kernels/x/kernel.toml:24: KP107 axis 'has_residual' tells whether 'residual' is given and needs a rule with match 'exact', because lists of a config shift without it"),
    "axis of a constant without a rule": (KERNEL, "group: int = 4", "group: hl.constexpr = 4",
        "kernels/x/kernel.toml:22: KP107 axis 'group' is a constant of the code and needs a rule with match 'exact', for code is made for each value"),
    "constant without an axis": (KERNEL, "factor: float = 2.0,\n    group: int = 4", "factor: hl.constexpr = 2.0,\n    group: int = 4",
        "kernels/x/kernel.toml:11: KP103 argument 'factor' is hl.constexpr, and 'float' by the schema; constants are bool, int or str (kernels/x/kernel.py:7)",
        "kernels/x/kernel.toml:19: KP107 argument 'factor' is a constant of the code and has no axis; add factor = \"factor\", for code is made for each value"),
    "axis with two rules": (MANIFEST, 'axis = "num_tokens"', 'axis = "dtype"',
        "kernels/x/kernel.toml:37: KP108 key axis 'dtype' has two rules; keep one of them"),
    "axis that hides an argument": (MANIFEST, 'group = "group"', 'group = "group * 2"',
        "kernels/x/kernel.toml:22: KP108 'group' is an argument and an axis that means 'group * 2'; give the axis another name"),
    "axis with the name of a dtype": (MANIFEST, 'group = "group"', 'group = "group"\nint8 = "group"',
        "kernels/x/kernel.toml:23: KP106 axis 'int8' is used by no rule, guard or argument; remove it",
        "kernels/x/kernel.toml:23: KP108 'int8' is a dtype, a keyword, or a key of [[inputs.grid]]; give the axis another name"),
    "argument with the name of a dtype": (MANIFEST, "float factor", "float bool",
        "kernels/x/kernel.toml:11: KP103 the schema's arguments are (out, input, residual, bool, group), the function's (out, input, residual, factor, group) (kernels/x/kernel.py:7)",
        "kernels/x/kernel.toml:11: KP108 argument 'bool' has the name of a dtype or a keyword; give it another",
        "kernels/x/kernel.toml:59: KP131 argument 'factor' is not in the schema; it has out, input, residual, bool, group"),
    "rounding of what is not a tensor": (MANIFEST, "out = { rtol", 'out = { rounding = "group", rtol',
        "kernels/x/kernel.toml:62: KP109 'rounding' names 'group', which is not a tensor that is always given; there are out, input"),
    "name that torch.ops has": (MANIFEST, 'name = "x"', 'name = "name"',
        "kernels/x/kernel.toml:4: KP101 'name' would hide an attribute of torch.ops; choose another name",
        "kernels/x/kernel.toml:4: KP101 kernel is named 'name', its directory 'x'; give both the same name"),
    "accuracy of what is not written": (MANIFEST, "out = { rtol", "input = { rtol",
        "kernels/x/kernel.toml:61: KP109 'out' is written by the op and has no [accuracy]; say how close it must be",
        "kernels/x/kernel.toml:62: KP109 'input' is not written by the op; it writes out"),
    "properties of what is not written": (MANIFEST, "[accuracy]\n", "[properties]\ninput = { seed = 'group' }\n[accuracy]\n",
        "kernels/x/kernel.toml:62: KP109 'input' is not written by the op; it writes out"),
    "accuracy and properties": (MANIFEST, "[accuracy]\n", "[properties]\nout = { seed = 'group' }\n[accuracy]\n",
        "kernels/x/kernel.toml:62: KP109 'out' has [accuracy] and [properties]; keep one; [properties] is for what no reference computes"),
    "properties without a word": (MANIFEST, "[accuracy]\nout = { rtol = 1e-2, atol = 1e-3 }", "[properties]\nout = { within = 0.1 }",
        "kernels/x/kernel.toml:8: KP109 no output has [accuracy], so the reference is never used; say reference = \"none\"",
        "kernels/x/kernel.toml:62: KP109 'within' goes with 'zeros'; give it, or remove this",
        "kernels/x/kernel.toml:62: KP109 [properties] has no condition for 'out'; give 'zeros', 'seed' or 'holds'"),
    "a seed that is not a whole number": (MANIFEST, "[accuracy]\nout = { rtol = 1e-2, atol = 1e-3 }", "[accuracy]\n[properties]\nout = { seed = 'factor' }",
        "kernels/x/kernel.toml:8: KP109 no output has [accuracy], so the reference is never used; say reference = \"none\"",
        "kernels/x/kernel.toml:63: KP109 'seed' names 'factor', which is not a whole number that all calls give; there are group"),
    "a share that is not a number": (MANIFEST, "[accuracy]\nout = { rtol = 1e-2, atol = 1e-3 }", "[accuracy]\n[properties]\nout = { zeros = 'dtype' }",
        "kernels/x/kernel.toml:8: KP109 no output has [accuracy], so the reference is never used; say reference = \"none\"",
        "kernels/x/kernel.toml:63: KP122 expression 'dtype' is a dtype, and must be a number"),
    "a share of more than all": (MANIFEST, "[accuracy]\n", "[properties]\nout = { zeros = 2 }\n[accuracy]\n",
        "kernels/x/kernel.toml:62: KP012 'zeros' must be a number at least 0 and at most 1, not 2"),
    "a property of other arguments": (MANIFEST, "[accuracy]\nout = { rtol = 1e-2, atol = 1e-3 }", "[accuracy]\n[properties]\nout = { holds = 'host.py:reference' }",
        "kernels/x/kernel.toml:8: KP109 no output has [accuracy], so the reference is never used; say reference = \"none\"",
        "kernels/x/kernel.toml:63: KP103 'host.py:reference' takes (out, input, residual, factor, group), but is called with (output, out, input, residual, factor, group) (kernels/x/host.py:6)"),
    "accuracy without a reference": (MANIFEST, '"host.py:reference"', '"none"',
        "kernels/x/kernel.toml:62: KP109 'out' has [accuracy], but there is no reference to compare it with; give one, or use [properties] instead"),
    "reference that leaves the directory": (MANIFEST, "host.py:reference", "../host.py:reference",
        "kernels/x/kernel.toml:8: KP110 '../host.py:reference' leaves the directory of its kernel; move the file into it"),
    "reference with an absolute path": (MANIFEST, "host.py:reference", "/etc/host.py:reference",
        "kernels/x/kernel.toml:8: KP110 '/etc/host.py:reference' leaves the directory of its kernel; move the file into it"),
    "reference to a file that is not there": (MANIFEST, "host.py:reference", "hots.py:reference",
        "kernels/x/kernel.toml:8: KP111 'hots.py:reference': kernels/x/hots.py cannot be read: No such file or directory; write it, or correct 'reference'"),
    "reference to a function that is not there": (MANIFEST, "host.py:reference", "host.py:referenc",
        "kernels/x/kernel.toml:8: KP112 'host.py:referenc': kernels/x/host.py has no function 'referenc' at its top level; did you mean 'reference'?"),
    "initial values that are not there": (MANIFEST, 'init = "randn"', 'init = "host.py:randn"',
        "kernels/x/kernel.toml:58: KP112 'host.py:randn': kernels/x/host.py has no function 'randn' at its top level"),
    "fake implementation that is not there": (MANIFEST, 'fake_impl = "none"', 'fake_impl = "host.py:shapes"',
        "kernels/x/kernel.toml:12: KP102 the op returns nothing, so fake_impl must be 'none'",
        "kernels/x/kernel.toml:12: KP112 'host.py:shapes': kernels/x/host.py has no function 'shapes' at its top level"),
    "import of another package": (HOST, "import torch", "import numpy as np",
        "kernels/x/host.py:3: KP113 imports 'numpy'; this file may import torch and the standard library, so that the kernel stays one directory"),
    "import from beside": (KERNEL, "import torch\n", "import torch\nfrom . import host\n",
        "kernels/x/kernel.py:5: KP113 imports '.'; this file may import torch, helion and the standard library, so that the kernel stays one directory"),
    "import inside a function": (HOST, "    return torch.empty_like(input)", "    import helion\n",
        "kernels/x/host.py:11: KP113 imports 'helion'; this file may import torch and the standard library, so that the kernel stays one directory"),
    "argument that is returned": (KERNEL, "    for tile_t", "    if group == 1:\n        return out\n    for tile_t",
        "kernels/x/kernel.py:15: KP115 returns its argument 'out'; PyTorch expects each result to have its own memory, so allocate it"),
    "argument that is written and not marked": (KERNEL, "        out[tile_t, tile_h] =", "        input[tile_t, tile_h] = 0.0\n        out[tile_t, tile_h] =",
        "kernels/x/kernel.py:15: KP116 writes its argument 'input', which the schema does not mark as written; write 'Tensor(a!) input' there, or allocate a result"),
    "tensor on the CPU": (KERNEL, "    for tile_t, tile_h in hl.tile([input.size(0), input.size(1)]):\n", "    ones = torch.ones(4)\n    for tile_t, tile_h in hl.tile([input.size(0), input.size(1)]):\n        factor = ones[0]\n",
        "kernels/x/kernel.py:14: KP117 'torch.ones' allocates on the CPU, wherever the call's tensors are; give it device=, such as that of an argument"),
    "tolerance beside steps": (MANIFEST, "out = { rtol = 1e-2, atol = 1e-3 }", "out = { steps = 1, atol = 1e-3 }",
        "kernels/x/kernel.toml:62: KP109 'atol' has no effect beside 'steps', which counts codes; keep one of them"),
    "an axis that arguments do not have": (MANIFEST, 'num_tokens = "input.shape[0]"', 'num_tokens = "input.shape[2]"',
        "kernels/x/kernel.toml:45: KP145 case num_tokens=1, hidden_size=64, group=4, dtype=bfloat16, has_residual=true: axis 'num_tokens' = 'input.shape[2]' cannot be read: 'input' has 2 dimensions; correct the axis or [args]",
        "kernels/x/kernel.toml:49: KP145 case num_tokens=0, hidden_size=8, group=4, dtype=float32, has_residual=false: axis 'num_tokens' = 'input.shape[2]' cannot be read: 'input' has 2 dimensions; correct the axis or [args]"),
    "source that does not parse": (KERNEL, "def x(", "def x(((",
        "kernels/x/kernel.py:7: KP114 does not parse: invalid syntax"),
    "expression that does not parse": (MANIFEST, '"input.shape[0]"', '"input.shape[0"',
        "kernels/x/kernel.toml:20: KP120 expression 'input.shape[0' does not parse: '[' was never closed"),
    "expression with a call": (MANIFEST, '"input.shape[0]"', '"max(input)"',
        "kernels/x/kernel.toml:20: KP120 expression 'max(input)' uses 'max(input)', which is not in the language"),
    "expression with a text": (MANIFEST, "in [bfloat16, float32]", "in ['bfloat16']",
        "kernels/x/kernel.toml:27: KP122 expression 'dtype in ['bfloat16']': 'dtype in ['bfloat16']' compares a dtype with a text; write names of dtypes without quotes"),
    "expression with another attribute": (MANIFEST, '"input.shape[0]"', '"input.device"',
        "kernels/x/kernel.toml:20: KP120 expression 'input.device' uses '.device'; of a tensor, shape[i], ndim, dtype, numel(), stride(i) and is_contiguous() can be read"),
    "expression with a whole shape": (MANIFEST, '"input.shape[0]"', '"input.shape"',
        "kernels/x/kernel.toml:20: KP120 expression 'input.shape' reads a whole shape; read one size, as in 'x.shape[0]'"),
    "expression with division by zero": (MANIFEST, "hidden_size % group == 0", "hidden_size % (4 - 4) == 0",
        "kernels/x/kernel.toml:27: KP120 expression 'hidden_size % (4 - 4) == 0' divides by zero in 'hidden_size % (4 - 4)'"),
    "expression nested too deeply": (MANIFEST,
        "hidden_size % group == 0", "(" * 60 + "group" + " + 1)" * 60 + " == 0",
        "kernels/x/kernel.toml:27: KP120 expression '((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((group + 1) + 1) + 1…' is nested too deeply; name parts of it in [axes]"),
    "expression of other letters": (MANIFEST, "hidden_size % group == 0", "hidden_size ≥ group",
        "kernels/x/kernel.toml:27: KP120 expression 'hidden_size ≥ group' has '\\u2265'; expressions are one line of ASCII"),
    "expression with an unknown name": (MANIFEST, "hidden_size % group == 0", "hidden_siz % group == 0",
        "kernels/x/kernel.toml:27: KP121 expression 'hidden_siz % group == 0': name 'hidden_siz' is not known here; did you mean 'hidden_size'?"),
    "expression with a tensor as value": (MANIFEST, "hidden_size % group == 0", "residual == 0",
        "kernels/x/kernel.toml:27: KP121 expression 'residual == 0': tensor 'residual' is not a value; read its shape[i], ndim, dtype, numel(), stride(i) and is_contiguous()"),
    "expression that tests what is always given": (MANIFEST, "hidden_size % group == 0", "input is not None",
        "kernels/x/kernel.toml:27: KP121 expression 'input is not None': argument 'input' is always given; remove the test for None"),
    "expression that reads an axis like a tensor": (MANIFEST,
        "hidden_size % group == 0", "hidden_size.ndim == 2",
        "kernels/x/kernel.toml:27: KP121 expression 'hidden_size.ndim == 2': axis 'hidden_size' is a value and has no attributes"),
    "expression that adds to a dtype": (MANIFEST, "hidden_size % group == 0", "dtype + 1 == 2",
        "kernels/x/kernel.toml:27: KP122 expression 'dtype + 1 == 2': 'dtype + 1' uses a dtype as a number"),
    "expression that compares a dtype with a number": (MANIFEST, "hidden_size % group == 0", "dtype == 16",
        "kernels/x/kernel.toml:27: KP122 expression 'dtype == 16': 'dtype == 16' compares a dtype with a number, or by size"),
    "size that is a dtype": (MANIFEST,
        'out = { shape = ["num_tokens", "hidden_size"]', 'out = { shape = ["num_tokens", "dtype"]',
        "kernels/x/kernel.toml:56: KP122 expression 'dtype' is a dtype, and must be a whole number"),
    "guard that is a number": (MANIFEST, "hidden_size % group == 0", "hidden_size % group",
        "kernels/x/kernel.toml:27: KP122 expression 'hidden_size % group' is a whole number, and must be true or false"),
    "tensor without entry": (MANIFEST,
        'out = { shape = ["num_tokens", "hidden_size"], dtype = "dtype" }\n', "",
        "kernels/x/kernel.toml:55: KP130 argument 'out' is not given in [args]; give a shape and a dtype"),
    "argument that is not in the schema": (MANIFEST, "[args]\n", "[args]\nresidul = 1\n",
        "kernels/x/kernel.toml:56: KP131 argument 'residul' is not in the schema; did you mean 'residual'?"),
    "tensor given as a number": (MANIFEST,
        'out = { shape = ["num_tokens", "hidden_size"], dtype = "dtype" }\n', "out = 1.0\n",
        "kernels/x/kernel.toml:56: KP132 argument 'out' is a tensor and needs a 'dtype'",
        "kernels/x/kernel.toml:56: KP132 argument 'out' is a tensor and needs a 'shape'",
        "kernels/x/kernel.toml:56: KP132 argument 'out' is a tensor and takes no 'value'; 'init' says what it holds"),
    "scalar given as a tensor": (MANIFEST,
        "factor = 2.0", 'factor = { shape = ["num_tokens"], dtype = "float32" }',
        "kernels/x/kernel.toml:59: KP132 argument 'factor' is a scalar and needs a 'value'",
        "kernels/x/kernel.toml:59: KP132 argument 'factor' is a scalar and takes no 'dtype'",
        "kernels/x/kernel.toml:59: KP132 argument 'factor' is a scalar and takes no 'shape'"),
    "two sizes spread": (MANIFEST,
        'out = { shape = ["num_tokens", "hidden_size"]', 'out = { shape = ["*num_tokens", "*hidden_size"]',
        "kernels/x/kernel.toml:56: KP132 argument 'out': one size of a shape can be spread with '*'"),
    "size spread over nothing": (MANIFEST,
        'out = { shape = ["num_tokens", "hidden_size"]', 'out = { shape = ["*"]',
        "kernels/x/kernel.toml:56: KP132 argument 'out': a size that is spread needs its product, as in '*num_tokens', or a 'like'"),
    "like what is not a tensor": (MANIFEST, 'out = { shape = ["num_tokens", "hidden_size"]', 'out = { like = "factor"',
        "kernels/x/kernel.toml:56: KP132 argument 'out' is like 'factor', which is not another tensor; there are input, residual"),
    "like itself": (MANIFEST, 'out = { shape = ["num_tokens", "hidden_size"]', 'out = { like = "out"',
        "kernels/x/kernel.toml:56: KP132 argument 'out' is like 'out', which is not another tensor; there are input, residual"),
    "like what is like another": (MANIFEST, 'out = { shape = ["num_tokens", "hidden_size"], dtype = "dtype" }\ninput = { shape = ["num_tokens", "hidden_size"], dtype = "dtype", strides = ["*", 1] }', 'out = { like = "input" }\ninput = { like = "residual" }',
        "kernels/x/kernel.toml:56: KP132 argument 'out' is like 'input', which is itself like 'residual'; say what it is of one that has a shape"),
    "like what has variants": (MANIFEST, 'out = { shape = ["num_tokens", "hidden_size"], dtype = "dtype" }\ninput = { shape = ["num_tokens", "hidden_size"], dtype = "dtype", strides = ["*", 1] }', 'out = { when = "group == 4", like = "input" }\ninput = [{ when = "group == 2", shape = ["num_tokens", "hidden_size"], dtype = "dtype" }, { shape = ["num_tokens", "hidden_size"], dtype = "dtype" }]',
        "kernels/x/kernel.toml:56: KP132 argument 'out' is like 'input', which has variants; give its shape and dtype"),
    "like what spreads nothing": (MANIFEST, 'out = { shape = ["num_tokens", "hidden_size"]', 'out = { like = "input", shape = ["*", "hidden_size"]',
        "kernels/x/kernel.toml:56: KP132 argument 'out' is like 'input', of which no size is spread; '*' stands for the spread sizes"),
    "strides for another number of sizes": (MANIFEST, 'out = { shape = ["num_tokens", "hidden_size"]', 'out = { like = "input", strides = [1]',
        "kernels/x/kernel.toml:56: KP132 argument 'out' has 2 sizes and 1 stride; give one for each size"),
    "a scalar that is like a tensor": (MANIFEST, 'factor = 2.0', 'factor = { like = "input", value = 2.0 }',
        "kernels/x/kernel.toml:59: KP132 argument 'factor' is a scalar and takes no 'like'"),
    "strides that do not fit": (MANIFEST, 'strides = ["*", 1]', "strides = [1]",
        "kernels/x/kernel.toml:57: KP132 argument 'input' has 2 sizes and 1 stride; give one for each size"),
    "randint without high": (MANIFEST, 'init = "randn"', 'init = "randint"',
        "kernels/x/kernel.toml:58: KP132 argument 'residual': init 'randint' needs 'high'"),
    "a number of another init": (MANIFEST, 'init = "randn"', 'init = "randn", high = 4',
        "kernels/x/kernel.toml:58: KP132 argument 'residual': 'high' goes with init 'randint' or 'sorted' or 'permutation' or 'packed'; correct 'init', or remove it"),
    "offsets of another dtype": (MANIFEST, 'dtype = "dtype", init = "randn"', 'dtype = "float32", init = "offsets", total = 4',
        "kernels/x/kernel.toml:58: KP132 argument 'residual' has dtype float32, and init 'offsets' makes int32 or int64"),
    "codes of another dtype": (MANIFEST, 'dtype = "dtype", init = "randn"', 'dtype = "dtype", init = "packed", bits = 4',
        "kernels/x/kernel.toml:45: KP133 case num_tokens=1, hidden_size=64, group=4, dtype=bfloat16, has_residual=true: argument 'residual' has dtype bfloat16, and init 'packed' makes int8, uint8, int16, int32 or int64"),
    "a range of no values": (MANIFEST, 'dtype = "dtype", init = "randn"', 'dtype = "int8", init = "randint", low = 8, high = "num_tokens"',
        "kernels/x/kernel.toml:45: KP133 case num_tokens=1, hidden_size=64, group=4, dtype=bfloat16, has_residual=true: argument 'residual' has no value from 8 to below 1"),
    "variant that is never reached": (MANIFEST, "factor = 2.0", "factor = [{ value = 1.0 }, { value = 2.0 }]",
        "kernels/x/kernel.toml:59: KP132 argument 'factor' has a variant without 'when' before this one; only the last may omit it"),
    "case without a variant": (MANIFEST,
        "factor = 2.0", 'factor = [{ when = "num_tokens > 1", value = 1.0 }]',
        "kernels/x/kernel.toml:45: KP133 case num_tokens=1, hidden_size=64, group=4, dtype=bfloat16, has_residual=true: no variant of argument 'factor' is for it; add one without 'when'",
        "kernels/x/kernel.toml:49: KP133 case num_tokens=0, hidden_size=8, group=4, dtype=float32, has_residual=false: no variant of argument 'factor' is for it; add one without 'when'"),
    "presence that args deny": (MANIFEST, 'when = "has_residual", ', "",
        "kernels/x/kernel.toml:45: KP133 case num_tokens=1, hidden_size=64, group=4, dtype=bfloat16, has_residual=false: argument 'residual' is given by [args], and not by axis 'has_residual'; its 'when' must agree with the axis",
        "kernels/x/kernel.toml:49: KP133 case num_tokens=0, hidden_size=8, group=4, dtype=float32, has_residual=false: argument 'residual' is given by [args], and not by axis 'has_residual'; its 'when' must agree with the axis"),
    "case that divides by zero": (MANIFEST,
        '"hidden_size // group", "group"]', '"hidden_size // (num_tokens - 1)"]',
        "kernels/x/kernel.toml:45: KP133 case num_tokens=1, hidden_size=64, group=4, dtype=bfloat16, has_residual=true: 'hidden_size // (num_tokens - 1)' of argument 'residual' divides by zero"),
    "case with a size below zero": (MANIFEST, '"hidden_size // group", "group"]', '"hidden_size - 100"]',
        "kernels/x/kernel.toml:45: KP133 case num_tokens=1, hidden_size=64, group=4, dtype=bfloat16, has_residual=true: 'hidden_size - 100' of argument 'residual' is -36, and cannot be below zero"),
    "axis of a grid that is not defined": (MANIFEST,
        "num_tokens = [0, 3]", "num_tokens = [0, 3]\nnum_token = [1]",
        "kernels/x/kernel.toml:53: KP140 axis 'num_token' is not defined in [axes]; did you mean 'num_tokens'?"),
    "axis of a default that is not defined": (MANIFEST,
        "default = { group = 4,", "default = { groups = 4, group = 4,",
        "kernels/x/kernel.toml:44: KP140 axis 'groups' is not defined in [axes]; did you mean 'group'?"),
    "axis in grid and row": (MANIFEST,
        "rows = [{ has_residual = true }, {}]", "rows = [{ num_tokens = 4 }, {}]",
        "kernels/x/kernel.toml:48: KP140 axis 'num_tokens' is in the grid and in one of its rows; remove one"),
    "case that lacks an axis": (MANIFEST, "num_tokens = [0, 3]\n", "",
        "kernels/x/kernel.toml:49: KP141 cases have no value for axis 'num_tokens'; give it in the grid or in [inputs] default"),
    "case that a guard refuses": (MANIFEST, "hidden_size = [64, 128]", "hidden_size = [64, 126]",
        "kernels/x/kernel.toml:45: KP142 case num_tokens=1, hidden_size=126, group=4, dtype=bfloat16, has_residual=true: guard 'hidden_size % group == 0' refuses it; change the case or the guard"),
    "guard that divides by zero": (MANIFEST, "hidden_size % group == 0", "hidden_size % num_tokens >= 0",
        "kernels/x/kernel.toml:49: KP142 case num_tokens=0, hidden_size=8, group=4, dtype=float32, has_residual=false: guard 'hidden_size % num_tokens >= 0' divides by zero; change the case or the guard"),
    "case that no call reaches": (MANIFEST, 'match = "ceil"', 'match = "ignore"',
        "kernels/x/kernel.toml:45: KP143 case num_tokens=16, hidden_size=64, group=4, dtype=bfloat16, has_residual=true would be tuned, but no call could reach it (nor 3 others); change the case or the rules"),
    "no cases": (MANIFEST,
        '[[inputs.grid]]\nhidden_size = [64, 128]\nnum_tokens = [1, 16]\nrows = [{ has_residual = true }, {}]\n[[inputs.grid]]\nuse = ["test"]\nhidden_size = [8]\nnum_tokens = [0, 3]\ndtype = ["float32"]\n',
        "",
        "kernels/x/kernel.toml:43: KP144 [inputs] has no cases; add an [[inputs.grid]]"),
    "axis that the inputs deny": (MANIFEST, 'hidden_size = "input.shape[1]"', 'hidden_size = "input.shape[1] // 2 * 2 + 1"',
        "kernels/x/kernel.toml:45: KP145 case num_tokens=1, hidden_size=64, group=4, dtype=bfloat16, has_residual=true: its inputs have hidden_size=65; correct the case",
        "kernels/x/kernel.toml:49: KP145 case num_tokens=0, hidden_size=8, group=4, dtype=float32, has_residual=false: its inputs have hidden_size=9; correct the case"),
    "value of another type": (MANIFEST, "num_tokens = [0, 3]", "num_tokens = [0, 3.5, true]",
        "kernels/x/kernel.toml:52: KP146 axis 'num_tokens' has value 3.5, which is a number, and must be a whole number",
        "kernels/x/kernel.toml:52: KP146 axis 'num_tokens' has value true, which is true or false, and must be a whole number"),
    "value that is not a dtype": (MANIFEST, 'dtype = ["float32"]', 'dtype = ["float23"]',
        "kernels/x/kernel.toml:53: KP146 axis 'dtype' has value 'float23', which is not a dtype; did you mean 'float32'?"),
    "too many cases": (MANIFEST, "num_tokens = [0, 3]", "num_tokens = [" + "0, " * 20000 + "]",
        "kernels/x/kernel.toml:43: KP147 [inputs] has 20008 cases, and may have 10000; make the grids smaller"),
    "setting of kernelpkg": (MANIFEST,
        'ignore_warnings = ["TensorOperationInWrapper"]', "static_shapes = true",
        "kernels/x/kernel.toml:16: KP150 setting 'static_shapes' is made from the rules by kernelpkg; remove it"),
    "size below zero": (MANIFEST, "num_tokens = [0, 3]", "num_tokens = [-1, 3]",
        "kernels/x/kernel.toml:49: KP133 case num_tokens=-1, hidden_size=8, group=4, dtype=float32, has_residual=false: 'num_tokens' of argument 'input' is -1, and cannot be below zero",
        "kernels/x/kernel.toml:49: KP133 case num_tokens=-1, hidden_size=8, group=4, dtype=float32, has_residual=false: 'num_tokens' of argument 'out' is -1, and cannot be below zero"),
    "default config that no GPU runs": (MANIFEST,
        "num_warps = 4", "num_warps = 3, num_warpz = 4, pid_type = \"bogus\"",
        "kernels/x/kernel.toml:17: KP152 default config has no field 'num_warpz'; did you mean 'num_warps'?",
        "kernels/x/kernel.toml:17: KP152 default config has num_warps = 3; it must be a power of two from 1 to 32",
        "kernels/x/kernel.toml:17: KP152 default config has pid_type = 'bogus'; it must be one of 'flat', 'xyz', 'persistent_blocked', 'persistent_interleaved'"),
    "default config with lists": (MANIFEST, "num_warps = 4", "range_unroll_factors = [4]",
        "kernels/x/kernel.toml:17: KP152 default config has a list in 'range_unroll_factors'; use only scalars and block_sizes, as other lists fit one set of given arguments"),
    "specialised axes that are none": (MANIFEST,
        "num_warps = 4 }", "num_warps = 4 }\nspecialize = ['hidden', 'dtype', 'group', 'group']",
        "kernels/x/kernel.toml:18: KP154 specialize names axis 'dtype', which is a dtype, and must be a whole number; name sizes and numbers",
        "kernels/x/kernel.toml:18: KP154 specialize names axis 'group' twice; remove one",
        "kernels/x/kernel.toml:18: KP154 specialize names axis 'hidden', which is not defined in [axes]; did you mean 'hidden_size'?"),
    "pack of another file": (PACK, 'name = "good"', 'name = "best"',
        "manifests/good.toml:4: KP101 pack is named 'best', its file 'good'; give both the same name"),
    "namespace that is a keyword": (PACK, 'namespace = "good"', 'namespace = "class"',
        "manifests/good.toml:6: KP101 'class' is a keyword of Python; choose another name"),
    "pack without kernels": (PACK, 'kernels = "*"', "kernels = []",
        "manifests/good.toml:8: KP601 the pack has no kernels; 'kernelpkg new NAME' writes one"),
    "kernels as a word": (PACK, 'kernels = "*"', 'kernels = "all"',
        "manifests/good.toml:8: KP012 'kernels' must be '*', not 'all'"),
    "kernel named twice": (PACK, 'kernels = "*"', 'kernels = ["x", "x"]',
        "manifests/good.toml:8: KP602 kernel 'x' is named twice; name it once"),
    "route to an op that is not there": (PACK, '{ op = "x"', '{ op = "y"',
        "manifests/good.toml:18: KP603 route '_C::x' names op 'y', which the pack does not have; it has x"),
    "vllm requires no version": (PACK, "[vllm.routes]", '[vllm]\nrequires = "0.33"\n[vllm.routes]',
        "manifests/good.toml:18: KP608 '0.33' is not a version specifier such as '>=0.33,<0.34'"),
    "vllm axes of a kernel that is not there": (PACK,
        "[vllm.routes]", '[vllm.axes]\ny = { numtokens = "num_tokens" }\n[vllm.routes]',
        "manifests/good.toml:18: KP603 names axes of kernel 'y', which the pack does not have; it has x"),
    "route of no native op": (PACK, '"_C::x"', '"_C.x"',
        "manifests/good.toml:18: KP013 '_C.x' must be a native op, as in '_C::name'"),
    "route with conditions on calls that it never takes": (PACK,
        "capture_only = true", 'capture_only = true, eager = ["num_tokens > 1024"]',
        "manifests/good.toml:18: KP609 route '_C::x' has conditions on eager calls, but takes none (capture_only); remove one of the two"),
    "route with a wrong expression": (PACK, "num_tokens <= 512", "num_tokens <= max(512)",
        "manifests/good.toml:18: KP120 expression 'num_tokens <= max(512)' uses 'max(512)', which is not in the language"),
    "unknown key of a pack": (PACK, 'variants = "together"', 'variant = "together"',
        "manifests/good.toml:12: KP010 key 'variant' is not known in [platforms]; did you mean 'variants'?"),
    "routes as a number": (PACK,
        '[vllm.routes]\n"_C::x" = { op = "x", when = ["num_tokens <= 512"], capture_only = true }\n',
        "[vllm]\nroutes = 1\n",
        "manifests/good.toml:18: KP012 'routes' must be a table, not a whole number (1)"),
}


@pytest.fixture
def root(tmp_path):
    """A copy of the good pack."""
    shutil.copytree(GOOD, tmp_path / "good")
    return tmp_path / "good"


def edit(root, file, old, new):
    path = root / file
    text = path.read_text()
    assert text.count(old) >= 1, f"{old!r} is not in {file}"
    path.write_text(text.replace(old, new, 1))


def problems(root, *, pack=False):
    """Return the lines that reading reports."""
    with pytest.raises(PackError) as caught:
        read_pack(root, "good") if pack else read_kernel(root, "x")
    return str(caught.value).split("\n")


def test_the_good_pack_is_good():
    """What the edits below break is read without a problem, and by its own name."""
    assert kernel_names(GOOD) == ("x",)
    assert read_kernel(GOOD, "x").name == "x"
    assert read_pack(GOOD, "good").kernels == ("x",)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_reported_word_for_word(root, name):
    """One wrong thing gives its line, with place, code, problem and remedy."""
    file, old, new, *lines = EDITS[name]
    edit(root, file, old, new)
    assert problems(root, pack=file == PACK) == lines


RESULTS = {
    "": ["61: KP109 'return' is written by the op and has no [accuracy]; say how close it must be"],
    '"return[1]" = {}': [
        "61: KP109 'return[0]' is written by the op and has no [accuracy]; say how close it must be"],
    'return = {}\n"return[2]" = {}': [
        "63: KP109 'return[2]' is not written by the op; did you mean 'return[1]'?"],
    '"return[0]" = {}\n"return[1]" = {}\nreturn = {}': [
        "64: KP109 'return' has no effect, because each result has its own entry; remove it, or one of those"],
    'return = {}\n"return[x]" = {}': [
        "63: KP013 'return[x]' must be an argument, 'return', or 'return[0]' for one of several results"],
}


@pytest.mark.parametrize("lines", RESULTS)
def test_each_result_has_one_entry(root, lines):
    """Its own, or that of all results that have none; an entry that says nothing is an error."""
    entries = f"[accuracy]\n{lines}\n"
    edit(root, MANIFEST, " -> ()", " -> (Tensor, Tensor)")
    edit(root, MANIFEST, 'fake_impl = "none"', 'fake_impl = "infer"')
    edit(root, KERNEL, "-> None", "-> tuple[torch.Tensor, torch.Tensor]")
    edit(root, MANIFEST, "[accuracy]\n", entries)
    assert problems(root) == [f"{MANIFEST}:{line}" for line in RESULTS[lines]]
    edit(root, MANIFEST, entries, '[accuracy]\n"return[1]" = {}\nreturn = {}\n')
    assert read_kernel(root, "x").accuracy.keys() == {"return[1]", "return", "out"}


def test_a_scalar_without_value(root):
    """A scalar without default, entry or axis cannot be given."""
    edit(root, MANIFEST, "float factor=2.0, int group=4", "float factor, int group")
    edit(root, KERNEL, "factor: float = 2.0", "factor: float")
    edit(root, KERNEL, "group: int = 4", "group: int")
    edit(root, MANIFEST, "\nfactor = 2.0\n", "\n")
    assert problems(root) == [
        "kernels/x/kernel.toml:55: KP130 argument 'factor' is not given in [args]; "
        "give a value, or an axis of its name"
    ]


def test_all_problems_come_in_one_run_in_the_order_of_lines(root):
    """Mistakes of every stage are told together, sorted, and each once."""
    edit(root, MANIFEST, 'name = "x"', 'name = "y"')
    edit(root, MANIFEST, "host.py:reference", "host.py:refrence")
    edit(root, MANIFEST, "num_warps = 4", "range_unroll_factors = [4]")
    edit(root, MANIFEST, 'group = "group"', 'group = "groups"')
    edit(root, MANIFEST, "max = 0.5", 'over = "miss"')
    edit(root, MANIFEST, "num_tokens = [0, 3]", "num_tokens = [0, 3.5]")
    edit(root, MANIFEST, "rtol = 1e-2", "rtoll = 1e-2")
    edit(root, HOST, "import torch", "import jax")
    expected = [
        "kernels/x/host.py:3: KP113 imports 'jax'; this file may import torch and the standard "
        "library, so that the kernel stays one directory",
        "kernels/x/kernel.toml:4: KP101 kernel is named 'y', its directory 'x'; "
        "give both the same name",
        "kernels/x/kernel.toml:8: KP112 'host.py:refrence': kernels/x/host.py has no function "
        "'refrence' at its top level; did you mean 'reference'?",
        "kernels/x/kernel.toml:17: KP152 default config has a list in 'range_unroll_factors'; "
        "use only scalars and block_sizes, as other lists fit one set of given arguments",
        "kernels/x/kernel.toml:22: KP108 'group' is an argument and an axis that means 'groups'; "
        "give the axis another name",
        "kernels/x/kernel.toml:22: KP121 expression 'groups': name 'groups' is not known here; "
        "did you mean 'group'?",
        "kernels/x/kernel.toml:35: KP105 'over' has no effect with match 'nearest'; "
        "it goes with 'ceil' and 'pow2'",
        "kernels/x/kernel.toml:52: KP146 axis 'num_tokens' has value 3.5, which is a number, "
        "and must be a whole number",
        "kernels/x/kernel.toml:62: KP010 key 'rtoll' is not known in [accuracy.out]; "
        "did you mean 'rtol'?",
    ]
    assert problems(root) == expected
    assert problems(root) == expected


def test_a_manifest_that_is_not_there(root):
    """The path is told, and why it cannot be read."""
    (root / MANIFEST).unlink()
    assert problems(root) == [
        "kernels/x/kernel.toml: KP001 cannot be read: No such file or directory"
    ]


def test_a_directory_in_place_of_a_manifest(root):
    """A directory cannot be read as a file."""
    (root / PACK).unlink()
    (root / PACK).mkdir()
    assert problems(root, pack=True) == [
        "manifests/good.toml: KP001 cannot be read: Is a directory"
    ]


def test_a_directory_in_place_of_a_source(root):
    """The key that refers to it is named."""
    (root / HOST).unlink()
    (root / HOST).mkdir()
    assert problems(root) == [
        "kernels/x/kernel.toml:8: KP111 'host.py:reference': kernels/x/host.py cannot be read: "
        "Is a directory; write it, or correct 'reference'"
    ]


def refuse(monkeypatch, file):
    """Let reading one file fail as for want of permission; root may read everything."""
    read = Path.read_bytes

    def read_bytes(path):
        if path.name == file:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


def test_no_permission_for_a_manifest(root, monkeypatch):
    """What the system says is told."""
    refuse(monkeypatch, "kernel.toml")
    assert problems(root) == ["kernels/x/kernel.toml: KP001 cannot be read: Permission denied"]


def test_no_permission_for_a_source(root, monkeypatch):
    """Other problems of the manifest are told nevertheless."""
    refuse(monkeypatch, "kernel.py")
    edit(root, MANIFEST, "[accuracy]\nout", "[accuracy]\ninput")
    assert problems(root) == [
        "kernels/x/kernel.toml:7: KP111 'kernel.py:x': kernels/x/kernel.py cannot be read: "
        "Permission denied; write it, or correct 'source'",
        "kernels/x/kernel.toml:61: KP109 'out' is written by the op and has no [accuracy]; "
        "say how close it must be",
        "kernels/x/kernel.toml:62: KP109 'input' is not written by the op; it writes out",
    ]


def test_bytes_that_are_not_utf_8(root):
    """The line of the first wrong byte is told."""
    path = root / MANIFEST
    path.write_bytes(path.read_bytes().replace(b"plus a", b"plus \xe4"))
    assert problems(root) == ["kernels/x/kernel.toml:6: KP003 is not UTF-8; TOML files are"]


def test_links_to_a_store(root):
    """Caches and installers lay every file as a link to where all of them are kept."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        (root.parent / f"{root.name}_store").mkdir(exist_ok=True)
        kept = root.parent / f"{root.name}_store" / digest_bytes(path.read_bytes())
        os.rename(path, kept)
        path.symlink_to(kept)
    assert read_kernel(root, "x").name == "x"
    assert read_pack(root, "good").kernels == ("x",)


def test_links_in_a_circle(root):
    """A circle of links is an error like any other."""
    (root / HOST).unlink()
    (root / HOST).symlink_to("loop.py")
    (root / "kernels/x/loop.py").symlink_to("host.py")
    assert problems(root) == [
        "kernels/x/kernel.toml:8: KP111 'host.py:reference': kernels/x/host.py cannot be read: "
        "Too many levels of symbolic links; write it, or correct 'reference'"
    ]


def test_a_kernel_directory_may_be_a_link(root):
    """What counts is where the files lie in relation to their directory."""
    os.rename(root / "kernels/x", root / "real")
    (root / "kernels/x").symlink_to(root / "real")
    assert read_kernel(root, "x").name == "x"


def test_a_pack_without_any_kernel_directory(root):
    """'*' names nothing where there is nothing."""
    shutil.rmtree(root / "kernels")
    assert problems(root, pack=True)[0] == (
        "manifests/good.toml:8: KP601 the pack has no kernels; 'kernelpkg new NAME' writes one"
    )


def test_a_half_written_kernel_is_not_seen(root):
    """`kernelpkg new` writes into a hidden directory first."""
    shutil.copytree(root / "kernels/x", root / "kernels/.y.tmp")
    assert kernel_names(root) == ("x",)


def test_a_problem_of_a_manifest_read_before_has_its_line(root):
    """Later stages report by key, and the line is found."""
    spec = read_kernel(root, "x")
    problem = problem_at(spec, "KP151", "requires more", "helion", "requires")
    assert str(problem) == "kernels/x/kernel.toml:15: KP151 requires more"


MANIFEST_SIDE = (
    "packs/read", "packs/sources", "packs/tensor_use", "expr/types", "expr/language",
    "manifest/backward", "manifest/cases", "manifest/decode", "manifest/document", "manifest/keys", "manifest/kernel",
    "manifest/opschema", "manifest/validate",
)  # fmt: skip


def codes_of(text):
    return set(re.findall(r"\bKP\d{3}\b", text))


def test_every_code_of_manifests_has_a_golden_line():
    """A code that this side of the package can report is held by a test of this directory."""
    package = ROOT / "kernelpkg"
    known = {c for name in MANIFEST_SIDE for c in codes_of((package / f"{name}.py").read_text())}
    told = {code for path in Path(__file__).parent.glob('*.py') for code in codes_of(path.read_text())}
    assert len(known) > 30
    assert known - told == set()


def test_every_code_of_the_source_is_documented():
    """cli/codes.toml has an entry for each code that occurs, and for no other."""
    known = {c for path in (ROOT / "kernelpkg").rglob("*.py") for c in codes_of(path.read_text())}
    assert sorted(known) == list(codes())


def test_the_page_has_the_codes_of_the_package():
    """docs/reference/errors.md has them all, in their order; `make docs` writes it again."""
    written = SimpleNamespace(**runpy.run_path(str(ROOT / "docs/reference/errors.py")))
    assert written.PAGE.read_text(encoding="utf-8") == written.page()
    assert re.findall(r"^### (KP\d{3})$", written.page(), re.M) == list(codes())


def test_no_permission_for_the_kernels(root, monkeypatch):
    """A directory that cannot be read is not one without kernels."""

    def listdir(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(PackError) as caught:
        kernel_names(root)
    assert str(caught.value) == (
        "kernels: KP001 directory cannot be read: Permission denied; correct its permissions"
    )
