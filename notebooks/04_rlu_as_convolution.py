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
# # 4. The linear recurrent unit is a convolution
#
# A recurrence carries a state: each step multiplies it by a matrix and adds the new sample. If nothing nonlinear stands between the steps, all of it is one causal convolution, and its kernel comes from the powers of that matrix. The book calls the unit RLU in its file names; the literature says **linear recurrent unit**, LRU, and so does this chapter from here on.
#
# **The results, for a reader in a hurry.**
#
# - $h(t) = W h(t-1) + U x(t)$ is the convolution with the kernel $U, WU, W^2U, \dots$ **plus** the term $W^{t+1}h(-1)$ of the initial state. Section 4.1.
# - A loop, an explicit kernel, an FFT and a parallel scan compute the same numbers up to rounding; they differ in how many operations must wait for another. Section 4.2.
# - The kernels are sums of exponentials *times polynomials*. With $n$ states they include every kernel that ends after $n$ steps, so "exponentials only" is too narrow. Sections 4.3 and 4.4.
# - Gradients are governed by powers of $W$. It is the modulus of the eigenvalues that decides in the long run, and before that the angle between the eigenvectors. Section 4.5.
# - Three choices make the unit trainable over long sequences: $|\lambda| < 1$ by construction, a start with all eigenvalues in a ring just inside the unit circle, and a gain $\sqrt{1-|\lambda|^2}$. Section 4.6.
# - The kernel is a sampled continuous kernel, so this is a special case of chapter 3; for sums of exponentials, **irregular times** cost $O(N)$ instead of $O(N^2)$, exactly. Section 4.7.
# - What breaks: powers in single precision, dividing by cumulative products, $1-|\lambda|^2$ next to the circle. Section 4.8.
#
# **What you need.** Chapter 3's causal convolution, eigenvalues, and complex numbers in polar form.

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
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stderr}No network? Install by hand: {source}")
from ckutils.checks import describe_runtime

print(describe_runtime())

# %% tags=["hide-input"]
import math
import time

import matplotlib.pyplot as plt
import numpy as np
import torch

from ckutils.checks import agree, digest, source
from ckutils.plotting import COLOURS, use_style
from ckutils.recurrence import linear_recurrence, lru_conv, lru_kernel, lru_loop

use_style()
F64 = torch.float64
draw = torch.Generator().manual_seed(4)
print("every cell below prints what it checked")

# %% [markdown]
# ## 4.1 Unrolling
#
# A single state, halved at each step, starts at $h(-1) = 8$. The signal is $x = (4, 0, 2, 0)$, so
#
# - $h(0) = \tfrac12\cdot 8 + 4 = 8$,
# - $h(1) = \tfrac12\cdot 8 + 0 = 4$,
# - $h(2) = \tfrac12\cdot 4 + 2 = 4$,
# - $h(3) = \tfrac12\cdot 4 + 0 = 2$.
#
# Where does the 4 at time 2 come from? The figure splits each state into what is left of the initial state and of each sample. Each contribution starts somewhere and is then halved: it is a copy of the kernel $1, \tfrac12, \tfrac14, \dots$, moved and scaled.

# %% mystnb={"image": {"alt": "Stacked bars at four time steps: remains of the initial state, of the first sample and of the third sample add up to the states 8, 4, 4, 2."}}
initial, first, third = [4, 2, 1, 0.5], [4, 2, 1, 0.5], [0, 0, 2, 1]
left_of = {"initial state 8": initial, "x(0) = 4": first, "x(2) = 2": third}
bottom = np.zeros(4)
fig, ax = plt.subplots(figsize=(5, 2.4))
for name, part in left_of.items():
    _ = ax.bar(range(4), part, 0.6, bottom=bottom, label=name)
    bottom += part
_ = ax.set(xlabel="time t (steps)", ylabel="state h(t)", xticks=range(4))
_ = ax.legend(title="what is left of")
plt.show()
print(digest(h=bottom))

# %% [markdown]
# With $n$ states and $c$ input channels the halving becomes a matrix $W$ $(n, n)$, and a matrix $U$ $(n, c)$ brings the sample in:
#
# $$
# h(t) = W h(t-1) + U x(t), \qquad t = 0, 1, 2, \dots \tag{4.1}
# $$
#
# Put the equation for $h(t-1)$ into the one for $h(t)$, and go on until $h(-1)$ is reached. Each step back costs one more factor $W$:
#
# $$
# h(t) = W^{t+1} h(-1) + \sum_{\tau=0}^{t} W^{\tau} U\, x(t-\tau). \tag{4.2}
# $$
#
# The sum is a causal convolution with matrix-valued taps,
#
# $$
# \psi(\tau) = W^{\tau} U, \quad \tau = 0, \dots, t, \qquad \psi = [\,U,\; WU,\; W^2U,\; \dots,\; W^tU\,], \tag{4.3}
# $$
#
# $$
# h(t) = \sum_{\tau=0}^{t} \psi(\tau)\, x(t-\tau) + W^{t+1} h(-1). \tag{4.4}
# $$
#
# **If you come from filters.** (4.1) is a recursive filter (IIR) in state space. In (4.4) the sum is its zero-state response and the last term its zero-input response. Read out by a row $C$, the sum has the transfer function
#
# $$
# H(z) = \sum_{\tau \ge 0} C W^{\tau} U z^{-\tau} = C\,(I - W z^{-1})^{-1} U .
# $$
#
# Its poles are eigenvalues of $W$, and it is stable if all eigenvalues have modulus below 1. A diagonal $W$ is the partial-fraction form: one-pole filters side by side. Two things differ from a filter on the shelf: the poles are learned, and from 4.2 on the coefficients may change at every step, where a transfer function says nothing any more.
#
# First the definition, letter by letter.

# %%
n, c, T = 3, 2, 40
W = 0.9 * torch.linalg.qr(torch.randn(n, n, generator=draw, dtype=F64))[0]
U = torch.randn(n, c, generator=draw, dtype=F64)
x = torch.randn(1, c, T, generator=draw, dtype=F64)  # (b, c, t)
start = torch.randn(1, n, generator=draw, dtype=F64)  # h(-1)

h = torch.zeros(1, n, T, dtype=F64)
for t in range(T):
    h[0, :, t] = torch.linalg.matrix_power(W, t + 1) @ start[0]
    for tau in range(t + 1):
        power = torch.linalg.matrix_power(W, tau)
        h[0, :, t] += power @ U @ x[0, :, t - tau]  # (4.2), letter by letter
print(digest(h=h))

# %% [markdown]
# Then the package: `lru_loop` is (4.1), `lru_conv` is (4.4) with the kernel of `lru_kernel`. The kernel is built by doubling: $W^m$ times the first $m$ taps gives the next $m$, so $\log_2 T$ matrix products replace $T$.

# %%
source(lru_kernel)

# %%
agree("unrolled (4.2) = recurrence (4.1)", h, lru_loop(W, U, x, start), tol=1e-12)
agree("convolution (4.4) = recurrence (4.1)", lru_conv(W, U, x, start), h, tol=1e-12)

# %% [markdown]
# ### The notes, letter by letter
#
# The notes that this section follows state (4.2) exactly so, and the cell above confirms it. Their next display reads
#
# > $\psi = [U, WU, \dots, W^{t-1}uU, W^tU]$ and $h(t) = \sum_{\tau=0}^{t} x(t-\tau)\,\psi(\tau)$.
#
# Three things need a correction. The tap before the last carries a stray $u$; it is $W^{t-1}U$. The product $x(t-\tau)\,\psi(\tau)$ has the operands in an order that matrices do not allow as soon as $n \neq 1$ or $c \neq 1$; it is $\psi(\tau)\,x(t-\tau)$. And the initial state is gone: the sum alone is $h(t)$ only from $h(-1) = 0$. The cell tries all three.

# %%
psi = lru_kernel(W, U, T)  # (n, c, T)
sample, tap = x[0, :, 5], psi[..., 0]
try:
    print(sample @ tap)  # the order in the notes
except RuntimeError:
    print("x psi does not type-check:", tuple(sample.shape), tuple(tap.shape))
print("psi x does:", tuple((tap @ sample).shape))
last_but_one = torch.linalg.matrix_power(W, T - 2) @ U
agree("the tap before the last is W^(t-1) U", psi[..., T - 2], last_but_one, tol=1e-12)

# %%
without = lru_conv(W, U, x)
agree("sum alone = recurrence from h(-1) = 0", without, lru_loop(W, U, x), tol=1e-12)
missing = (h - without).norm(dim=1)[0] / h.norm(dim=1)[0]
print("from another h(-1) it misses, of |h(0)|:", round(float(missing[0]), 2))

# %% [markdown]
# ## 4.2 Four ways to one answer
#
# From here on the matrix is diagonal; 4.4 says when that is no loss. Each state then has its own scalar recurrence, and the coefficient may even change from step to step:
#
# $$
# h_t = a_t\, h_{t-1} + b_t, \qquad h_{-1} \text{ given}. \tag{4.5}
# $$
#
# For a constant $a_t = a$ and $b = Bx$ this is (4.1) with $W = \mathrm{diag}(a)$; the kernel is the geometric sequence $1, a, a^2, \dots$
#
# **1. The loop** is (4.5). Two operations a step, and each step waits for the one before. For one constant $a$ there is a compiled one, `scipy.signal.lfilter([1], [1, -a], b)`, which takes complex $a$ too; it has no row in the comparison below.
#
# **2. The explicit kernel** is the sum $h_t = \sum_\tau a^\tau b_{t-\tau}$ with the powers built by
#
# $$
# a^{m+k} = a^m a^k, \qquad k = 0, \dots, m-1: \text{ the first } m \text{ powers and } a^m \text{ give the next } m. \tag{4.6}
# $$
#
# Nothing waits for anything except for the adding up, but there are $T(T+1)/2$ products.
#
# **3. The FFT** multiplies spectra, on $n \ge 2T-1$ points so that nothing wraps around. The spectrum of the first $T$ powers needs no transform at all. With $\omega_f = e^{-2\pi i f/n}$ it is a geometric series,
#
# $$
# \hat\psi_f = \sum_{t=0}^{T-1} (a\,\omega_f)^t = \frac{1 - (a\,\omega_f)^T}{1 - a\,\omega_f} = \frac{\operatorname{expm1}(T z_f)}{\operatorname{expm1}(z_f)}, \qquad z_f = \log(a\,\omega_f), \tag{4.7}
# $$
#
# where $\operatorname{expm1}(z) = e^z - 1$ keeps its digits when $a\,\omega_f$ comes close to 1, and the value at $z_f = 0$ is $T$. The check below takes this road; `method="fft"` of the package transforms the table of powers instead, one transform more.
#
# **4. The scan** regroups. Two steps in a row are again one step: first $h \mapsto a_1 h + b_1$, then $h \mapsto a_2 h + b_2$, together
#
# $$
# (a_2, b_2) \circ (a_1, b_1) = (a_2 a_1,\; a_2 b_1 + b_2). \tag{4.8}
# $$
#
# This operation is associative, so any bracketing gives the same result, and brackets can be evaluated side by side. The package cuts time into blocks of 32 steps. Inside a block that starts at state $s$, the state after $j$ steps is
#
# $$
# h_j = p_j\, s + q_j, \qquad p_j = a_j\, p_{j-1}, \quad q_j = a_j\, q_{j-1} + b_j, \tag{4.9}
# $$
#
# with $p, q$ computed in all blocks at once. The starts $s$ of the blocks follow one another by (4.9) too, so they are a recurrence of $T/32$ steps, solved in the same way. Nothing is divided, and $T$ need not be a power of two.

# %%
from ckutils.scan import _blocked_scan

source(_blocked_scan)

