"""Jobs on devices: each is done in a process that may hang, crash or lose its GPU.

`pool`        hands jobs to workers; every job has an outcome. `schedule`, `run_jobs` for this host
`process`     one worker of this host: a process, and the messages between it and the pool
`ray_pool`    `run_jobs` for a Ray cluster of several hosts
`job`         a job, its outcome, and series of jobs
`supervisor`  what runs around a worker, so that nothing it starts outlives it
`gpus`        the GPUs that a process may use

The first three are for other rooms.
"""
