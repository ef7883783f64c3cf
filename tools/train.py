"""The name under which scripts prepared for machines with a GPU call `tools.training.train`."""

from tools.training.train import main

if __name__ == "__main__":
    raise SystemExit(main())