# %% [markdown]
# ### Should the recurrent and the convolutional mode give the same numbers, and why do mine not?
#
# Asked at [s4#115](https://github.com/state-spaces/s4/issues/115), [s4 PR#114](https://github.com/state-spaces/s4/pull/114), [mamba-minimal#11](https://github.com/johnma2006/mamba-minimal/issues/11). They should, up to rounding, if three things hold: both modes use the *same* discretised coefficients (how a continuous rate becomes a coefficient: section 4.7), both include the initial state, and the tolerance is that of the arithmetic. In double precision a term that is $d$ steps old has passed $2d$ roundings in a loop; an FFT errs by about $\varepsilon \log_2 T\, \|\psi\|\, \|b\|$ at every $t$, also where $h_t$ is small. (The norms are over all steps, of the kernel $\psi = (1, a, a^2, \dots)$ and of the input.)

# %%
from ckutils.recurrence import geometric_spectrum, powers

T, C128 = 1000, torch.complex128
size, angle = torch.tensor([[0.5, 0.9, 0.999, 1.0], [0.0, 2.0, 0.1, 3.0]], dtype=F64)
a = torch.polar(size, angle)
b = torch.randn(4, T, generator=draw, dtype=C128)
start = torch.randn(4, generator=draw, dtype=C128)  # h(-1)
table = powers(a, T + 1)  # a^0, ..., a^T
faded = table[:, 1:] * start[:, None]  # the initial state's term

loop = linear_recurrence(a[:, None], b, initial=start, method="loop")
rows = [(table[:, : t + 1] * b[:, : t + 1].flip(-1)).sum(-1) for t in range(T)]
kernel = torch.stack(rows, dim=-1) + faded
spectrum = geometric_spectrum(a, T, 2 * T) * torch.fft.fft(b, 2 * T)  # (4.7)
fft = torch.fft.ifft(spectrum)[:, :T] + faded
scan = linear_recurrence(a[:, None], b, initial=start, method="scan")

# %%
norms = table.abs().norm(dim=-1) * b.norm(dim=-1)
bound = 4 * torch.finfo(F64).eps * (math.log2(T) + 4) * float(norms.max())
print(f"bound: {bound:.0e}")
for name, way in {"kernel": kernel, "FFT": fft, "scan": scan}.items():
    agree(f"{name} = loop, initial state included", way, loop, tol=bound)
narrow = [v.to(torch.complex64) for v in (a[:, None], b, start)]
single = linear_recurrence(*narrow[:2], initial=narrow[2], method="loop")
error = float((single - loop).abs().max())
print("the loop itself in single precision is off by more than 1e-6:", error > 1e-6)

# %% [markdown]
# The last line is the answer to the second half of the question. In single precision the very same loop is already more than $10^{-6}$ away from itself in double, so a check at $10^{-6}$ fails although nothing is wrong. That, two modes with different discretisations, and a forgotten initial state are what the threads found.
#
# ### Has torch a parallel scan like JAX, or must I write the loop?
#
# Asked at [pytorch#95408](https://github.com/pytorch/pytorch/issues/95408), [tinygrad#3039](https://github.com/tinygrad/tinygrad/issues/3039). There is one, `torch._higher_order_ops.associative_scan`, still behind an underscore, and its documentation calls it a prototype. Here is a scan in ten lines for any length: before each pass, entry $t$ of $(a, b)$ is the composition (4.8) of the last $r$ steps.


# %%
def scan_in_ten_lines(a, b):
    """h_t = a_t h_{t-1} + b_t from zero, in log2(T) passes; both (..., T)."""
    r = 1
    while r < b.shape[-1]:
        b = torch.cat([b[..., :r], b[..., r:] + a[..., r:] * b[..., :-r]], dim=-1)
        a = torch.cat([a[..., :r], a[..., r:] * a[..., :-r]], dim=-1)
        r *= 2
    return b


# %%
for length in (1, 2, 31, 32, 33, 1000):
    gates = torch.rand(4, length, generator=draw)
    inputs = torch.randn(4, length, generator=draw)
    want = linear_recurrence(gates.double(), inputs.double(), method="loop")
    agree(
        f"ten lines = loop, T = {length}",
        scan_in_ten_lines(gates, inputs),
        want,
        tol=1e-5,
    )

# %% [markdown]
# ### Why does associative scan lose to a loop on a CPU, and a recursive filter on a GPU?
#
# Asked at [jax#18221](https://github.com/jax-ml/jax/issues/18221), [jax#14190](https://github.com/jax-ml/jax/issues/14190), [jax#19498](https://github.com/jax-ml/jax/issues/19498); [audio#1408](https://github.com/pytorch/audio/issues/1408), [cusignal#7](https://github.com/rapidsai/cusignal/issues/7). On the GPU of the second question a filter ran hundreds of times slower than on a CPU. Count before you time. Both answers are counts. The cell below runs each method while it counts calls of torch operations and multiplications.

# %%
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = ("mul", "mul_", "addcmul_")
CALLS = (*PRODUCTS, "add", "copy_", "cat", "stack", "_fft_r2c", "_fft_c2r")


class Count(TorchDispatchMode):
    """Counts calls that compute, and the products in them."""

    calls, products = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out, name = function(*args, **(kwargs or {})), function.overloadpacket.__name__
        self.calls += name in CALLS
        self.products += out.numel() if name in PRODUCTS else 0
        return out


# %%
T = 16384
g, x = torch.rand(1, T, generator=draw), torch.randn(1, T, generator=draw)
ways = {
    "loop": lambda: linear_recurrence(g, x, method="loop"),
    "ten lines": lambda: scan_in_ten_lines(g, x),
    "blocked scan": lambda: linear_recurrence(g, x, method="scan"),
    "FFT (constant a)": lambda: linear_recurrence(g[:, :1], x, method="fft"),
}
for name, run in ways.items():
    with Count() as count:
        _ = run()
    print(f"{name:17s}{count.calls:6d} calls; products a step: ", end="")
    print("in the FFTs" if "FFT" in name else f"{count.products / T:.2f}")

# %% [markdown]
# | method | products | steps that wait | coefficients may change |
# |---|---|---|---|
# | loop | $T$ | $T$ | yes |
# | explicit kernel | $T(T+1)/2$ | $\log_2 T$ (the sum) | no |
# | FFT, three transforms (two by (4.7)) | $\approx 3\cdot\tfrac12\cdot 2T\log_2 2T$ | $2\log_2 2T$ | no |
# | scan, ten lines | $\approx 2T\log_2 T$ | $\log_2 T$ | yes |
# | scan, blocks of 32 | $\approx 3T$ | $\approx 32\log_{32} T$ | yes |
#
# A loop over tensors pays for calls, not for arithmetic. On a GPU each call is a launch with a fixed cost, whatever it computes: more than thirty thousand launches for two seconds of sound at 8 kHz, with one multiplication each. The scans need fewer than 250. Where a step needs no call, as in a *compiled* loop on a CPU, only products count, and there 26 products a step lose to one: which fits what the JAX reports describe. Their slow compilation fits too: every call of every pass is code of its own, where a loop has one body. (Where coefficients are constant, the FFT saves the loop's calls as well.)
#
# The next cell times five ways on this machine, on 32 sequences, each divided by the time of the blocked scan in the same run.

# %%
from torch._higher_order_ops.associative_scan import associative_scan


def seconds(run, repeats=5):
    """Median over calls of `run`, after one call to warm up."""
    run()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def compose(left, right):
    return left[0] * right[0], left[1] * right[0] + right[1]  # (4.8)


# %% tags=["nbval-ignore-output"]
def five_ways(g, x):
    """Seconds of each way, in units of the blocked scan's."""
    ways = {
        "loop": lambda: linear_recurrence(g, x, method="loop"),
        "ten lines": lambda: scan_in_ten_lines(g, x),
        "torch's": lambda: associative_scan(compose, (g, x), 1, combine_mode="generic"),
        "FFT": lambda: linear_recurrence(g[:, :1], x, method="fft"),
    }
    ways |= {"blocked": lambda: linear_recurrence(g, x)}
    rounds = [[seconds(run, 1) for run in ways.values()] for _ in range(9)]  # in turn
    *others, unit = np.median(rounds, axis=0)
    return {name: float(t / unit) for name, t in zip(ways, others, strict=False)}


lengths = [64, 512, 4096, 16384]
gates = [0.4 + 0.6 * torch.rand(32, n) for n in lengths]
ratios = [five_ways(g, torch.randn(g.shape)) for g in gates]
for name in ratios[0]:
    print(f"{name:10s}", [round(row[name], 1) for row in ratios])

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Time relative to the blocked scan against sequence length for loop, ten-line scan, torch's associative scan and FFT, on logarithmic axes; the loop grows to tens of times."}}
fig, ax = plt.subplots(figsize=(6, 2.8))
for name in ratios[0]:
    _ = ax.loglog(lengths, [row[name] for row in ratios], "o-", label=name)
_ = ax.axhline(1, color="black", linewidth=0.8)
_ = ax.set(xlabel="length T (steps)", ylabel="time / blocked scan's time")
_ = ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
print(digest(**{name: [row[name] for row in ratios] for name in ratios[0]}))

# %% tags=["nbval-ignore-output"]
g, x = torch.rand(32, 16384, generator=draw), torch.randn(32, 16384, generator=draw)
turned = torch.polar(g, 6 * g)
real, other = (seconds(lambda a=a: linear_recurrence(a, x), 15) for a in (g, turned))
print(f"complex coefficients: {other / real:.1f} times the time of real ones")

# %% [markdown]
# Above the line the blocked scan is faster. The ten lines make fewer calls and win on short sequences; the FFT, with fewer still, comes close there or wins. Their work a step grows with $\log_2 T$, and somewhere between a few hundred and a few thousand steps the blocked scan is ahead of both. How far is not a matter of counts alone, and the lead need not grow with the length: long arrays leave the caches, its own too. The Python loop, whose cost is calls, loses from about a hundred steps on. (Times differ from machine to machine; run the cell to see yours.) Complex coefficients change no count, only the price of a product: four real products and two sums. On a GPU: **not measured**; the same code runs there, and the counts above say what to expect.
#
# ### Can I scan a dense transition matrix, or only a diagonal one?
#
# Asked at [minimal-LRU#3](https://github.com/NicolasZucchet/minimal-LRU/issues/3), [pytorch#120189](https://github.com/pytorch/pytorch/issues/120189). The answer in the first thread, that a dense matrix rules out the parallel scan, is too strong. Composition (4.8) with matrices, $(W_2W_1,\; W_2 b_1 + b_2)$, is as associative as with numbers. What it rules out is a *cheap* scan: each composition multiplies two matrices, $n^3$ products where the diagonal form has $n$. Below: exact, counted, and equal to the diagonalised version (section 4.4).


# %%
def dense_scan(W, b):
    """h(t) = W_t h(t-1) + b_t from zero; W (T, n, n), b (T, n)."""
    r = 1
    while r < len(b):
        b = torch.cat([b[:r], b[r:] + torch.einsum("tij,tj->ti", W[r:], b[:-r])])
        W = torch.cat([W[:r], W[r:] @ W[:-r]])
        r *= 2
    return b


