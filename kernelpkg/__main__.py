"""`python -m kernelpkg`."""

from kernelpkg.cli.program import run

run()
