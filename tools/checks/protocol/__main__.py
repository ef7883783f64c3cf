"""Run `tools.checks.protocol.run`."""

import sys

from tools.checks.protocol.run import main

sys.exit(main())
