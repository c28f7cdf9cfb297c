"""A Helion function and a config to code, here or for a GPU that is absent.

    helion         Helion called with configs of ours: the one module that knows how
    settings       Helion's settings of a kernel, checked; a kernel of Helion's with them
    host_code      what a Helion function does around its loops; fake implementations
    needed         what of a Helion function its result needs, told from its tree
    bind           a kernel bound on the CPU as for a GPU
    variants       which calls of a kernel need code of their own
    search         Helion's autotuner: one case, seeds, a budget
    units          what is compiled of a kernel: each config, for each class of its calls
    build          a pack compiled ahead for a platform
    code           the compiled code of a kernel in this process, by config and class
    cubin          Triton code to a binary: what it is, and what it needs of a GPU
Inside only:
    absent_gpu     what Helion and kernels ask of a GPU, answered for one that is not here
    interpreter    Helion's interpreter: what it lacks, and what is made for it
    granted        what code takes for granted of its calls
"""
