"""Does method="auto" take the fastest method? Every method over a grid of sizes.

    python -m benchmarks.auto [--threads 2]

Prints auto's time over the best method's, its median and the worst cases. All methods
of one size are timed in turn, in one run, and their medians are compared. A size above
1.20 is looked at five times in all, and the looks are printed: a direct sum that copies
its input into fresh pages takes twice as long in one look as in the next.
"""

import argparse
import itertools
import statistics

import torch

from benchmarks.timing import in_turn
from ckutils.fftconv import causal_conv

SIZES = {"b": (1, 8), "c": (1, 4, 30), "t": (50, 300, 1000, 4000, 16000)}
KERNELS = (5, 20, 64, 200, 1000, 4000, 16000)
MOST_PRODUCTS = 3e9  # direct sums beyond this are not worth the wait
METHODS = ("auto", "direct", "fft", "overlap_add")


def regret(x, kernel) -> tuple[float, str]:
    """Auto's time over the best method's, and which that is."""
    ways = {m: lambda m=m: causal_conv(x, kernel, method=m) for m in METHODS}
    times = in_turn(ways, "cpu", rounds=7, least=0.01)
    seconds = {method: statistics.median(values) for method, values in times.items()}
    best = min(METHODS[1:], key=seconds.get)
    return seconds["auto"] / seconds[best], best


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    ratios = {}
    for b, c, t, k in itertools.product(*SIZES.values(), KERNELS):
        if k > t or b * c * c * t * k > MOST_PRODUCTS:
            continue
        ratios[b, c, t, k] = regret(torch.randn(b, c, t), torch.randn(c, c, k))
    worst = sorted(ratios, key=ratios.get, reverse=True)
    print(f"{len(ratios)} sizes, {torch.get_num_threads()} threads")
    print(f"median auto/best {statistics.median(r for r, _ in ratios.values()):.2f}")
    print(f"within 1.20: {sum(r <= 1.2 for r, _ in ratios.values())}")
    for b, c, t, k in worst[:12]:
        looks = [ratios[b, c, t, k]]
        while len(looks) < 5 and looks[0][0] > 1.2:
            looks.append(regret(torch.randn(b, c, t), torch.randn(c, c, k)))
        seen = ", ".join(f"{ratio:.2f} ({best})" for ratio, best in looks)
        print(f"(b, c, t, k) = {b, c, t, k}: {seen}")


if __name__ == "__main__":
    main()
