"""correlate2d: images far larger than the kernel, as in chapter 5's comparison."""

import torch

from benchmarks.peers import cython_loops, library
from benchmarks.timing import Case
from ckutils.convolution import correlate2d

SIZES = {
    "cpu": ((2000, 10), (2000, 3), (2000, 7)),
    "cuda": ((5000, 10), (4096, 3), (4096, 5), (4096, 7)),
    "quick": ((40, 3),),
}
GOALS = {
    ("cpu", 10): "at least 5 times scipy correlate2d",
    ("cuda", 10): "at least 5 times cupyx, half of the floor of 74 us",
    ("cuda", 3): "at least 80 % of copy bandwidth",
}


def cases(device: str, *, quick: bool = False):
    for n, k in SIZES["quick" if quick else device]:
        for dtype in (torch.float32, torch.float64)[: 1 if device == "cuda" else 2]:
            image = torch.randn(n, n, dtype=dtype, device=device)
            kernel = torch.randn(k, k, dtype=dtype, device=device)
            made = (n - k + 1) ** 2
            yield Case(
                operation="correlate2d",
                size=f"{n} x {n}, kernel {k} x {k}",
                dtype=str(dtype).removeprefix("torch."),
                ours=lambda image=image, kernel=kernel: correlate2d(image, kernel),
                peers=peers(image, kernel),
                flops=2 * k * k * made,
                bytes=(n * n + made) * image.element_size(),
                goal=GOALS.get((device, k), ""),
            )


def peers(image, kernel) -> dict:
    ways = {
        "torch conv2d": lambda: torch.nn.functional.conv2d(
            image[None, None], kernel[None, None]
        )[0, 0]
    }
    return ways | (_on_gpu(image, kernel) if image.is_cuda else _on_cpu(image, kernel))


def _on_gpu(image, kernel) -> dict:
    if library("cupy") is None:
        return {}
    import cupy
    from cupyx.scipy import signal

    x, w = cupy.asarray(image), cupy.asarray(kernel)
    return {
        "cupyx correlate2d": lambda: torch.as_tensor(signal.correlate2d(x, w, "valid")),
        "cupyx fftconvolve": lambda: torch.as_tensor(
            signal.fftconvolve(x, w[::-1, ::-1].copy(), "valid")
        ),
    }


def _on_cpu(image, kernel) -> dict:
    x, w, ways = image.numpy(), kernel.numpy(), {}
    if signal := library("scipy.signal"):
        ways["scipy correlate2d"] = lambda: signal.correlate2d(x, w, "valid")
        ways["scipy fftconvolve"] = lambda: signal.fftconvolve(
            x, w[::-1, ::-1], "valid"
        )
    if (jax := library("jax")) and image.dtype == torch.float32:
        from jax.scipy.signal import correlate2d as jax_correlate2d

        run = jax.jit(lambda a, b: jax_correlate2d(a, b, mode="valid"))
        ways["jax correlate2d"] = lambda: torch.from_dlpack(run(x, w))
    if loops := cython_loops():
        ways["four loops in Cython"] = lambda: loops.correlate2d(x, w)
    return ways
