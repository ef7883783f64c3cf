"""Put the results of all commands into one report: runs of attacks, and whatever else was measured of the model."""

from jr_onnx.results.files import gather, section_of, write_report

__all__ = ["gather", "section_of", "write_report"]
