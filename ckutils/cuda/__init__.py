"""The book's GPU kernels: plain CUDA C, its launcher, and a CPU that runs it too.

`launcher` runs a `.cu` file on a GPU through CuPy, `emulator` the same text on a CPU
through g++, `sanitizers` looks for races and wild accesses there, and `compile` asks
NVIDIA's compiler what a kernel needs. Neither CuPy nor g++ is needed to import any.
"""

from ckutils.cuda.emulator import EmulatedModule, KernelError
from ckutils.cuda.launcher import CudaModule, kernel_files, kernel_module, read_source
from ckutils.cuda.sanitizers import Report, sanitize
from ckutils.cuda.signature import Parameter, check_arguments, parse_signatures

__all__ = [
    "CudaModule",
    "EmulatedModule",
    "KernelError",
    "Parameter",
    "Report",
    "check_arguments",
    "kernel_files",
    "kernel_module",
    "parse_signatures",
    "read_source",
    "sanitize",
]