# %%
n, T = 8, 500
W = 0.98 * torch.linalg.qr(torch.randn(n, n, generator=draw, dtype=F64))[0]
b = torch.randn(T, n, generator=draw, dtype=F64)
want = lru_loop(W, torch.eye(n, dtype=F64), b.T[None])[0].T
agree("dense scan = loop", dense_scan(W.expand(T, n, n), b), want, tol=1e-12)
lam, V = torch.linalg.eig(W)
z = linear_recurrence(lam[:, None], torch.linalg.solve(V, b.T.to(C128)))  # (n, T)
agree("diagonalised scan = loop", (V @ z).real.T, want, tol=1e-12)
print("products a composition: dense", n**3 + n**2, "diagonal", 2 * n)
# %% [markdown]
# ## 4.3 Which kernels can a recurrence make?
#
# Read the state out with a row $C$ and the scalar kernel is $\psi(\tau) = C W^\tau U$. Numbers first. Take one eigenvalue, $0.9$, once as two separate states and once as a chain in which the second state feeds the first:
#
# $$
# W_1 = \begin{pmatrix} 0.9 & 0 \cr 0 & 0.9 \end{pmatrix}: \; \psi(\tau) = c\,0.9^\tau, \qquad
# W_2 = \begin{pmatrix} 0.9 & 1 \cr 0 & 0.9 \end{pmatrix}: \; \psi(\tau) = \tau\, 0.9^{\tau-1} \text{ for } C = (1, 0),\; U = (0, 1)^T.
# $$
#
# The second kernel starts at 0, rises to lag 9 or 10 and only then decays: it is no sum of exponentials. In general, a Jordan block of size $m$ with eigenvalue $\lambda$ contributes
#
# $$
# \psi(\tau) = \sum_{k=0}^{m-1} c_k \binom{\tau}{k} \lambda^{\tau-k}, \tag{4.10}
# $$
#
# and with all blocks together $n$ states make exactly the sums of exponentials times polynomials with at most $n$ coefficients in all. At $\lambda = 0$ the block is a shift register: $W$ moves each entry on by one place and $\psi$ is *any* kernel that ends after $n$ steps. So this is the class:
#
# $$
# \psi(\tau) = C W^{\tau} U = \sum_{i} P_i(\tau)\, \lambda_i^{\tau} \;+\; \text{any values at } \tau < n_0, \tag{4.11}
# $$
#
# with $n_0$ at most the multiplicity of the eigenvalue 0. The notes' "one specific class: exponential functions" is right for a diagonalisable, invertible $W$ and too narrow otherwise.


# %%
def readout_kernel(C, W, U, length):
    """C W^tau U for tau = 0, ..., length - 1, with vectors C and U (n,)."""
    return torch.einsum("n,nct->t", C, lru_kernel(W, U[:, None], length))


lag = torch.arange(60, dtype=F64)
first, second = torch.eye(2, dtype=F64)
W2 = torch.tensor([[0.9, 1], [0, 0.9]], dtype=F64)
jordan = readout_kernel(first, W2, second, 60)
agree("Jordan block = tau 0.9^(tau-1)", jordan, lag * 0.9 ** (lag - 1), tol=1e-12)

# %%
boxcar = (lag < 24).to(F64)
shift = torch.diag(torch.ones(23, dtype=F64), -1)  # W e_k = e_(k+1): nilpotent
start = torch.eye(24, dtype=F64)[0]
register = readout_kernel(boxcar[:24], shift, start, 60)
agree("24 states of a shift register = boxcar of 24", register, boxcar, tol=0)
print("its largest eigenvalue:", float(torch.linalg.eigvals(shift).abs().max()))

# %% [markdown]
# ### The other way round: fit a given kernel
#
# Any finite kernel is reached *exactly* with as many states as taps. How many are needed for a good approximation? The matrix with entries $\psi(i + j)$, a Hankel matrix, has rank $n$ for $n$ exponentials, and moving its column space down by one row is a linear map whose eigenvalues are the poles (ESPRIT). `fit_exponentials` finds them so, and the weights by least squares:
#
# $$
# \psi(\tau) \approx \operatorname{Re} \sum_{k=1}^{n} c_k\, a_k^{\tau}, \qquad |a_k| \le 1. \tag{4.12}
# $$
#
# For a real kernel the poles found are real or come in conjugate pairs, so $n$ counts both members of a pair, and the real part only removes rounding. A pair is four real numbers, two for $a_k$ and two for $c_k$: $n$ exponentials are $2n$ real numbers. (With the real part doing the work, one member of each pair is enough: section 4.4.)
#
# Five targets of 256 taps: a CKConv kernel as chapter 3 makes it (a SIREN under a Gaussian window), the same SIREN without the window, a sinusoid, a boxcar, and the Jordan kernel. **How fast does the error fall with the number of exponentials?**

# %%
from ckutils.kernel_nets import GaussianMask, Siren
from ckutils.recurrence import fit_exponentials

torch.manual_seed(0)
lag = torch.arange(256, dtype=F64)
positions = 1 - 2 * lag[:, None] / 255
net = Siren(1, 1, omega_0=10.0).double()
with torch.no_grad():
    bare = net(positions)[:, 0]
    windowed = GaussianMask(net, width=0.5).double()(positions)[:, 0]
targets = {
    "CKConv, windowed": windowed,
    "CKConv, bare": bare,
    "sinusoid": torch.sin(0.3 * lag),
    "boxcar": (lag < 100).to(F64),
    "Jordan block": lag * 0.9 ** (lag - 1),
}


# %%
def misfit(fit, target):
    return float((fit.kernel(256) - target).norm() / target.norm())


sizes, error = [1, 2, 4, 8, 16, 32, 64], {}
for name, target in targets.items():
    error[name] = [misfit(fit_exponentials(target, n), target) for n in sizes]
    good = [n for n, e in zip(sizes, error[name], strict=True) if e < 1e-5]
    print(f"{name:17s}error below 1e-5 at n =", good[0] if good else "none of these")
free = fit_exponentials(bare, 32, stable=False)
print("bare, 32 poles free to leave the disc, below 1e-5:", misfit(free, bare) < 1e-5)
print("they do leave it:", bool(free.poles.abs().max() > 1))

# %% mystnb={"image": {"alt": "Left: the five target kernels. Right: relative error of the fit against the number of exponentials; sinusoid and Jordan block drop at two, the windowed CKConv kernel at 32, the bare one stays near 20 percent, the boxcar falls slowly to 4 percent."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3))
for row, (name, target) in enumerate(targets.items()):
    (line,) = left.plot(lag, target / target.abs().max() - 3.4 * row)
    place = {"ha": "right", "fontsize": 8, "color": line.get_color()}
    _ = left.text(255, 1.15 - 3.4 * row, name, **place)
    _ = right.loglog(sizes, np.maximum(error[name], 1e-16), "o-")
_ = left.set(xlabel="lag (steps)", ylabel="kernels, scaled and moved apart", yticks=[])
_ = right.set(xlabel="number of exponentials n", ylabel="relative error")
_ = right.set_xticks(sizes, sizes)
right.minorticks_off()
plt.show()
print(digest(windowed=windowed, boxcar_error=np.array(error["boxcar"])))

# %% [markdown]
# A sinusoid takes two exponentials, a conjugate pair. The Jordan kernel gets there with two poles that nearly coincide: a difference quotient in place of a derivative. The windowed CKConv kernel is smooth and dies away, and 32 terms reproduce it to more digits than float32 has. The boxcar's edge costs many terms: each doubling of their number takes only about a third off its error. The bare SIREN kernel grows in places. With poles that may leave the unit disc, 32 exponentials reproduce it too; held to $|a_k| \le 1$, which a recurrence that runs on needs, the fit stays near 20 %. So: smooth kernels that die away are cheap; edges and growth are not.
#
# **Is the continuous kernel "more flexible than an RNN"?** It depends on what is held equal. The recurrent model meant here is the *linear* one; a nonlinear RNN is no convolution at all. With as many states as taps, a linear recurrence makes every kernel of that length (the shift register above), and no other convolution can do more. With fewer states it cannot. At equal numbers of parameters the target decides: 32 exponentials, which are 16 pairs and so 64 real numbers, against a SIREN with 61 weights trained by Adam.

# %%
from ckutils.training import count_weights, fit

torch.manual_seed(1)
inputs, network = positions.float(), {}
for name in ("CKConv, bare", "sinusoid", "boxcar"):
    goal = targets[name].float()[:, None]
    goal = goal / goal.std()
    net = Siren(1, 1, hidden_features=6, omega_0=12.0, weight_norm=False)
    adam = torch.optim.Adam(net.parameters(), lr=1e-2)
    plan = {"epochs": 600, "batch_size": 256, "schedule": lambda done: 1 - done}
    _ = fit(net, torch.nn.MSELoss(), inputs, goal, optimiser=adam, **plan)
    with torch.no_grad():
        network[name] = float((net(inputs) - goal).norm() / goal.norm())
print("weights of the network:", count_weights(net))

# %%
sums = {name: error[name][5] for name in network}  # 32 exponentials, 64 real numbers
by_name = [(network[name], sums[name]) for name in network]
(bare_net, bare_sum), (sine_net, sine_sum), box = by_name
print(
    "bare SIREN: network under a third of the exponentials' error:",
    bare_net < bare_sum / 3,
)
print(
    "sinusoid: exponentials under a thousandth of the network's:",
    sine_sum < sine_net / 1000,
)
print("boxcar: both between 2 % and 25 %:", 0.02 < min(box) and max(box) < 0.25)

# %% [markdown]
# ### Where the recurrence wins: a state of fixed size
#
# A convolution that runs on a live signal must remember as many past samples as its kernel is long. A sum of $n$ exponentials remembers $n$ complex numbers, however long it runs; with one of each conjugate pair kept, half of them. The cell streams a spoken digit (a real waveform at 8 kHz) sample by sample through the 32 exponentials of the windowed kernel, and compares with the whole convolution. (The exponentials go on where the CKConv kernel stops at its horizon; the window has shrunk to $e^{-8}$ there, which is the difference that the second line bounds.)

# %%
from ckutils.datasets import spoken_digits
from ckutils.fftconv import causal_conv

wave = spoken_digits().waveforms[0].double()  # (t,)
poles, weights = fit_exponentials(windowed, 32)
state, streamed = torch.zeros(32, dtype=C128), []
for sample in wave:
    state = poles * state + sample  # all that is remembered
    streamed.append((weights @ state).real)
streamed = torch.stack(streamed)

# %%
endless = (weights @ powers(poles, len(wave))).real  # it goes on beyond 256 lags
whole = causal_conv(wave[None, None], endless[None, None])[0, 0]
agree("streamed = convolution with its kernel", streamed, whole, tol=1e-6)
finite = causal_conv(wave[None, None], windowed[None, None])[0, 0]
near = (streamed - finite).norm() < 1e-3 * finite.norm()
print("within 0.1 % of the CKConv output itself:", bool(near))
print("the recurrence remembers", 2 * len(state), "real numbers, for any length")
print("the convolution", len(windowed) - 1, "samples, for this horizon")

# %% [markdown]
# ## 4.4 From a dense matrix to n numbers
#
# If $W = V \Lambda V^{-1}$ with $\Lambda = \operatorname{diag}(\lambda_1, \dots, \lambda_n)$, the new state $z = V^{-1}h$ has separate entries:
#
# $$
# z_t = \Lambda z_{t-1} + V^{-1} U x_t, \qquad h_t = V z_t, \qquad \psi(\tau) = V \Lambda^{\tau} V^{-1} U. \tag{4.13}
# $$
#
# The price is complex numbers, and a condition: $V$ must be invertible, and in floating point well enough so. Take the chain of 4.3 with two eigenvalues $\delta$ apart,
#
# $$
# W = \begin{pmatrix} 0.9 & 1 \cr 0 & 0.9 + \delta \end{pmatrix}, \qquad V = \begin{pmatrix} 1 & 1 \cr 0 & \delta \end{pmatrix}, \qquad \operatorname{cond}(V) \approx 2/\delta. \tag{4.14}
# $$
#
# At $\delta = 0$ the matrix is *defective*: one eigenvector only. Before that it is *ill-conditioned*: the states $z$ are large and nearly cancel in $Vz$, which costs about $\log_{10}(2/\delta)$ digits. **How many digits are left?**

# %% mystnb={"image": {"alt": "Relative error of the diagonalised recurrence against the distance of the two eigenvalues: it grows as the inverse of the distance, from machine precision to order one."}}
U, x = second[:, None], torch.randn(1, 1, 300, generator=draw, dtype=F64)
deltas, errors = 10.0 ** -np.arange(1, 16), []
for delta in deltas:
    W = torch.tensor([[0.9, 1.0], [0.0, 0.9 + delta]], dtype=F64)
    lam, V = torch.linalg.eig(W)
    driven = torch.linalg.solve(V, U.to(C128)) * x[0]
    got, want = (V @ linear_recurrence(lam[:, None], driven)).real, lru_loop(W, U, x)[0]
    errors.append(float((got - want).norm() / want.norm()))
