"""How many times faster is the scan than a loop, torch's own scan and other kernels?

    python benchmarks/recurrence.py [--threads 2]

One run. All ways are timed in turn, round after round, and the medians of their times
are compared with ours: on a CPU the scan at (32, 16384) in float32; on a GPU the kernel
at (64, 256, 1024) in complex64 and at (8, 1536, T) in float32, forward and backward,
with GB/s (three numbers a step, and five backward) beside those of a copy, and
`accelerated-scan` where it is installed.
"""

import argparse
import importlib.util
import statistics
import time

import torch
from torch._higher_order_ops.associative_scan import associative_scan

from ckutils.recurrence import linear_recurrence, linear_recurrence_route

CPU_CASES = (((32, 16384), torch.float32),)
GPU_CASES = (
    ((64, 256, 1024), torch.complex64),
    *(((8, 1536, t), torch.float32) for t in (1024, 4096, 16384, 65536)),
)
ROUNDS = 9


def torch_scan(a, b, mode="generic"):
    def compose(left, right):
        return left[0] * right[0], left[1] * right[0] + right[1]

    return associative_scan(compose, (a, b), b.ndim - 1, combine_mode=mode)[1]


def ways(a, b) -> dict:
    """What a user could call, by name; those that this device and size allow."""
    found = {"ours": lambda: linear_recurrence(a, b)}
    if not b.is_cuda:
        return found | {
            "loop": lambda: linear_recurrence(a, b, method="loop"),
            "torch's scan, generic mode": lambda: torch_scan(a, b),
            "fft, constant coefficient": lambda: linear_recurrence(
                a[..., :1], b, method="fft"
            ),
        }
    found["ours, many launches"] = lambda: linear_recurrence(a, b, method="scan")
    if b.is_complex():
        found["torch's scan, generic mode"] = lambda: torch_scan(a, b)
    else:
        quick = torch.compile(lambda a, b: torch_scan(a, b, "pointwise"))
        found["torch's scan, compiled"] = lambda: quick(a, b)
    t = b.shape[-1]
    fits = not b.is_complex() and 32 <= t <= 65536 and t & (t - 1) == 0
    if importlib.util.find_spec("accelerated_scan") and fits:
        from accelerated_scan.warp import scan

        found["accelerated-scan"] = lambda: scan(a, b)
    return found


def gradients(a, b, g) -> dict:
    """The backward pass alone: by our kernel, and by our scan."""
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    found = {}
    for name, method in (("ours, backward", "auto"), ("many launches, back", "scan")):
        h = linear_recurrence(a, b, method=method)
        found[name] = lambda h=h: torch.autograd.grad(h, (a, b), g, retain_graph=True)
    return found


def seconds(functions: dict, device: str) -> dict:
    """The median time of each, called in turn."""
    times = {name: [] for name in functions}
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for function in functions.values():
        function()  # allocates, plans, traces, compiles
    for _ in range(ROUNDS):
        for name, function in functions.items():
            wait()
            start = time.perf_counter()
            function()
            wait()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def compare(shape, dtype, device: str) -> None:
    a = torch.rand(shape, device=device) * 0.6 + 0.4
    a, b = a.to(dtype), torch.randn(shape, dtype=dtype, device=device)
    with torch.no_grad():
        times = seconds(ways(a, b), device)
    if device == "cuda":
        times |= seconds({"copy of b": b.clone} | gradients(a, b, b.clone()), device)
    route = linear_recurrence_route(a, b)
    print(f"{shape}, {str(dtype)[6:]}, {route}")
    for name, value in times.items():
        moved = 2 if name.startswith("copy") else 5 if "back" in name else 3
        rate = moved * b.numel() * b.element_size() / value / 1e9
        base = times["ours, backward" if "back" in name else "ours"]
        print(f"{value / base:7.1f} times ours {rate:8.1f} GB/s: {name}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else f"{threads} threads"
    print(f"torch {torch.__version__}, {device}, {name}")
    for shape, dtype in GPU_CASES if device == "cuda" else CPU_CASES:
        compare(shape, dtype, device)


if __name__ == "__main__":
    main()
