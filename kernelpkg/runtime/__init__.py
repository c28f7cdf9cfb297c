"""From a pack to ops, and from a call to a launch.

    load                `kernelpkg.load`: find, read, check all, register all, report
    prepare             one kernel made ready, and what its report says
    register            the registry of kernels, and `register_kernel`
    torch_ops           ops put into PyTorch and taken back; the device of this process
    dispatch            a call by its signature: one look-up, or the first launch
    warm                ops made ready before the calls that count
Inside only:
    without_manifest    what a kernel without a manifest takes, and its configs
    backend             what runs a call: a build's code, Helion's compiler, or its interpreter
    prebuilt            the code that a build has for one kernel
"""