fig, ax = plt.subplots(figsize=(5.5, 2.6))
_ = ax.loglog(deltas, errors, "o-", label="diagonalised against loop")
_ = ax.loglog(deltas, 2.2e-16 / deltas, "--k", label="machine precision / distance")
_ = ax.set(xlabel="distance of the eigenvalues", ylabel="relative error")
_ = ax.legend()
plt.show()
print(digest(under_the_line=np.array(errors) < 2.2e-16 / deltas))
print("from below 1e-13 to above 1e-4:", errors[0] < 1e-13 and errors[-1] > 1e-4)

# %% [markdown]
# For one input and a row $C$ the transfer function of 4.1 falls into partial fractions, $H(z) = \sum_k c_k / (1 - \lambda_k z^{-1})$ with $c_k = (C V)_k\, (V^{-1} U)_k$. At $\delta = 0$ a double pole stands in their place, and just before it two large fractions nearly cancel. A matrix drawn at random is defective with probability 0, but it may be ill-conditioned. Learning $\lambda$ directly, as the linear recurrent unit does, avoids the question: whatever the parameters are, the state is diagonal.
#
# ### Why twice the real part, and what do the sign of the imaginary part and an odd state size change?
#
# Asked at [s4#120](https://github.com/state-spaces/s4/issues/120), [s4#160](https://github.com/state-spaces/s4/issues/160), [annotated-s4#74](https://github.com/srush/annotated-s4/issues/74), [celerite#152](https://github.com/dfm/celerite/issues/152). A real $W$ has its complex eigenvalues in conjugate pairs, and the weights $c_k$ of its kernel come in the same pairs. A pair adds up to $c\lambda^\tau + \bar c\bar\lambda^\tau = 2\operatorname{Re}(c\lambda^\tau)$, so half the states are enough. It does not matter which of the two is kept: conjugating both $c$ and $\lambda$ leaves the real part. But an odd $n$ has a real eigenvalue, which is no pair; code that stores $\lfloor n/2\rfloor$ complex states loses it.

# %%
W = 0.95 * torch.linalg.qr(torch.randn(5, 5, generator=draw, dtype=F64))[0]
u, C = torch.randn(2, 5, generator=draw, dtype=F64)
lam, V = torch.linalg.eig(W)
c = (C.to(C128) @ V) * torch.linalg.solve(V, u.to(C128))  # psi(tau) = sum of c lam^tau
upper, alone = lam.imag > 1e-9, lam.imag.abs() < 1e-9
pairs = 2 * (c[upper] @ powers(lam[upper], 40)).real
rest = (c[alone] @ powers(lam[alone], 40)).real
print("5 states =", 2 * int(upper.sum()), "in pairs +", int(alone.sum()), "alone")

# %%
want = readout_kernel(C, W, u, 40)
agree(
    "twice the real part of one of each pair + the one alone",
    pairs + rest,
    want,
    tol=1e-12,
)
lower = 2 * (c[upper].conj() @ powers(lam[upper].conj(), 40)).real
agree("the other one of each pair", lower, pairs, tol=1e-12)
lost = float((pairs - want).norm() / want.norm())
print("without the one alone the kernel is off by more than 1 %:", lost > 0.01)

# %% [markdown]
# ## 4.5 What gradients do
#
# By (4.2), the last state depends on an early one through a power of $W$, whatever the inputs are ($T$ is a number of steps here, never a transpose):
#
# $$
# \frac{\partial h_T}{\partial h_0} = W^{T}, \qquad \Big\|\frac{\partial h_T}{\partial h_0}\Big\| = \|W^T\| \ge \rho^T, \quad \rho = \max_i |\lambda_i|. \tag{4.15}
# $$
#
# The notes say: exploding and vanishing gradients occur when the eigenvalue of $W$ is not equal to 1. That sentence needs the modulus, and it needs more than eigenvalues. **How does $\|W^T\|$ behave for spectra below, on and above the circle?**

# %% mystnb={"image": {"alt": "Norm of the powers of seven matrices against the power: below the circle they fall, on it they stay at one or grow linearly for a Jordan block, above they explode; a non-normal matrix with eigenvalues 0.9 and 0.8 first grows to about eleven."}}
c, s = math.cos(1), math.sin(1)
matrices = {str(size): [[size]] for size in (0.9, 0.99, -1.0, 1.02)}
matrices["pair on the circle"] = [[c, -s], [s, c]]
matrices["Jordan block at 1"] = [[1.0, 1], [0, 1]]
matrices["0.9, 0.8, non-normal"] = [[0.9, 4], [0, 0.8]]
fig, ax = plt.subplots(figsize=(6.4, 3))
norms = {}
for name, rows in matrices.items():
    W = torch.tensor(rows, dtype=F64)
    chain = [torch.linalg.matrix_power(W, k) for k in range(201)]
    norms[name] = torch.stack([torch.linalg.matrix_norm(power, 2) for power in chain])
    _ = ax.semilogy(norms[name], "--" if "pair" in name else "-", label=name)
_ = ax.set(xlabel="T (steps)", ylabel="spectral norm of W to the T", ylim=(1e-8, 1e3))
_ = ax.legend(title="eigenvalues of W", loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
print(
    digest(non_normal=norms["0.9, 0.8, non-normal"], jordan=norms["Jordan block at 1"])
)

# %%
for name in ("-1.0", "pair on the circle", "Jordan block at 1"):
    print(f"{name:20s}norm at T = 200: {float(norms[name][200]):.3f}")
bump = norms["0.9, 0.8, non-normal"]
print("non-normal: peak", round(float(bump.max()), 1), "at T =", int(bump.argmax()))
print("non-normal, below 1e-6 at T = 200:", bool(bump[200] < 1e-6))
print(
    "0.99 at T = 200:",
    round(0.99**200, 3),
    "; below 1e-40 at 10,000:",
    0.99**10_000 < 1e-40,
)

# %% [markdown]
# **Move the eigenvalues yourself.** The explorer below needs no kernel. How near to the circle must an eigenvalue lie for half of the gradient to survive 60 steps, and how large does the gradient grow on its way to zero at 0.9 and 0.8 with a coupling of 4? The cell prints, from `lru_kernel` and the powers of $W$, what the page starts with.

# %%
from IPython.display import display

from ckutils.widgets import explorer

display(explorer("recurrence"))
pairs = torch.tensor([[0.9, 0.35], [-0.5, 0.75]], dtype=F64)
W = torch.block_diag(*[torch.stack([a, -b, b, a]).view(2, 2) for a, b in pairs])
U = torch.tensor([[1.0], [0], [1], [0]], dtype=F64)
values = (U.T @ lru_kernel(W, U, 64)[:, 0])[0]
print("step    kernel  gradient")
for step in (0, 1, 2, 5, 10, 20, 40, 63):
    norm = torch.linalg.matrix_norm(torch.linalg.matrix_power(W, step), 2)
    print(f"{step:4} {float(values[step]):9.4f} {float(norm):9.4f}")

# %% [markdown]
# The corrected sentence:
#
# > **Long-run gradients of a linear recurrence.** If $\rho < 1$, $\|W^T\| \to 0$ like $\rho^T$ up to a polynomial factor: the gradient from step $T$ back to step 0 vanishes. If $\rho > 1$ it explodes. If $\rho = 1$ it does neither, provided that every eigenvalue on the circle, $1$ or not, has a full set of eigenvectors; a Jordan block there grows like a polynomial. For non-normal $W$ this says nothing about the first steps: the norm may grow before it falls, above tenfold in the figure.
#
# And vanishing concerns the *path* from step 0 to step $T$. The gradient of a parameter sums over all paths, short ones included, and does not vanish. With $l_t$ the whole gradient at $h_t$ and $g_t$ what arrives there from the loss,
#
# $$
# l_t = g_t + W^{*}\, l_{t+1}, \qquad \frac{\partial L}{\partial b_t} = l_t, \tag{4.16}
# $$
#
# where $W^{*}$ is the conjugate transpose. This is the same recurrence run from the end; the package's reverse pass is a scan and stores the states, not a loop. For one eigenvalue and $h_T = \sum_s \lambda^s x_{T-s}$ from a zero state,
#
# $$
# \frac{\partial h_T}{\partial \lambda} = \sum_{s=1}^{T} s\,\lambda^{s-1} x_{T-s}. \tag{4.17}
# $$

# %%
T = 400
lam = torch.tensor(0.9, dtype=F64, requires_grad=True)
start = torch.tensor(1.0, dtype=F64, requires_grad=True)
x = torch.randn(T + 1, generator=draw, dtype=F64)
last = linear_recurrence(lam.reshape(1), x, initial=start)[-1]
g_lam, g_start = torch.autograd.grad(last, (lam, start))
lags = torch.arange(1, T + 1, dtype=F64)
closed = (lags * 0.9 ** (lags - 1) * x.flip(0)[1:]).sum()
closed += (T + 1) * 0.9**T  # the initial state's term
agree("autograd through the scan = (4.17)", g_lam, closed, tol=1e-10)
agree("d h_T / d h(-1) = lambda^(T+1)", g_start, 0.9 ** (T + 1), tol=1e-25)
print("the path to the start has vanished:", bool(g_start < 1e-15))
print("the parameter's gradient has not:", bool(g_lam.abs() > 1e-3))

# %% [markdown]
# ### Is the gradient of a complex parameter the conjugate of what I expect?
#
# Asked at [pytorch#41857](https://github.com/pytorch/pytorch/issues/41857), [jax#9110](https://github.com/jax-ml/jax/issues/9110), [jax#4891](https://github.com/jax-ml/jax/issues/4891), [tensorflow#3348](https://github.com/tensorflow/tensorflow/issues/3348). For a real loss $L(\lambda)$ the direction of steepest ascent is $\partial L/\partial \operatorname{Re}\lambda + i\,\partial L/\partial \operatorname{Im}\lambda$. Finite differences measure exactly this, torch returns exactly this, and JAX returns its conjugate (the tests of this chapter check both). The cell takes a small step against each.

# %%
x = torch.randn(50, generator=draw, dtype=C128)


def loss(lam):
    return (linear_recurrence(lam.reshape(1), x)[-1] - 1).abs() ** 2


lam = torch.tensor(0.7 + 0.5j, dtype=C128, requires_grad=True)
(grad,) = torch.autograd.grad(loss(lam), lam)
with torch.no_grad():
    sides = [(loss(lam + e) - loss(lam - e)) / 2e-6 for e in (1e-6, 1e-6j)]
    size = 1e-3 / grad.abs()
    down, other = loss(lam - size * grad), loss(lam - size * grad.conj())

# %%
tol = 1e-6 * float(grad.abs())
agree("torch's gradient = differences", grad, torch.complex(*sides), tol=tol)
print("a step against it lowers the loss:", bool(down < loss(lam)))
print("and lowers it more than a step against the conjugate:", bool(down < other))

# %% [markdown]
# ### What should Adam do with complex parameters: one second moment or two?
#
# Asked at [pytorch#59998](https://github.com/pytorch/pytorch/issues/59998), [tensorflow#38541](https://github.com/tensorflow/tensorflow/issues/38541), [neuraloperator PR#420](https://github.com/neuraloperator/neuraloperator/pull/420). torch treats a complex number as two reals, each with a second moment of its own: a run with a complex parameter and one with the pair coincide. The other rule keeps one moment, of $|g|^2$. The difference shows when the problem is turned in the complex plane: the modulus rule turns with it, the rule of pairs does not.


# %%
def adam_torch(start, as_pair):
    """60 steps of torch's Adam on |z - goal|^2, with z complex or a pair of reals."""
    kept = torch.view_as_real(start) if as_pair else start
    parameter = torch.nn.Parameter(kept.clone())
    adam = torch.optim.Adam([parameter], lr=0.05)
    for _ in range(60):
        adam.zero_grad()
        z = torch.view_as_complex(parameter) if as_pair else parameter
        (z - goal).abs().square().sum().backward()
        adam.step()
    return z.detach()


z0, goal = torch.tensor([[2 + 0.3j], [-1 + 0.1j]], dtype=C128)
agree("complex = pair", adam_torch(z0, False), adam_torch(z0, True), tol=1e-14)


# %%
def adam_by_hand(z, goal, by_modulus):
    """The same, with one second moment for both parts or one for each."""
    m, v = 0, 0
    for k in range(1, 61):
        g = torch.view_as_real(2 * (z - goal))  # (..., 2)
        square = (g**2).sum(-1, keepdim=True) if by_modulus else g**2
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * square
        step = m / (1 - 0.9**k) / ((v / (1 - 0.999**k)).sqrt() + 1e-8)
        z = z - 0.05 * torch.view_as_complex(step)
    return z


agree("by hand = torch", adam_by_hand(z0, goal, False), adam_torch(z0, True), tol=1e-12)
spin = torch.polar(torch.ones(1, dtype=F64), torch.full((1,), 0.7, dtype=F64))
for by_modulus, name in ((False, "two moments"), (True, "one moment")):
    turned = adam_by_hand(spin * z0, spin * goal, by_modulus) / spin
    same = bool((turned - adam_by_hand(z0, goal, by_modulus)).abs() < 1e-9)
    print(f"{name}: the turned problem takes the turned path: {same}")

# %% [markdown]
# ## 4.6 The modern parametrisation
#
# A linear recurrent unit learns $\lambda$ directly. Three choices make that work ([Orvieto et al., 2023](https://arxiv.org/abs/2303.06349)).
#
# **Stable by construction.** A step of gradient descent on $\lambda$ itself can leave the disc. With two exponentials it cannot:
#
# $$
# \lambda = \exp\!\big(-e^{\nu} + i\,e^{\theta}\big), \qquad |\lambda| = \exp(-e^{\nu}) \in (0, 1) \text{ for every real } \nu. \tag{4.18}
# $$
#
# (In exact arithmetic. In float32 the modulus rounds to 1 below $\nu \approx -17$.) The modulus is resolved best where it matters: steps of $\nu$ change the memory $1/(1-|\lambda|) \approx e^{-\nu}$ by a factor, not by an amount.
#
# **A start on a ring.** Uniform by area between the radii $r_{\min}$ and $r_{\max}$ means that the *square* of the modulus is uniform, because the area within radius $r$ is $\pi r^2$:
#
# $$
# |\lambda|^2 = r_{\min}^2 + u\,(r_{\max}^2 - r_{\min}^2), \quad \arg\lambda = \varphi_{\max} v, \qquad u, v \sim \text{uniform on } [0, 1]. \tag{4.19}
# $$
#
# **A gain** $\gamma$ that makes up for the memory:
#
# $$
# h_t = \lambda h_{t-1} + \gamma B x_t, \qquad y_t = \operatorname{Re}(C h_t) + D x_t, \qquad \gamma = \sqrt{1-|\lambda|^2} = \sqrt{-\operatorname{expm1}(-2e^{\nu})}. \tag{4.20}
# $$
#
# Why this one? For white $x$ and $\gamma = 1$ the terms of $h_t = \sum_s \lambda^s B x_{t-s}$ are uncorrelated, so $E|h|^2 = E|Bx|^2 \sum_s |\lambda|^{2s} = E|Bx|^2/(1-|\lambda|^2)$. Averaged over the ring,
#
# $$
# \frac{E|h|^2}{E|Bx|^2} = \int_0^1 \frac{du}{1 - |\lambda|^2} = \frac{1}{r_{\max}^2 - r_{\min}^2}\,\log\frac{1-r_{\min}^2}{1-r_{\max}^2}, \tag{4.21}
# $$
#
# which grows without bound as $r_{\max} \to 1$. With $\gamma$ the ratio is 1. This is a gain for noise, not for tones: at the eigenvalue's own frequency the same unit amplifies by $\gamma/(1-|\lambda|) = \sqrt{(1+|\lambda|)/(1-|\lambda|)}$, which is 45 at $|\lambda| = 0.999$. A slow signal into a slow state near $\lambda = 1$ therefore still arrives large. **Are the eigenvalues where they should be, and are the states as large as (4.21) says?**

# %%
from ckutils.recurrence import LinearRecurrentUnit

torch.manual_seed(42)
low, high = 0.5, 0.95
unit = LinearRecurrentUnit(4, 4096, 1, r_min=low, r_max=high).double()
lam = unit.lam.detach()
area = (lam.abs() ** 2 - low**2) / (high**2 - low**2)  # uniform on [0, 1]
rank = (torch.arange(4096) + 0.5) / 4096
distance = float((area.sort().values - rank).abs().max()) * math.sqrt(4096)
print("Kolmogorov-Smirnov distance below 1.63, the 1 % bound:", distance < 1.63)

# %%
with torch.no_grad():
    x = torch.randn(2, 4, 700, generator=draw, dtype=F64)
    h = unit.states(x)[..., 300:]  # the start is forgotten by then
    input_size = (unit.B @ x.to(C128)).abs().square().mean()
    gamma = unit.gamma_log.exp()[:, None]
formula = math.log((1 - low**2) / (1 - high**2)) / (high**2 - low**2)
without = float((h / gamma).abs().square().mean() / input_size)
ratio = float(h.abs().square().mean() / input_size)
print(
    "formula:",
    round(formula, 2),
    "; within 3 % of it:",
    abs(without / formula - 1) < 0.03,
)
print("with gamma within 3 % of 1:", abs(ratio - 1) < 0.03)

# %% mystnb={"image": {"alt": "Left: eigenvalues scattered over a ring between radii 0.5 and 0.95. Right: histogram of the squared modulus, flat, and of the modulus, rising."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
_ = left.plot(lam.real[:1000], lam.imag[:1000], ".", markersize=2)
_ = left.add_patch(plt.Circle((0, 0), 1, fill=False))
_ = left.set(xlabel="real part", ylabel="imaginary part", aspect="equal")
_ = left.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05))
_ = right.hist(area, 20, density=True, alpha=0.8, label="squared modulus")
radius, line = (lam.abs() - low) / (high - low), {"histtype": "step", "linewidth": 2}
_ = right.hist(radius, 20, density=True, label="modulus", **line)
_ = right.set(xlabel="value, scaled to [0, 1]", ylabel="density", ylim=(0, 2))
_ = right.legend(ncols=2)
plt.show()
counts = torch.histc(area, 4, 0, 1) / 4096
print(digest(counts=counts))
print("each quarter holds 25 % within 2 %:", bool(((counts - 0.25).abs() < 0.02).all()))

