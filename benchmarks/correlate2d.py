"""Correlation of two matrices: ours against what a user would pick instead.

    python benchmarks/correlate2d.py [--threads 2] [--rounds 9] [--json FILE]

On a GPU also cuDNN, cupyx and the naive kernel, at the sizes of the goals. All ways of
one size are timed in turn, warm and synchronised. A row gives the median time, how many
times longer than ours, the extremes of that, and the GFLOP/s and GB/s that were reached
(2 flops a product, each number moved once). On a GPU the last row, a copy, is the
ceiling.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from ckutils.convolution import correlate2d
from ckutils.correlation import correlate2d_route
from ckutils.cuda.correlate2d import run_kernel

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# side of the image, side of the kernel
CPU_SIZES = ((500, 5), (2000, 3), (2000, 10))
GPU_SIZES = ((4096, 3), (4096, 5), (4096, 7), (5000, 10), (5000, 31))
DTYPES = (torch.float32, torch.float64)


def ways(x: torch.Tensor, w: torch.Tensor) -> dict:
    """What a user could call, by name; those that are installed."""
    found = {
        "ours": lambda: correlate2d(x, w),
        "torch conv2d": lambda: torch.conv2d(x[None, None], w[None, None])[0, 0],
    }
    if x.is_cuda:
        return found | _on_gpu(x, w)
    from scipy import signal

    found["SciPy correlate2d"] = lambda: signal.correlate2d(
        x.numpy(), w.numpy(), "valid"
    )
    try:
        import jax
    except ImportError:
        return found
    jax.config.update("jax_enable_x64", True)
    theirs = jax.jit(lambda a, b: jax.scipy.signal.correlate2d(a, b, "valid"))
    a, b = jax.numpy.asarray(x.numpy()), jax.numpy.asarray(w.numpy())
    return found | {"JAX correlate2d": lambda: theirs(a, b).block_until_ready()}


def _on_gpu(x, w) -> dict:
    import cupy
    import cupyx.scipy.signal

    size = x.shape[0] - w.shape[0] + 1
    a, b = cupy.from_dlpack(x), cupy.from_dlpack(w)
    place = 0, 0, size, size
    return {
        "ours, naive": lambda: run_kernel(x, w, *place, kernel="correlate2d_naive"),
        "cupyx correlate2d": lambda: cupyx.scipy.signal.correlate2d(a, b, "valid"),
    }


def seconds(functions: dict, rounds: int, device: str) -> dict:
    """Times of each, called in turn; on a GPU by events around ten calls.

    CuPy's functions run on the default stream, which is torch's current one here.
    """
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(_once(function, device))
    return times


def _once(function, device: str) -> float:
    if device == "cpu":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in "ab")
    torch.cuda.synchronize()
    begin.record()
    for _ in range(10):
        function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / 10


def check(functions: dict, x, w) -> None:
    """All ways give one result, within the rounding of sums of so many terms."""
    want = functions["ours"]()
    scale = float(x.abs().max() * w.abs().sum())
    tol = 4 * w.numel() * torch.finfo(x.dtype).eps * scale
    for name, function in functions.items():
        got = function()
        got = got.get() if hasattr(got, "get") else got
        got = (
            got.cpu() if isinstance(got, torch.Tensor) else torch.tensor(np.array(got))
        )
        error = float((got - want.cpu()).abs().max())
        if not error <= tol:
            raise AssertionError(f"{name}: off by {error:.1e}, more than {tol:.1e}")


def compare(side: int, taps: int, dtype, device: str, rounds: int) -> list[dict]:
    x = torch.randn(side, side, dtype=dtype).to(device)
    w = torch.randn(taps, taps, dtype=dtype).to(device)
    functions = ways(x, w)
    check(functions, x, w)
    if device == "cuda":
        functions["copy of the image"] = x.clone
    times = seconds(functions, rounds, device)
    outputs = (side - taps + 1) ** 2
    flops, moved = 2 * taps**2 * outputs, (x.numel() + outputs) * dtype.itemsize
    print(
        f"{side}x{side}, {taps}x{taps}, {str(dtype)[6:]}, {correlate2d_route(x, w)}",
        flush=True,
    )
    rows = []
    for name, runs in times.items():
        middle = statistics.median(runs)
        ratios = sorted(t / o for t, o in zip(runs, times["ours"], strict=True))
        ratio = middle / statistics.median(times["ours"])
        copy = name.startswith("copy")
        gflops = 0 if copy else flops / middle / 1e9
        gbytes = (2 * x.numel() * dtype.itemsize if copy else moved) / middle / 1e9
        print(
            f"  {name:20} {middle * 1e3:9.3f} ms {ratio:7.1f} times ours "
            f"({ratios[0]:.1f} to {ratios[-1]:.1f}) {gflops:9.1f} GFLOP/s "
            f"{gbytes:8.1f} GB/s",
            flush=True,
        )
        size = {"image": side, "kernel": taps, "dtype": str(dtype)[6:], "way": name}
        rows.append(size | {"seconds": runs, "gflops": gflops, "gbytes": gbytes})
    return rows


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="where to write the times")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{options.threads} threads"
    )
    print(f"torch {torch.__version__}, {device}, {where}")
    rows = [
        row
        for dtype in DTYPES
        for size in (GPU_SIZES if device == "cuda" else CPU_SIZES)
        for row in compare(*size, dtype, device, options.rounds)
    ]
    if options.json:
        about = {"torch": torch.__version__, "device": where, "rows": rows}
        options.json.write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
