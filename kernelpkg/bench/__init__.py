"""One case: its inputs, its agreement with the reference, its time.

    reference     inputs of a case, and an op held against its reference
    timing        times of launches in turns, with a cold L2
    stand_ins     the arguments of a case without values
    gpu           the GPU that ops run on, asked without starting CUDA where that works
Inside only:
    properties    what holds of outputs that no reference computes
"""
