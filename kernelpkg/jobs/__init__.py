"""Jobs on devices: each is done in a process that may hang, crash or lose its GPU.

    pool        hands jobs to the workers of this host; every job has an outcome
    worker      one worker of this host: a process, and the messages between it and the pool
    ray_pool    `run_jobs` for a Ray cluster of several hosts
    ahead       items made by a thread before they are asked for
Inside only:
    job         a job, its outcome, and series of jobs
    reaper      what runs around a worker, so that nothing it starts outlives it
    gpus        the GPUs and cores that a process may use
"""