# %% [markdown]
# The whole unit is again a convolution, with the real kernel
#
# $$
# \psi(\tau) = \operatorname{Re}\big(C \operatorname{diag}(\gamma\lambda^{\tau}) B\big) + D\,[\tau = 0]. \tag{4.22}
# $$
#
# It streams, too: `.step` takes one sample and the state.

# %%
torch.manual_seed(0)
unit = LinearRecurrentUnit(3, 32, 2, r_min=0.8, r_max=0.999).requires_grad_(False)
x = torch.randn(4, 3, 1000, generator=draw)
parallel, state, streamed = unit(x), None, []
for t in range(1000):
    y, state = unit.step(x[..., t], state)
    streamed.append(y)
tol = 1e-6 * float(parallel.abs().max())
agree("streamed = parallel, float32", torch.stack(streamed, -1), parallel, tol=tol)
unit, x = unit.double(), x.double()
by_kernel = causal_conv(x, unit.kernel(1000))
agree("parallel = convolution with (4.22), float64", unit(x), by_kernel, tol=1e-10)

# %% [markdown]
# ### Trained on real sequences, beside a GRU
#
# Fashion-MNIST read row by row: 28 steps of 28 pixels, 3,000 training images, 1,000 for testing, ten classes. The linear unit is followed by one nonlinearity, the mean over time and a linear readout. The GRU gets the same readout and about as many weights. **Does a linear recurrence keep up?**

# %%
from torch import nn

from ckutils.datasets import fashion_mnist_small
from ckutils.training import accuracy


class Reader(nn.Module):
    """A recurrence over (b, 28, t), a nonlinearity, the mean over time, ten scores."""

    def __init__(self, recurrence, features):
        super().__init__()
        self.recurrence, self.scores = recurrence, nn.Linear(features, 10)

    def forward(self, x):
        if isinstance(self.recurrence, nn.GRU):
            return self.scores(self.recurrence(x.mT)[0].mean(1))
        return self.scores(nn.functional.gelu(self.recurrence(x)).mean(-1))


# %%
data = fashion_mnist_small()
labels = data.train_labels[:3000], data.test_labels
images = data.train_images[:3000, 0], data.test_images[:, 0]
train, test = ((i.mT - 0.286) / 0.18 for i in images)  # (n, 28 pixels, 28 rows)
torch.manual_seed(0)
models = {
    "LRU": Reader(LinearRecurrentUnit(28, 64, 64, r_min=0.5, r_max=0.99), 64),
    "GRU": Reader(nn.GRU(28, 53, batch_first=True), 53),
}
print({name: count_weights(model) for name, model in models.items()}, "weights")

# %%
reached, plan = {}, {"epochs": 4, "batch_size": 50, "max_norm": 1.0}
for name, model in models.items():
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    cooling = {"optimiser": adam, "schedule": lambda done: 1 - done}
    _ = fit(model, nn.CrossEntropyLoss(), train, labels[0], **plan, **cooling)
    reached[name] = accuracy(model, test, labels[1])
    print(f"{name}: test accuracy above 0.70: {reached[name] > 0.7}")
print("within 0.07 of each other:", abs(reached["GRU"] - reached["LRU"]) < 0.07)
lam = models["LRU"].recurrence.lam
print("all |lambda| still below 1:", bool((lam.abs() < 1).all()))

# %% [markdown]
# It keeps up, in one short run: one start, four epochs, a small training set. Which of the two is better this run cannot say. And its steps need not wait for one another: the linear unit's 28 states come from one scan, the GRU's from 28 steps in a row.

# %% [markdown]
# ## 4.7 The kernel is a sampled continuous kernel
#
# The recurrence has a continuous twin. With input $u$ and a rate $r$, the solution of $x' = r x + u$ from rest is a convolution with an exponential,
#
# $$
# x(t) = \int_0^{t} e^{r s}\, u(t-s)\, ds, \qquad \psi(s) = e^{rs}. \tag{4.23}
# $$
#
# A numerical method with step $\Delta$ turns it into a recurrence $x_t = a\,x_{t-1} + \dots$ Two of them, with $z = r\Delta$ (and $g = \Delta$ at $r = 0$ in the first):
#
# $$
# \text{zero-order hold:} \quad a = e^{z}, \quad g = \frac{e^{z}-1}{r}, \quad x_t = a\,x_{t-1} + g\,u_t; \tag{4.24}
# $$
#
# $$
# \text{bilinear:} \quad a = \frac{1 + z/2}{1 - z/2}, \quad g = \frac{\Delta}{1 - z/2}, \quad x_t = a\,x_{t-1} + \tfrac12\, g\,(u_t + u_{t-1}). \tag{4.25}
# $$
#
# By hand, $r = -2$ and $\Delta = \tfrac12$ give $z = -1$: the hold has $a = e^{-1} = 0.368$ and $g = 0.316$, the bilinear rule $a = g = \tfrac13$. The hold is exact if $u$ is constant over each step, the bilinear rule follows a smooth $u$ better.
#
# Three things that a filter designer will ask.
#
# - *Which end of the step?* In (4.24) $u_t$ is the value held over the step that **ends** at $t$, as in most papers on state-space layers. A converter holds a sample until the next one comes: $x_{t+1} = a\,x_t + g\,u_t$, the same $a$ and $g$, the output one step later. That is what SciPy's `cont2discrete` with `"zoh"` describes. For a smooth, slow $u$ the one is half a step early, the other half a step late (an extra group delay of $\mp\Delta/2$), and this is why the error of a hold falls only in proportion to $\Delta$.
# - *Stability.* Both rules send $\operatorname{Re} r < 0$ into $|a| < 1$ for every step. A very fast decay goes to $a \approx 0$ under the hold and to $a \approx -1$ under the bilinear rule, where it alternates and dies slowly.
# - *Frequency.* For $r = i\omega$ the hold has $a = e^{i\omega\Delta}$: the frequency is kept, and aliases above $\pi/\Delta$. The bilinear rule has $a = e^{2i\arctan(\omega\Delta/2)}$: nothing aliases, every frequency is moved down.
#
# **How does the error at $t = 10$ fall with the step, for $u(t) = \sin t$?**

