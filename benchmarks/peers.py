"""Libraries that may or may not be here."""

import importlib
import importlib.util


def library(name: str):
    """The module, or None if it is not installed."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        return None
    return importlib.import_module(name)
