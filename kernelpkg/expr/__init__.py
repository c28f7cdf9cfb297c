"""The expression language of manifests: a text, its checked tree, its function.

    language     parses a text, refuses what is not of the language, compiles the rest
    types        what each name stands for, and what a value may be used as
    intervals    which values an expression can have over a range; for coverage and checks
Inside only: none.
"""
