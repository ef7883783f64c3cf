"""The name and the options under which scripts prepared for machines with a GPU call `tools.checks.gpu`."""

import sys

from tools.checks.gpu.run import main

if __name__ == "__main__":
    sys.exit(main([{"--json": "--output"}.get(word, word) for word in sys.argv[1:]]))
