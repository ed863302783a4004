"""How many times faster is the scan than a Python loop and than torch's own scan?

    python benchmarks/recurrence.py [--threads 2]

One run, (32, 16384) in float32. All ways are timed in turn, round after round, and the
medians of their times are compared with that of `method="scan"`.
"""

import argparse
import statistics
import time

import torch
from torch._higher_order_ops.associative_scan import associative_scan

from ckutils.recurrence import linear_recurrence

SHAPE, ROUNDS = (32, 16384), 9


def torch_scan(a, b):
    def compose(left, right):
        return left[0] * right[0], left[1] * right[0] + right[1]

    return associative_scan(compose, (a, b), 1, combine_mode="generic")[1]


WAYS = {
    "scan": linear_recurrence,
    "loop": lambda a, b: linear_recurrence(a, b, method="loop"),
    "torch's scan, generic mode": torch_scan,
    "fft, constant coefficient": lambda a, b: linear_recurrence(
        a[:, :1], b, method="fft"
    ),
}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    a, b = 0.4 + 0.6 * torch.rand(SHAPE), torch.randn(SHAPE)
    times = {name: [] for name in WAYS}
    for way in WAYS.values():
        way(a, b)  # allocates, plans, traces
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            start = time.perf_counter()
            way(a, b)
            times[name].append(time.perf_counter() - start)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    print(f"{SHAPE}, float32, CPU, {torch.get_num_threads()} threads")
    for name, value in seconds.items():
        print(f"{value / seconds['scan']:7.1f} times the scan's time: {name}")


if __name__ == "__main__":
    main()
