# ---
# jupyter:
#   accelerator: GPU
#   colab:
#     gpuType: T4
#     provenance: []
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Convolution arithmetic
#
# $$
# y = 1 \tag{1.1}
# $$

# %% tags=["hide-input", "nbval-ignore-output"]
# The first cell of every chapter: find ckutils, or install it and change nothing else.
import importlib.util
import subprocess
import sys

REPOSITORY, TAG = "", "v0.1.0"  # written by `make publish`
if importlib.util.find_spec("ckutils") is None:
    if not REPOSITORY:
        raise SystemExit(
            "ckutils is missing. In a clone of the book, run `make .venv` and use the "
            "kernel in .venv; or, beside the clone, `pip install --no-deps ./CLONE`."
        )
    source = f"ckutils @ git+https://github.com/{REPOSITORY}@{TAG}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", source]
    if subprocess.run(pip).returncode:
        raise SystemExit(f"no network? Install it by hand, then rerun: {source}")
from ckutils.checks import describe_runtime

print(describe_runtime())

# %%
from ckutils.checks import digest

print(digest(y=[1.0, 4.0, 7.0]))
