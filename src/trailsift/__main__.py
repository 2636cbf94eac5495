"""Run the command line: ``python -m trailsift``."""

import sys

from trailsift.cli import main

if __name__ == "__main__":
    sys.exit(main())
