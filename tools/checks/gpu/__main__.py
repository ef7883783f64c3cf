"""Run `tools.checks.gpu.run`."""

import sys

from tools.checks.gpu.run import main

sys.exit(main())
