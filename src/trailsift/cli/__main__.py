"""Run the command line: ``python -m trailsift.cli``."""

import sys

from trailsift.cli import main

sys.exit(main())
