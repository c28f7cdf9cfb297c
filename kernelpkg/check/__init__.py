"""Checks of a pack, in four levels, each a list of problems.

    level0          reads all files, without torch; also puts the levels together
    level1          binds every variant with Helion on the CPU, and holds configs against it
    level2          compiles what a build has, for GPUs that need not be here, and judges it
    level3          runs every tuned case, and calls around them, against the reference
    config_files    config files as level 0 sees them: strangers, copies, and those that lack
Inside only:
    tuned_cases     their cases against the kernel: real calls, of the grid, reached, not ragged
    provenance      what they say of how they were tuned
    config_fit      one config against what its variants bind to, for level 1
    run_plan        which calls level 3 makes, and which it cannot
    off_grid        the calls around tuned cases
    causes          many cases of one cause as one finding
"""
