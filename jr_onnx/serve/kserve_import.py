"""Import kserve without what it does on import: it parses the command line of the process as if it were its own."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

from jr_onnx.errors import require


def kserve_module(name: str) -> ModuleType:
    """Import a module of kserve, which must not see the arguments of `jr-onnx serve`.

    Args:
        name: Dotted name, for instance `"kserve.model_server"`.

    Raises:
        MissingExtraError: kserve is not installed.
    """
    arguments, sys.argv = sys.argv, sys.argv[:1]
    logger = logging.getLogger("kserve")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())  # else kserve sets up logging for the whole process
    try:
        return require(name, "serve")
    finally:
        sys.argv = arguments