# %% mystnb={"image": {"alt": "Error at time 10 against the step on logarithmic axes: zero-order hold falls in proportion to the step, bilinear with its square."}}
from ckutils.recurrence import bilinear, zero_order_hold

rate, end = torch.tensor(-2.0, dtype=F64), 10.0
exact = (2 * math.sin(end) - math.cos(end) + math.exp(-2 * end)) / 5
steps, held, trapezoid = [0.5 / 2**k for k in range(7)], [], []
for step in steps:
    u = torch.sin(step * torch.arange(round(end / step) + 1, dtype=F64))
    a, g = zero_order_hold(rate, step)
    held.append(abs(float(linear_recurrence(a, g * u[1:])[-1]) - exact))
    a, g = bilinear(rate, step)
    middle = (u[1:] + u[:-1]) / 2
    trapezoid.append(abs(float(linear_recurrence(a, g * middle)[-1]) - exact))
fig, ax = plt.subplots(figsize=(5, 2.6))
_ = ax.loglog(steps, held, "o-", label="zero-order hold")
_ = ax.loglog(steps, trapezoid, "s-", label="bilinear")
_ = ax.set(xlabel="step (units of time)", ylabel="error of x(10)")
_ = ax.legend()
plt.show()
print(digest(held=held, trapezoid=trapezoid))

# %%
falls = [errors[-2] / errors[-1] for errors in (held, trapezoid)]
print("halving the step divides the errors by", [round(fall, 1) for fall in falls])

# %% [markdown]
# ### The same kernel both ways
#
# CKConv asks a network for kernel values at positions. Nothing says that the network must be a SIREN: here it is a module that returns $\operatorname{Re}\sum_k c_k e^{r_k s}$. Then CKConv and the recurrence are the same layer, at the training rate and at any other: to change the resolution the recurrence changes its step, $a = e^{r\Delta}$, and both weight their sums with $\Delta$. This is a third rule beside (4.24) and (4.25), the kernel sampled and multiplied by $\Delta$; signal processing calls it impulse invariance. It keeps the kernel, not the gain at rest: for $r = -2$ and $\Delta = \tfrac12$ a constant 1 comes out as $\Delta/(1-e^{-1}) = 0.79$, where the hold has the exact $0.5$. The difference goes away with $\Delta$.

# %%
from ckutils.ckconv import CKConv


class ExponentialNet(nn.Module):
    """Position p = 1 - 2 s / (horizon - 1) -> Re sum_k c_k exp(r_k s)."""

    def __init__(self, rates, coefficients, horizon):
        super().__init__()
        self.reach = nn.Parameter(torch.tensor((horizon - 1) / 2, dtype=F64))
        self.rates, self.coefficients = nn.Parameter(rates), nn.Parameter(coefficients)

    def forward(self, positions):
        lags = (1 - positions) * self.reach  # (..., 1)
        return (torch.exp(lags * self.rates) @ self.coefficients[:, None]).real


# %%
rates = torch.tensor([-0.02 + 0.3j, -0.1 + 0.05j, -0.5 + 0j], dtype=C128)
coefficients = torch.tensor([0.5 - 0.2j, 1 + 0.3j, -0.8 + 0j], dtype=C128)
net = ExponentialNet(rates, coefficients, 4000)
layer = CKConv(1, 1, kernel_net=net, horizon=4000, bias=False).requires_grad_(False)
sound = wave[:1000]
for density in (1, 2, 4):  # samples a step
    a = torch.exp(rates / density)
    h = linear_recurrence(a[:, None], sound / density)  # (k, t)
    want = layer(sound[None, None], resolution=density)[0, 0]
    agree(
        f"recurrence = CKConv at {density}x", (coefficients @ h).real, want, tol=1e-10
    )

# %% [markdown]
# ### Irregular times, exactly and in one pass
#
# Samples at times $t_1 \le t_2 \le \dots \le t_N$, any gaps. Chapter 3 computes the sum over all pairs; for this kernel it splits:
#
# $$
# y(q) = \sum_{t_j \le q} \psi(q - t_j)\, w_j v_j = \operatorname{Re} \sum_k c_k\, e^{r_k (q - t_i)}\, h^{(k)}_i, \qquad h^{(k)}_i = e^{r_k (t_i - t_{i-1})}\, h^{(k)}_{i-1} + w_i v_i, \tag{4.26}
# $$
#
# with $t_i$ the last sample before $q$. The true gaps are in the coefficients $a_i = e^{r(t_i - t_{i-1})}$, which change from step to step, and a scan takes that. $O(N)$ instead of $O(N^2)$, and nothing is approximated.

# %%
from ckutils.recurrence import exponentials_at

source(exponentials_at)

# %%
times = (3 * torch.rand(900, generator=draw, dtype=F64)).cumsum(0)  # up to 1,350 or so
values = torch.randn(1, 1, 900, generator=draw, dtype=F64)
queries, weights = torch.rand(2, 500, generator=draw, dtype=F64)
queries, weights = 1400 * queries, torch.cat([weights, weights[:400]])
by_pairs = layer.at(times, values, queries, weights=weights)
kernel = {"rates": rates, "coefficients": coefficients[None, None]}
by_scan = exponentials_at(times, values, queries, weights=weights, **kernel)
agree("irregular scan = CKConv.at", by_scan, by_pairs, tol=1e-10)

# %% [markdown]
# **How does the time grow with the number of samples?**


# %% tags=["nbval-ignore-output"]
def time_of(n, run, repeats):
    t = (1.5 * torch.rand(n, generator=draw, dtype=F64)).cumsum(0)
    v = torch.randn(1, 1, n, generator=draw, dtype=F64)
    return seconds(lambda: run(t, v, t), repeats)


sizes, few = [1000, 10_000, 100_000, 1_000_000], [250, 500, 1000, 2000]
by_scan = [time_of(n, lambda *data: exponentials_at(*data, **kernel), 3) for n in sizes]
by_pairs = [time_of(n, layer.at, 3) for n in few]
print(
    "scan, ten times the samples:",
    [round(by_scan[i + 1] / by_scan[i], 1) for i in range(3)],
)
print(
    "pairs, twice the samples:",
    [round(by_pairs[i + 1] / by_pairs[i], 1) for i in range(3)],
)

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Seconds against number of samples on logarithmic axes: the scan grows in proportion up to a million samples, the sum over pairs with the square."}}
fig, ax = plt.subplots(figsize=(5.5, 2.8))
_ = ax.loglog(sizes, by_scan, "o-", label="scan")
_ = ax.loglog(few, by_pairs, "s-", label="CKConv.at, all pairs")
_ = ax.loglog(
    sizes, by_scan[-1] / 1e6 * np.array(sizes), ":k", label="in proportion to N"
)
_ = ax.set(xlabel="samples N, as many queries", ylabel="seconds")
_ = ax.legend()
plt.show()
print(digest(scan_seconds=by_scan, pairs_seconds=by_pairs))

# %% [markdown]
# The sum over pairs takes about four times as long for twice the samples. The scan's operations are proportional to $N$; its clock follows only roughly. On few samples the cost of the calls hides the growth; at a million samples, one array of three complex states a sample holds 48 MB and no longer fits a cache, and the last factor of ten can cost more than ten.
#
# ### On real vital signs
#
# Temperatures in intensive care are measured when somebody measures them. A one-channel CKConv learns to predict each measurement from those before it, at their true times, with each sample weighted by the gap before it (at most 6 hours), as in chapter 3. **How good is it?**

# %%
from ckutils.datasets import vital_signs

stays = vital_signs()
column = stays.names.index("Temp")
records = []
for value, hour in zip(stays.values, stays.hours, strict=True):
    known = ~value[:, column].isnan()
    if known.sum() >= 2:
        records.append((hour[known].double(), value[known, column].double() - 37))
records.sort(key=lambda record: -len(record[0]))
count, (hour, temperature) = sum(len(t) for t, _ in records), records[0]
print(len(records), "stays with", count, "temperatures;", end=" ")
print("the longest record:", len(hour), "in", int(hour[-1] - hour[0]), "hours")


# %%
def weigh(hours):
    return torch.diff(hours, prepend=hours[:1] - 1).clamp(max=6)


def errors_of(layer, chosen):
    """Mean squared errors of three guesses at the next temperature, minus 37 °C."""
    rows = []
    for t, v in chosen:
        y = layer.at(t, v[None, None], t[1:] - 1e-6, weights=weigh(t))[0, 0]
        rows.append(torch.stack([y, torch.zeros_like(y), v[:-1]]) - v[1:])
    return torch.cat(rows, dim=1).square().mean(1)  # the layer's, 0, the last value


# %%
torch.manual_seed(0)
net = GaussianMask(Siren(1, 1, omega_0=6.0), width=0.2)
ck = CKConv(1, 1, kernel_net=net, horizon=97, bias=False).double()  # 96 hours back
adam = torch.optim.Adam(ck.parameters(), lr=6e-3)
for k in range(60):
    loss = errors_of(ck, records[10 + 4 * k : 14 + 4 * k])[0]
    adam.zero_grad()
    loss.backward()
    adam.step()
_ = ck.requires_grad_(False)
ours, of_37, of_last = errors_of(ck, records[:10] + records[300:400]).tolist()
print("110 other stays: under half the error of saying 37 °C:", ours < of_37 / 2)
print("saying the last temperature again is better still:", of_last < ours)

# %% [markdown]
# A linear filter of one channel is no great forecaster, but its kernel is a real one. Next, 16 exponentials are fitted to it on a half-hour grid, and both run over the true times of the longest record. **Can one see a difference?**

# %%
on_grid = ck.kernel(193, resolution=2.0)[0, 0]  # every half hour
poles, amplitudes = fit_exponentials(on_grid, 16)
fitted = {"rates": torch.log(poles) / 0.5, "coefficients": amplitudes[None, None]}
off = (amplitudes @ powers(poles, 193)).real - on_grid
print("kernel, relative error below 1e-5:", bool(off.norm() < 1e-5 * on_grid.norm()))
query = torch.arange(float(hour[0]), float(hour[-1]), 0.25, dtype=F64)
samples = hour, temperature[None, None], query
by_pairs = ck.at(*samples, weights=weigh(hour))[0, 0]
by_scan = exponentials_at(*samples, weights=weigh(hour), **fitted)[0, 0]
gap = float((by_scan - by_pairs).abs().max() / by_pairs.abs().max())
print("output, largest difference below 1e-3 of the largest value:", gap < 1e-3)

# %% mystnb={"image": {"alt": "Irregular temperature measurements of one stay over about 300 hours as dots, and two curves on one another: the CKConv output and the output by 16 exponentials."}}
fig, ax = plt.subplots(figsize=(7.2, 2.8))
_ = ax.plot(hour, temperature + 37, ".", color=COLOURS["orange"], label="measured")
_ = ax.plot(query, by_pairs + 37, color=COLOURS["sky"], linewidth=3, label="CKConv.at")
_ = ax.plot(query, by_scan + 37, "--k", linewidth=1, label="16 exponentials, one pass")
_ = ax.set(xlabel="time in the stay (hours)", ylabel="temperature (°C)")
_ = ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
plt.show()
print(digest(measured=temperature + 37))

# %% [markdown]
# All stays fit into *one* scan. Put them one behind the other and set $a_i = 0$ at each first sample: the state is forgotten there, exactly. A recurrence whose coefficients change in time can do that, a convolution cannot.

# %%
hours, raised = (torch.cat([record[k] for record in records]) for k in (0, 1))
weighted = (raised * torch.cat([weigh(t) for t, _ in records])).to(C128)
opens = torch.cat([torch.arange(len(t)) == 0 for t, _ in records])
gaps = torch.diff(hours, prepend=hours[:1]).masked_fill(opens, 0)
decay = torch.exp(fitted["rates"][:, None] * gaps).masked_fill(opens, 0)  # (16, N)


