"""One case: its inputs, its agreement with the reference, its time.

    inputs        the arguments of a case, with values
    reference     an op held against its reference
    timing        times of launches in turns, with a cold L2, and of the host's calls
    run           cases timed beside their baselines
    rows          what was measured of them
    intervals     a median, and the interval that it lies in
    history       runs that are kept, and one held against an earlier one
    table         rows and comparisons for people
    stand_ins     the arguments of a case without values
    gpu           the GPU that ops run on, asked without starting CUDA where that works
    gradients     gradients of an op held against those through its reference
Inside only:
    properties    what holds of outputs that no reference computes
    traffic       how many bytes a call has to move
"""
