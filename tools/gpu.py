"""The name under which scripts prepared for machines with a GPU import from `tools.checks.gpu`."""

import sys

import tools.checks.gpu

sys.modules[__name__] = tools.checks.gpu
