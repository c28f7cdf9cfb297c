"""Configs searched, measured and kept, over hours that may be interrupted.

    run              a run as a whole: plan, jobs, results, report
    plan             which cases, in which order, from which seeds
    tune_op          the tuning of one op: what is asked, and what comes back
    results          a row for each op, and the config file that is written
    saved_results    every result as it comes, in SQLite
Inside only:
    worker           one case in a worker: search, compare, time
    choose           which config is kept, and how few serve many cases
"""
