"""From a pack to ops, and from a call to a launch.

    load                `kernelpkg.load`: find, read, check all, register all, report
    register            registered kernels, and where they are looked up
    without_manifest    `register_kernel`: an op of a Helion function alone
    torch_ops           ops put into PyTorch and taken back; the device of this process
    dispatch            a call by its signature: one look-up, or the first launch
    warm                ops made ready before the calls that count
    reports             what became of a load, for people and as JSON
Inside only:
    prepare             one kernel made ready
    backend             what runs a call: a build's code, Helion's compiler, or its interpreter
    prebuilt            the code that a build has for one kernel
    graphs              graphs of torch.compile: told apart by their ops, dropped when these change
    registry            which kernels are registered, by the names of their ops
    memory              what results and written arguments of a call may share
    gradients           what autograd calls of an op that has a backward
"""
