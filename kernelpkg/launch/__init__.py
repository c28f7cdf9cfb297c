"""A recorded launch on a GPU: look-up by signature, pointers, launch; in C where it was compiled.

    classes     which calls share compiled code
    host        what the host part of a kernel launches with, for one signature
    code        a compiled kernel: what it was compiled for, and launches of it
    native      which launcher is used, in C or in Python, and why
    driver      libcuda.so.1: kernels loaded and launched, and the errors of both
Inside only:
    calls       the calls of an op: what each signature launches, and how often it was called
    recorded    one launch, with the pointers of the call at hand
"""
