"""Tuned configs: where they lie, and which of them a call gets.

    store          one config file, read strictly and written atomically
    directories    in which directory the file of a kernel is looked for
    platforms      GPU names to platforms, and whose configs a GPU may borrow
    match          the match kinds: which tuned value a value gets
    picker         rules over tuned keys, compiled: a call to one key
    selection      the order of what a call may run with, tuned or not
    tuned_key      case keys as a function gets them that picks configs
    picked         the configs of a kernel without a manifest
    explain        the same in words, for one call
    samples        calls that stand for all that get the same
    transfer       config files that are to be written, planned as a whole
Inside only: none.
"""
