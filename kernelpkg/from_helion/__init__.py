"""Out of Helion's own files: kernels and tuned configs, as those of a pack.

    kernel        a function of a Python file as the files of a kernel
    imports       files of Helion's autotuner into config files of a pack
Inside only:
    source        the function, its decorator, and what it needs of its file
    arguments     the annotations and defaults of a function as the arguments of an op
    sizes         which sizes of arguments are equal, and what they are called
    reading       what a function does with its arguments, read without running it
    manifest      the text of a first manifest
    arrays        tensors: what is done to them, and what that says of arguments
    calls         calls: what functions of Helion and PyTorch give
    values        what is known of a value, and what was found
    caches        what Helion's autotuner keeps: entries of its cache, configs of AOT runs
    heuristics    decision trees of its AOT autotuner, read and never run
    trees         a decision tree as tuned cases, if the rules of a kernel can say it
"""
