"""The name and the options under which scripts prepared for machines with a GPU call `tools.training.train`."""

import sys

from tools.training.train import main

if __name__ == "__main__":
    main([{"--out": "--output"}.get(word, word) for word in sys.argv[1:]])
