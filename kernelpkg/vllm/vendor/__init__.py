"""A pack as files of vLLM's own Helion folder, which need nothing of kernelpkg.

    vendor        what a run does to a tree: worked out and checked first, and then written
    files         the record of a pack's files, and a step for each
Inside only:
    op_file       one kernel to one file: its parts, tolerances and registration
    op_picker     its rules and axes, and the file that all ops of a pack share
    op_shared     what that file is copied from; nothing imports it
    op_inputs     the inputs that vLLM tunes it with
    op_sources    what is taken over from the kernel's own files
    op_sizes      sizes that may be 1 or larger, and cases that both would reach
    op_configs    the store to config files of vLLM's
    op_guards     [args] and [guard] as asserts at the top of a vendored op
    op_code       code as text: expressions, and lines of 88 columns
"""
