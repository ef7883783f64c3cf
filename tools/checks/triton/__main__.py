"""Run `tools.checks.triton.run`."""

import sys

from tools.checks.triton.run import main

sys.exit(main())
