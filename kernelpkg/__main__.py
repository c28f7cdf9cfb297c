"""`python -m kernelpkg`."""

from kernelpkg.cli.program import main

raise SystemExit(main())
