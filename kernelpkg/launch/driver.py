"""The NVIDIA driver: kernels loaded from cubins, and launched, through libcuda.so.1.

It is opened when it is first needed, and a process without a GPU never opens it. CUDA's numbers and
structures are those of cuda.h, 12.0 and later.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_uint, c_void_p
from typing import Any, Final

from kernelpkg.errors import KernelpkgError
from kernelpkg.locks import make_lock

LIBRARY: Final = "libcuda.so.1"

PLAIN_SHARED: Final = 48 * 1024
"""The bytes of shared memory that a block gets without asking for more."""

_ELF: Final = struct.Struct("<32x 2Q 6x 4H 2x")
"""Of an ELF header: where both tables are, and how many entries of which size they have."""

_RELAXED: Final = 2  # CU_STREAM_CAPTURE_MODE_RELAXED
_STATIC_SHARED: Final = 1  # CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES
_DYNAMIC_SHARED: Final = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_MOST_SHARED: Final = 97  # CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
_PREFER_SHARED: Final = 1  # CU_FUNC_CACHE_PREFER_SHARED
_NO_CONTEXT: Final = 201  # CUDA_ERROR_INVALID_CONTEXT
_OUT_OF_RESOURCES: Final = 701  # CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES

_EARLIER = "a kernel before this one failed; find it with CUDA_LAUNCH_BLOCKING=1, and restart"
_REMEDIES: Final = {
    1: "the grid, the threads or the shared memory are more than this GPU takes",
    2: "the GPU's memory is full; free some of it",
    3: "call a function of torch.cuda first",
    4: "the process is ending; launch earlier",
    100: "no GPU is visible; look at CUDA_VISIBLE_DEVICES",
    200: "the binary is damaged; build it again",
    201: "call a function of torch.cuda first",
    209: "the binary is for another GPU; build it for this one",
    218: "the binary is damaged; build it again",
    222: "the driver is older than what made the binary; update the driver",
    500: "the binary has another kernel; build it again",
    700: _EARLIER,
    701: "it needs more registers or shared memory than this GPU has; choose a smaller config",
    702: _EARLIER,
    710: _EARLIER,
    714: _EARLIER,
    715: _EARLIER,
    716: _EARLIER,
    717: _EARLIER,
    718: _EARLIER,
    719: _EARLIER,
    803: "the driver and its library differ in version; restart the machine",
    900: "a stream that is captured takes no such call; capture on a stream of its own",
    901: "the capture was ended by an earlier error; capture again",
}


class LaunchError(KernelpkgError):
    """The driver refused to load or to launch a kernel; the next call starts afresh."""


class OutOfResources(LaunchError):
    """A kernel needs more shared memory or registers than the GPU has."""


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute: its number, and a union of 64 bytes."""

    _fields_ = (("id", c_int), ("_padding", ctypes.c_char * 4), ("value", ctypes.c_ubyte * 64))


class _Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared", c_uint),
        ("stream", c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("attribute_count", c_uint),
    )


def make_attributes(attributes: Sequence[tuple[int, int]]) -> Any:
    """Return the launch attributes as the driver reads them; a value fills its union from below.

    Raises OverflowError for a value that is negative or longer than 64 bytes.
    """
    made = (_Attribute * len(attributes))()
    for target, (number, value) in zip(made, attributes, strict=True):
        target.id = number
        target.value[:] = value.to_bytes(64, "little")
    return made


def failure(step: str, code: int, name: str) -> LaunchError:
    """Return the error of a call of the driver that failed; both launchers raise it.

    Args:
        step: What was tried, as "a kernel cannot be launched".
        code: What the driver returned.
        name: What the driver calls that, as "CUDA_ERROR_INVALID_VALUE".

    Returns:
        OutOfResources where a smaller config would run, LaunchError for anything else.
    """
    kind = OutOfResources if code == _OUT_OF_RESOURCES else LaunchError
    remedy = _REMEDIES.get(code, "CUDA's manual of the driver says what it means")
    return kind(f"{step}: {name or 'an unknown error'} ({code}); {remedy}")


