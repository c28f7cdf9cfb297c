"""`python -m kernelpkg`."""

from kernelpkg.cli import main

raise SystemExit(main())
