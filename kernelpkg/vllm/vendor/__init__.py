"""A pack as files of vLLM's own Helion folder, which need nothing of kernelpkg.

    vendor          `kernelpkg vendor`: all is worked out and checked, then written
    pyfile          a Python file, read and not run
    op_code         Python as text, laid out as `ruff format` would
Inside only:
    files           what becomes of each file of the tree, and the record of it
    vendorrecord    the record of what was written, by which edits are told
    op_file         one kernel as one file
    opaccuracy      [accuracy] as what Helion's autotuner compares with
    op_picker       rules as data, and the picker that all ops share
    oprules         rules as the statements of a picker
    op_inputs       grids and [args] as input generators
    optensors       [args] as tensors of a call
    op_configs      the store as vLLM's config files
    op_sources      what is taken over from a kernel's files
    op_sizes        sizes that are 1 in some calls, and cases that both would reach
    fixedsizes      sizes that a kernel fixes
    exprcode        expressions as Python that people read
"""