def all_stays():
    return (amplitudes @ linear_recurrence(decay, weighted)).real


def one_by_one(count):
    parts = [ck.at(t, v[None, None], t, weights=weigh(t)) for t, v in records[:count]]
    return torch.cat(parts, dim=-1)[0, 0]


# %%
want = one_by_one(100)
got = all_stays()[: len(want)]
print("temperatures in the scan:", len(raised), "; compared:", len(want))
print("relative error below 1e-3:", bool((got - want).norm() < 1e-3 * want.norm()))

# %% tags=["nbval-ignore-output"]
a_scan = seconds(all_stays, 3) / len(raised)
a_sum = seconds(lambda: one_by_one(100), 1) / len(want)
print(f"time per temperature: all pairs / one scan = {a_sum / a_scan:.0f}")

# %% [markdown]
# **A random-Fourier kernel splits the same way.** With $\psi(s) = \sum_k c_k\cos(\omega_k s + \varphi_k)$ the rates are $r_k = i\omega_k$ and nothing decays, so the recurrence is a cumulative sum. Written with features $\phi(t) = (\cos\omega_k t, \sin\omega_k t)_k$,
#
# $$
# \sum_{t_j \le q} \cos\big(\omega(q - t_j)\big)\, v_j = \phi(q)\cdot \sum_{t_j \le q} \phi(t_j)\, v_j, \tag{4.27}
# $$
#
# which is causal linear attention: a query $\phi(q)$ meets a running sum of keys times values.

# %%
omega = torch.randn(16, generator=draw, dtype=F64)
t, v = times, values[0]  # 900 irregular samples
angles = omega[:, None] * t
features = torch.cat([angles.cos(), angles.sin()])  # (2 k, n)
attention = (features * (features * v).cumsum(-1)).sum(0)
kernel = {"rates": 1j * omega, "coefficients": torch.ones(1, 1, 16)}
by_scan = exponentials_at(t, v, t, **kernel)[0]
by_pairs = torch.cos(omega * (t[:, None] - t)[..., None]).sum(-1).tril() @ v[0]
agree("linear attention = sum over pairs", attention, by_pairs, tol=1e-8)
agree("scan with imaginary rates = sum over pairs", by_scan, by_pairs, tol=1e-8)

# %% [markdown]
# ## 4.8 Where it breaks
#
# **Powers in single precision.** With $\lambda^t$ computed as $e^{t\log\lambda}$ in complex64, the angle $t\arg\lambda$ is rounded to a relative $6\cdot10^{-8}$; at $t = 10^5$ and an angle of 1 a step that is an error of up to several thousandths of a radian, up to a hundred thousand times the precision of the format. `powers` works in double and rounds once.

# %%
lam = torch.polar(torch.tensor(1.0), torch.tensor(1.0))  # complex64
t = torch.arange(100_001)
exact = powers(lam.to(torch.complex128), 100_001)
naive = (torch.exp(t * torch.log(lam)) - exact).abs()
ours = (powers(lam, 100_001) - exact).abs()
print(
    "complex64 exponentials at t = 100,000 off by more than 1e-4:",
    bool(naive.max() > 1e-4),
)
print("powers() off by less than 1e-7:", bool(ours.max() < 1e-7))

# %% [markdown]
# **A modulus within $10^{-7}$ of 1.** In float32 the numbers next to 1 are $6\cdot10^{-8}$ apart below it, so $|\lambda| = 1 - 10^{-7}$ cannot be stored: the number next to it forgets 16 % sooner. And $1 - |\lambda|^2$ subtracts nearly equal numbers. The parametrisation (4.18) stores $\nu$, and (4.20) goes from there to $\gamma$ without the subtraction.

# %%
size = torch.tensor([1e-7])  # e^nu = -log |lambda|, float32
modulus = torch.tensor([1 - 1e-7])
true = math.sqrt(-math.expm1(-2e-7))
subtracted, kept = torch.sqrt(1 - modulus**2), torch.sqrt(-torch.expm1(-2 * size))
print(
    "gamma by subtraction, error above 5 %:", abs(float(subtracted) / true - 1) > 0.05
)
print("gamma by expm1, error below 1e-6:", abs(float(kept) / true - 1) < 1e-6)
memory = -1 / math.log(float(modulus))
print(f"memory meant: 1e+07 steps; of the stored modulus: {memory:.3g}")

# %% [markdown]
# ### Is cumulative sum in log space a safe way to solve the recurrence?
#
# Asked at [accelerated-scan#11](https://github.com/proger/accelerated-scan/issues/11), [heinsen_sequence#1](https://github.com/glassroom/heinsen_sequence/issues/1), [pytorch#52213](https://github.com/pytorch/pytorch/issues/52213), [annotated-mamba#1](https://github.com/srush/annotated-mamba/issues/1). The tempting closed form divides by cumulative products,
#
# $$
# h_t = A_t \sum_{s \le t} \frac{b_s}{A_s}, \qquad A_t = a_0 a_1 \cdots a_t. \tag{4.28}
# $$
#
# The sum overflows when $A_t$ falls below one over the largest number of the format. For $a = 0.9$ and $b = 1$ the sum is $1/(1-a) = 10$ times its last term, so in float32, which ends at $3.4\cdot10^{38}$, it breaks near $t = \log(3.4\cdot10^{37})/\log(1/0.9) \approx 820$. **Does it?**

# %%
a, b = torch.full((2000,), 0.9), torch.ones(2000)
A = torch.cumprod(a, 0)
divided = A * torch.cumsum(b / A, 0)  # (4.28)
broken = int((~torch.isfinite(divided)).nonzero()[0])
predicted = math.log(torch.finfo(torch.float32).max / 10) / -math.log(0.9)
near = abs(broken - predicted) <= 2
print("predicted near", round(predicted), "; breaks within two steps of it:", near)
exact = linear_recurrence(a.double(), b.double(), method="loop")
agree("the scan, all 2,000 steps", linear_recurrence(a, b), exact, tol=1e-4)

# %% [markdown]
# Working with logarithms moves the limit and does not remove the loss. $\log A_t$ grows with $t$, its rounding error grows with it, and $e^{\log A_t - \log A_s}$ turns that *absolute* error into a *relative* one. A sum of logarithms also needs positive numbers: a negative or complex gate has a logarithm only up to multiples of $2\pi i$, and the running sum of the phases is again a large number with a fixed number of digits. The scan multiplies only the factors between $s$ and $t$, and never divides. In the cell the log-space sum even gets help: its logarithms are added in double and only then stored in complex64. **How do the errors grow?**

# %%
n, window = 20_000, 400  # terms older than the window are below rounding
angle = 2 * math.pi * torch.rand(n, generator=draw)
gate = torch.polar(0.9 + 0.1 * torch.rand(n, generator=draw), angle)  # complex64
b = torch.randn(n, generator=draw, dtype=torch.complex64)
log_A = torch.cumsum(torch.log(gate.to(C128)), 0).to(torch.complex64)
at = torch.arange(window, n, 50)
recent = at[:, None] - torch.arange(window)  # (t, window): the steps s before t
in_logs = (torch.exp(log_A[at][:, None] - log_A[recent]) * b[recent]).sum(1)
exact = linear_recurrence(gate.to(C128), b.to(C128), method="loop")[at]
scale = float(exact.abs().mean())
log_error = (in_logs - exact).abs() / scale
scan_error = (linear_recurrence(gate, b)[at] - exact).abs() / scale

# %% mystnb={"image": {"alt": "Error against time in single precision for the log-space sum and for the scan, with complex gates: the log-space error grows with time, the scan's stays near machine precision."}}
fig, ax = plt.subplots(figsize=(6, 2.6))
_ = ax.semilogy(at, log_error, label="sum in log space")
_ = ax.semilogy(at, scan_error, label="scan")
_ = ax.set(
    xlabel="time t (steps)", ylabel="error / mean |h|, complex64", ylim=(1e-9, 1)
)
_ = ax.legend(ncols=2)
plt.show()
print(digest(scan_below_1e_6=scan_error < 1e-6))
late = float(log_error[-50:].mean() / scan_error[-50:].mean())
print("late error, log space over 30 times the scan's:", late > 30)
early = float(log_error[-50:].mean() / log_error[:50].mean())
print("and over three times its own early error:", early > 3)

# %% [markdown]
# ### An FFT answers with an absolute error
#
# A loud start and a quiet tail: the tail's digits drown.

# %%
b = torch.zeros(4000)
b[0] = 1e4
b[2000:] = 1e-4 * torch.randn(2000, generator=draw)
a = torch.tensor([0.9])
exact = linear_recurrence(a.double(), b.double(), method="loop")
tail = exact[2500:]
for method in ("scan", "fft"):
    error = (linear_recurrence(a, b, method=method)[2500:] - tail).abs().max()
    print(
        f"{method}: tail right to three digits: {bool(error < 1e-3 * tail.abs().max())}"
    )

# %% [markdown]
# ### Why does torch.compile warn or fail on my complex state?
#
# Asked at [pytorch#125718](https://github.com/pytorch/pytorch/issues/125718), [pytorch#93424](https://github.com/pytorch/pytorch/issues/93424), [pytorch#98161](https://github.com/pytorch/pytorch/issues/98161). The compiler's code generator for CPU and GPU has no complex arithmetic: it says so in a warning and leaves those operations to the eager kernels. Written out with pairs of reals, $(a_r + i a_i)(h_r + i h_i)$, the same step has nothing complex in it. The values are equal; a state kept as complex is shorter to write, so this book keeps it.


# %%
def complex_step(a, h, b):
    return a * h + b


def pair_step(a, h, b):
    """The same on (..., 2), real and imaginary part last."""
    (ar, ai), (hr, hi) = a.unbind(-1), h.unbind(-1)
    return torch.stack([ar * hr - ai * hi, ar * hi + ai * hr], dim=-1) + b


a, h, b = (
    torch.randn(64, 4096, generator=draw, dtype=torch.complex64) for _ in range(3)
)
as_pairs = [torch.view_as_real(x) for x in (a, h, b)]
agree(
    "pairs = complex",
    torch.view_as_complex(pair_step(*as_pairs)),
    complex_step(a, h, b),
    tol=1e-5,
)

# %% tags=["nbval-ignore-output"]
import warnings

forms = {"complex": (complex_step, (a, h, b)), "pairs": (pair_step, as_pairs)}
taken = {
    f"{name}, eager": seconds(lambda s=s, d=d: s(*d)) for name, (s, d) in forms.items()
}
try:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, (step, data) in forms.items():
            quick = torch.compile(step)
            taken[f"{name}, compiled"] = seconds(lambda q=quick, d=data: q(*d))
    for text in {str(w.message)[:73] for w in caught if "complex" in str(w.message)}:
        print(text)
except Exception as error:  # no C++ compiler at hand
    print("torch.compile did not run here:", type(error).__name__)
for name, t in taken.items():
    print(f"{name:18s} {t / taken['complex, eager']:.2f} times complex, eager")

# %% [markdown]
# ## 4.9 On the GPU
#
# `linear_recurrence` and `LinearRecurrentUnit` run where their inputs are. By the counts of 4.2, a scan over 16,384 steps is fewer than 250 launches, a loop more than 30,000. On a GPU with CuPy, "auto" takes one launch: the kernel `linear_recurrence.cu`, which scans a row in registers and reads and writes each number once; `linear_recurrence_route` says what was picked. Times on a GPU are **not measured** here.

# %%
device = "cuda" if torch.cuda.is_available() else "cpu"
a, b = torch.rand(8, 5000, generator=draw), torch.randn(8, 5000, generator=draw)
want = linear_recurrence(a.double(), b.double(), method="loop")
a, b = a.to(device), b.to(device)
agree("this device = loop on the CPU", linear_recurrence(a, b), want, tol=1e-4)
try:
    _ = linear_recurrence(a.cpu(), b.cpu(), method="cuda")
