"""Libraries that may or may not be here."""

import functools
import importlib
import importlib.util
import shutil
import tempfile
from pathlib import Path


def library(name: str):
    """The module, or None if it is not installed."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        return None
    return importlib.import_module(name)


@functools.cache
def cython_loops():
    """loops.pyx, compiled into a temporary folder; None without Cython."""
    if library("Cython") is None:
        return None
    from pyximport.pyxbuild import pyx_to_dll

    folder = tempfile.mkdtemp(prefix="ckutils-cython-")
    text = shutil.copy(Path(__file__).with_name("loops.pyx"), folder)  # loops.c too
    built = pyx_to_dll(text, pyxbuild_dir=folder)
    spec = importlib.util.spec_from_file_location("loops", built)
    loops = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loops)
    return loops
