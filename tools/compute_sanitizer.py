"""The GPU tests under NVIDIA's compute-sanitizer: memory outside, and races.

`make gpu-test` calls this after the tests themselves. Where there is no GPU or no such
tool it says so and ends well.
"""

import os
import shutil
import subprocess
import sys

import torch

TOOLS = ("memcheck", "racecheck")
PYTEST = ("-m", "pytest", "-m", "gpu", "-q", "-x", "-p", "no:cacheprovider")
# torch hands out parts of large pieces of memory; each tensor must be one of its own
# for an access just outside it to be seen.
ALONE = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def missing() -> str:
    """Why nothing can be checked here, or an empty text."""
    if not torch.cuda.is_available():
        return "no GPU: compute-sanitizer has nothing to check"
    if shutil.which("compute-sanitizer") is None:
        return "compute-sanitizer, a part of the CUDA toolkit, is not on the PATH"
    return ""


def main() -> int:
    if reason := missing():
        print(f"skipped: {reason}")
        return 0
    for tool in TOOLS:
        print(f"compute-sanitizer --tool {tool}", flush=True)
        check = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
        command = [*check, "--target-processes", "all", sys.executable, *PYTEST]
        status = subprocess.run(command, env={**os.environ, **ALONE}).returncode
        if status:
            print(f"{tool} ended with status {status}")
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