except ValueError as error:
    print(str(error).split(";")[0])

# %% [markdown]
# Without a GPU the text of that kernel runs too: g++ compiles it, and its threads take turns. Slowly, but number for number. Here 8 rows of 300 steps, one block of 96 threads a pair of rows.

# %%
from ckutils.cuda.standin import cupy_on_cpu

try:
    with cupy_on_cpu() as launcher:
        h = linear_recurrence(a[:, :300].cpu(), b[:, :300].cpu(), method="cuda")
    agree("the kernel's text on a CPU = loop", h, want[:, :300], tol=1e-4)
    print("kernel, grid, block:", *launcher.launches[0][:3])
except RuntimeError as error:  # no g++ at hand
    print(error)

# %% [markdown]
# ## Exercises
#
# First six functions to write, from five minutes to an evening, then questions to think about. `check_...(f)` calls your function on a row of cases.
# At the first that does not agree it says which, what was expected, what came, and gives a hint. Copy a signature into a cell of your own and begin there;
# a solution is folded away below each, executed with the chapter. This is what a check says to a function that is only begun:

# %%
from ckutils.exercises import (
    check_hold,
    check_memory_parameter,
    check_prefix_scan,
    check_reverse_pass,
    check_ring,
    check_two_averages,
)

try:
    check_memory_parameter(lambda half_life: -math.log(half_life))
except AssertionError as told:
    print(told)

# %% [markdown]
# ### Functions to write
#
# **Exercise 4.1** (5 minutes). After how many steps has the gradient through $\lambda = 0.999$ fallen to one half? Turn the question round: which $\nu$ in (4.18) gives a half-life of so many steps?
#
# ```python
# def memory_parameter(half_life):  # a number of steps > 0
#     return nu  # a float
# ```


# %% tags=["hide-cell"]
def memory_parameter(half_life):
    # exp(-e^nu T) = 1/2, so e^nu = log(2) / T
    return math.log(math.log(2) / half_life)


check_memory_parameter(memory_parameter)
print("lambda = 0.999 halves in", math.ceil(math.log(0.5) / math.log(0.999)), "steps")

# %% [markdown]
# **Exercise 4.2** (10 minutes). The start (4.19): turn uniform numbers into eigenvalues on a ring, evenly by area.
#
# ```python
# def ring(u, v, r_min, r_max, max_phase):
#     # u, v (n,), float64, in [0, 1]
#     return eigenvalues  # (n,), complex128
# ```


# %% tags=["hide-cell"]
def ring(u, v, r_min, r_max, max_phase):
    modulus = (r_min**2 + u * (r_max**2 - r_min**2)).sqrt()
    return torch.polar(modulus, max_phase * v)


check_ring(ring)

# %% [markdown]
# **Exercise 4.3** (20 minutes). Two exponential averages in a row, each with coefficient $a$: $u_t = a u_{t-1} + (1-a) x_t$, $v_t = a v_{t-1} + (1-a) u_t$. Write both as one recurrence (4.1) with the state $(u, v)$. Which kernel does $v$ see, and is $W$ diagonalisable?
#
# ```python
# def two_averages(a):  # 0 <= a < 1
#     return W, U  # (2, 2), (2,), float64
# ```


# %% tags=["hide-cell"]
def two_averages(a):
    # v_t = a v_(t-1) + (1 - a) (a u_(t-1) + (1 - a) x_t); a Jordan block for 0 < a < 1
    W = torch.tensor([[a, 0], [(1 - a) * a, a]], dtype=F64)
    return W, torch.tensor([1 - a, (1 - a) ** 2], dtype=F64)


check_two_averages(two_averages)  # v sees (1 - a)^2 (tau + 1) a^tau

# %% [markdown]
# **Exercise 4.4** (20 minutes). The zero-order hold (4.24) to full precision at every rate: complex, zero, and so small that $e^z - 1$ loses its digits.
#
# ```python
# def hold(rate, step):  # a float or complex number, a float
#     return a, g  # two numbers
# ```


# %% tags=["hide-cell"]
def hold(rate, step):
    z = complex(rate * step)
    return np.exp(z), step if z == 0 else np.expm1(z) / rate


check_hold(hold)

# %% [markdown]
# **Exercise 4.5** (an hour). The reverse pass of $h_t = a_t h_{t-1} + b_t$, for coefficients that change and may be complex: gradients in all $a_t$ and $b_t$, in one loop from the end, (4.16). Which coefficient belongs to step $t$?
#
# ```python
# def reverse_pass(a, h, g):
#     # coefficients, states, and what arrives at each state: (T,)
#     return to_a, to_b  # (T,), as torch defines complex gradients
# ```


# %% tags=["hide-cell"]
def reverse_pass(a, h, g):
    later, gradients = torch.zeros_like(g[0]), []
    for t in reversed(range(len(g))):
        ahead = a[t + 1].conj() if t + 1 < len(a) else 0  # leads from t + 1 back to t
        later = g[t] + ahead * later
        gradients.append(later)
    to_b = torch.stack(gradients[::-1])
    before = torch.cat([torch.zeros_like(h[:1]), h[:-1]])  # a_t met h_(t-1)
    return to_b * before.conj(), to_b


check_reverse_pass(reverse_pass)

# %% [markdown]
# **Exercise 4.6** (an evening). The scan of section 4.2 for *any* associative operation: all prefixes of $n$ items with at most $2n$ combinations, of which at most $2 \lceil \log_2 n \rceil$ wait for one another. Any $n$, and nothing may commute.
# (The ten lines of section 4.2 take $n \log_2 n$, a loop waits $n - 1$ times.) The check joins words, so that you can read what went wrong.
#
# ```python
# def prefix_scan(combine, items):  # combine(earlier, later) -> item
#     return prefixes  # a list as long as items
# ```


# %% tags=["hide-cell"]
def prefix_scan(combine, items):
    if len(items) < 2:
        return list(items)
    pairs = [combine(*pair) for pair in zip(items[::2], items[1::2], strict=False)]
    ends = prefix_scan(combine, pairs)  # the prefixes that end at items 1, 3, 5, ...
    whole = [items[0]]
    for i in range(1, len(items)):
        even = i % 2 == 0  # one more item behind a prefix of pairs
        whole.append(combine(ends[i // 2 - 1], items[i]) if even else ends[i // 2])
    return whole


check_prefix_scan(prefix_scan)

# %% [markdown]
# ### Questions to think about
#
# Each ends in a check that is executed with the solution.
#
# **A** (5 minutes). Which $W$, $U$ and $C$ make the Fibonacci numbers $1, 1, 2, 3, 5, \dots$ the kernel of a recurrence? What is its largest eigenvalue, and what does (4.15) say about its gradients?

# %% tags=["hide-cell"]
W, e1 = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=F64), torch.eye(2, dtype=F64)[0]
fibonacci = readout_kernel(e1, W, e1, 12)
print([int(value) for value in fibonacci])
largest, golden = torch.linalg.eigvalsh(W).max(), (1 + math.sqrt(5)) / 2
agree("golden ratio: gradients explode", largest, golden, tol=1e-12)

# %% [markdown]
# **B** (5 minutes). Show with numbers that the composition (4.8) is associative but not commutative. Why does a scan need only the first?


# %% tags=["hide-cell"]
def after(second, first):
    return second[0] * first[0], second[0] * first[1] + second[1]


p, q, r = (2, 1), (3, 5), (-1, 4)
print("associative:", after(after(r, q), p) == after(r, after(q, p)))
print("commutative:", after(p, q) == after(q, p))

# %% [markdown]
# **C** (10 minutes). Your `prefix_scan` knows nothing of recurrences. Solve (4.5) with it.

# %% tags=["hide-cell"]
a = torch.rand(37, generator=draw, dtype=F64)
b = torch.randn(37, generator=draw, dtype=F64)
steps = list(zip(a, b, strict=True))
reached = prefix_scan(lambda earlier, later: after(later, earlier), steps)
h = torch.stack([offset for _, offset in reached])  # from h(-1) = 0
agree("prefixes of (4.8) = the loop", h, linear_recurrence(a, b), tol=1e-12)

# %% [markdown]
# **D** (10 minutes). Run (4.16) from the end with `linear_recurrence` and flips, for coefficients that change, and compare with exercise 4.5.

# %% tags=["hide-cell"]
g = torch.randn(37, generator=draw, dtype=F64)  # dL/dh_t as it arrives
to_a, to_b = reverse_pass(a, h, g)
ahead = torch.cat([a[1:], torch.zeros(1, dtype=F64)])  # a_(t+1) leads back to t
late = linear_recurrence(ahead.flip(0), g.flip(0)).flip(0)
agree("gradient in b", late, to_b, tol=1e-12)
before = torch.cat([torch.zeros(1, dtype=F64), h[:-1]])
agree("gradient in a", late * before, to_a, tol=1e-12)

# %% [markdown]
# **E** (20 minutes). A unit was trained at 100 samples a second with $\lambda$ and zero-order hold. Which $\lambda'$, of half its angle, runs it at 200, and what happens to $\gamma$ if it stands for the hold's gain $g$?

# %% tags=["hide-cell"]
r = torch.tensor(-3.0 + 10j, dtype=torch.complex128)
(coarse, g1), (fine, g2) = zero_order_hold(r, 0.01), zero_order_hold(r, 0.005)
agree("the new coefficient is the square root", fine**2, coarse, tol=1e-14)
agree("and the gain g becomes g / (1 + lambda')", g2, g1 / (1 + fine), tol=1e-14)

# %% [markdown]
# ## What the sources say
#
# | id | claim | verdict | where |
# |---|---|---|---|
# | CK-30 | $h(t) = W^{t+1}h(-1) + \sum_\tau W^\tau U x(t-\tau)$ | holds | 4.1 |
# | CK-31 | the unit is $\sum_\tau x(t-\tau)\psi(\tau)$ with $\psi = [U, WU, \dots, W^{t-1}uU, W^tU]$ | corrected: no $u$; $\psi(\tau)\,x(t-\tau)$; plus $W^{t+1}h(-1)$ | 4.1 |
# | CK-32 | gradients explode or vanish when the eigenvalue of $W$ is not 1 | corrected: the largest modulus decides in the long run; on the circle Jordan blocks; before that, non-normality | 4.5 |
# | CK-33 | the kernels are of one class, exponential functions | corrected: sums of exponentials times polynomials, and any kernel that ends after $n$ steps | 4.3 |
# | CK-34 | so CKConv is more flexible than an RNN | holds if the state size is held fixed and the RNN is linear; with as many states as taps there is no difference, and at equal parameters the target decides | 4.3 |
#
# ## Further reading
#
# - A. Orvieto and others (2023), *Resurrecting recurrent neural networks for long sequences*: the unit of 4.6. [arXiv:2303.06349](https://arxiv.org/abs/2303.06349)
# - D. Romero and others (2021), *CKConv: continuous kernel convolution for sequential data*, which draws the connection of this chapter. [arXiv:2102.02611](https://arxiv.org/abs/2102.02611)
# - A. Gu, K. Goel and C. Ré (2021), *Efficiently modeling long sequences with structured state spaces*. [arXiv:2111.00396](https://arxiv.org/abs/2111.00396)
# - G. Blelloch (1990), *Prefix sums and their applications*, Carnegie Mellon University, CMU-CS-90-190: the scan.
# - R. Roy and T. Kailath (1989), *ESPRIT*: the fit of 4.3. [doi:10.1109/29.32276](https://doi.org/10.1109/29.32276)
# - R. Pascanu, T. Mikolov and Y. Bengio (2013), *On the difficulty of training recurrent neural networks*. [arXiv:1211.5063](https://arxiv.org/abs/1211.5063)
# - A. Katharopoulos and others (2020), *Transformers are RNNs*: linear attention. [arXiv:2006.16236](https://arxiv.org/abs/2006.16236)
#
# **In the package.** Each function of this chapter, with its docstring and a way back to its section: [the reference](../book/api.md#chapter-4-the-linear-recurrent-unit).