def _is_whole(image: bytes) -> bool:
    """Whether a cubin has its header, that of a 64-bit ELF, and the tables that this names."""
    if len(image) < _ELF.size or not image.startswith(b"\x7fELF\x02"):
        return False
    programs, sections, program_size, program_count, size, count = _ELF.unpack_from(image)
    end: int = max(programs + program_size * program_count, sections + size * count)
    return end <= len(image)


class Driver:
    """An open driver. Raises LaunchError where there is none, or where it is too old."""

    def __init__(self, path: str = LIBRARY) -> None:
        try:
            # Its functions are called without the GIL, so that a launch that waits for the GPU
            # holds up no other thread.
            self._library = ctypes.CDLL(path)
        except OSError as error:
            raise LaunchError(f"no NVIDIA driver: {error}; install one, or use a CPU") from None
        self._contexts: dict[int, c_void_p] = {}
        self._lock = make_lock()
        self._check("the driver cannot be started", self._function("cuInit")(c_uint(0)))
        self._launch = self._function("cuLaunchKernelEx")
        self._launch.argtypes = [ctypes.POINTER(_Config), c_void_p, c_void_p, c_void_p]
        self._device = self._function("cuCtxGetDevice")

    def load_kernel(
        self, image: bytes, name: str, shared: int = 0, *, device: int | None = None
    ) -> int:
        """Load a kernel for all devices of this process; legal while a graph is captured.

        Args:
            image: A cubin.
            name: The kernel in it.
            shared: The bytes of dynamic shared memory that its launches ask for.
            device: The GPU that must have so much; None, if any of them has.

        Returns:
            Its handle, which stays valid until the process ends.

        Raises:
            OutOfResources: It needs more shared memory than the GPU has.
            LaunchError: The driver refuses it.
        """
        step = f"kernel '{name}' cannot be loaded"
        if not _is_whole(image):  # the driver would read on behind its end
            raise LaunchError(f"{step}: the binary is damaged; build it again")
        library, kernel = c_void_p(), c_void_p()
        load = self._function("cuLibraryLoadData")
        find = self._function("cuLibraryGetKernel")
        with self._relaxed_capture(step):
            none = (None, None, c_uint(0))
            self._check(step, load(byref(library), c_char_p(image), *none, *none))
            try:
                self._check(step, find(byref(kernel), library, c_char_p(name.encode())))
                if shared > PLAIN_SHARED:
                    self._allow_shared(name, kernel, shared, device)
            except LaunchError:
                self._function("cuLibraryUnload")(library)
                raise
        assert kernel.value is not None
        return kernel.value

    def _allow_shared(self, name: str, kernel: c_void_p, shared: int, device: int | None) -> None:
        """Let launches ask for more than 48 KB of shared memory, on every GPU that has so much."""
        step = f"kernel '{name}' cannot be given {shared} bytes of shared memory"
        count = c_int()
        self._check(step, self._function("cuDeviceGetCount")(byref(count)))
        most: dict[int, int] = {}
        for index in range(count.value):
            optin, static = c_int(), c_int()
            get = self._function("cuDeviceGetAttribute")
            self._check(step, get(byref(optin), c_int(_MOST_SHARED), c_int(index)))
            of_kernel = self._function("cuKernelGetAttribute")
            code = of_kernel(byref(static), c_int(_STATIC_SHARED), kernel, c_int(index))
            if code and index != device and count.value > 1:
                continue  # the binary is not for this one of several GPUs
            self._check(step, code)
            most[index] = optin.value - static.value
            if shared <= most[index]:
                # As Triton does: the shared memory of a kernel that needs much comes first.
                prefer = self._function("cuKernelSetCacheConfig")
                self._check(step, prefer(kernel, c_int(_PREFER_SHARED), c_int(index)))
                allow = self._function("cuKernelSetAttribute")
                what = (c_int(_DYNAMIC_SHARED), c_int(shared))
                self._check(step, allow(*what, kernel, c_int(index)))
        room = max(most.values(), default=0) if device is None else most.get(device, 0)
        if shared > room:
            raise OutOfResources(
                f"kernel '{name}' needs {shared} bytes of shared memory, and the GPU has {room} "
                "for it; choose a smaller config"
            )

    @contextmanager
    def _relaxed_capture(self, step: str) -> Iterator[None]:
        """Let this thread load while streams are captured: nothing that is loaded is captured."""
        exchange = self._function("cuThreadExchangeStreamCaptureMode")
        mode = c_int(_RELAXED)
        self._check(step, exchange(byref(mode)))
        try:
            yield
        finally:
            self._check(step, exchange(byref(mode)))

    def make_launch(
        self,
        kernel: int,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        attributes: Any,
        device: int,
    ) -> Callable[[Sequence[int], int], None]:
        """Return what launches a kernel, given the values of its parameters and a stream.

        `attributes` is what `make_attributes` returns; `device` is -1 where the context that is
        current will do.
        """

        def launch(values: Sequence[int], stream: int) -> None:
            count = len(values)
            slots = (ctypes.c_uint64 * count)(*values)
            start = ctypes.addressof(slots)
            pointers = (c_void_p * count)(*range(start, start + 8 * count, 8))
            config = _Config(
                (c_uint * 3)(*grid),
                (c_uint * 3)(threads, 1, 1),
                shared,
                stream,
                attributes,
                len(attributes),
            )
            with self._context(device):
                code = self._launch(byref(config), kernel, pointers, None)
            self._check("a kernel cannot be launched", code)

        return launch

    @contextmanager
    def _context(self, device: int) -> Iterator[None]:
        """Make the primary context of a device current, where another one is, or none."""
        step = f"device {device} cannot be used"
        current = c_int(-1)
        code = self._device(byref(current)) if device >= 0 else 0
        if code not in (0, _NO_CONTEXT):
            self._check(step, code)
        if device < 0 or (code == 0 and current.value == device):
            yield
            return
        context = self._primary_context(device, step)
        self._check(step, self._function("cuCtxPushCurrent_v2")(context))
        try:
            yield
        finally:
            self._function("cuCtxPopCurrent_v2")(byref(c_void_p()))

    def _primary_context(self, device: int, step: str) -> c_void_p:
        with self._lock:
            if device not in self._contexts:
                context = c_void_p()
                retain = self._function("cuDevicePrimaryCtxRetain")
                self._check(step, retain(byref(context), c_int(device)))
                self._contexts[device] = context
            return self._contexts[device]

    def _function(self, name: str) -> Any:
        try:
            return getattr(self._library, name)
        except AttributeError:
            raise LaunchError(
                f"driver too old: it has no {name}; update it to one of CUDA 12.0 or later"
            ) from None

    def _check(self, step: str, code: int) -> None:
        if code:
            text = c_char_p()
            self._function("cuGetErrorName")(c_int(code), byref(text))
            raise failure(step, code, (text.value or b"").decode())


_opened: Final[list[Driver]] = []
"""The driver of this process, once it was needed."""

_opening = make_lock()


def driver() -> Driver:
    """Return the driver of this process, which is opened at the first call."""
    if not _opened:
        with _opening:
            if not _opened:
                _opened.append(Driver())
    return _opened[0]


def open_driver(path: str = LIBRARY) -> None:
    """Open a driver, which is used from now on; for tests with one that only records.

    Raises LaunchError where it cannot be opened.
    """
    _opened[:] = [Driver(path)]


def load_kernel(image: bytes, name: str, shared: int = 0, *, device: int | None = None) -> int:
    """Load a kernel with the driver of this process; see `Driver.load_kernel`."""
    return driver().load_kernel(image, name, shared, device=device)
