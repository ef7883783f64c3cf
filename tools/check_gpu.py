"""The name under which scripts prepared for machines with a GPU call `tools.checks.gpu`."""

from tools.checks.gpu.run import main

if __name__ == "__main__":
    raise SystemExit(main())
