"""Run the command line with `python -m jr_onnx`."""

from jr_onnx.cli import main

main()
