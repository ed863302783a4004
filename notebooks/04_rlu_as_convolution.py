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
# - $h(t) = W h(t-1) + U x(t)$ is the convolution with the kernel $U, WU, W^2U, \dots$ **plus** the term $W^{t+1}h(-1)$ of the initial state (4.1).
# - A loop, an explicit kernel, an FFT and a parallel scan compute the same numbers up to rounding; they differ in how many operations must wait for another (4.2).
# - The kernels are sums of exponentials *times polynomials*. With $n$ states they include every kernel that ends after $n$ steps, so "exponentials only" is too narrow (4.3, 4.4).
# - Gradients are governed by $W^T$ to a power. It is the modulus of the eigenvalues that decides in the long run, and before that the angle between the eigenvectors (4.5).
# - Three choices make the unit trainable over long sequences: $|\lambda| < 1$ by construction, a start on a ring, and a gain $\sqrt{1-|\lambda|^2}$ (4.6).
# - The kernel is a sampled continuous kernel, so this is a special case of chapter 3; for sums of exponentials, **irregular times** cost $O(N)$ instead of $O(N^2)$, exactly (4.7).
# - What breaks: powers in single precision, dividing by cumulative products, $1-|\lambda|^2$ next to the circle (4.8).
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
    if subprocess.run(pip).returncode:
        raise SystemExit(f"no network? Install it by hand, then rerun: {source}")
from ckutils.checks import describe_runtime

print(describe_runtime())

# %%
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
left_of = {"initial state 8": [4, 2, 1, 0.5], "x(0) = 4": [4, 2, 1, 0.5], "x(2) = 2": [0, 0, 2, 1]}
bottom = np.zeros(4)
fig, ax = plt.subplots(figsize=(5, 2.4))
for (name, part), colour in zip(left_of.items(), COLOURS.values(), strict=False):
    _ = ax.bar(range(4), part, 0.6, bottom=bottom, label=name, color=colour)
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
# First the definition, letter by letter.

# %%
n, c, T = 3, 2, 40
W = 0.9 * torch.linalg.qr(torch.randn(n, n, generator=draw, dtype=F64))[0]
U = torch.randn(n, c, generator=draw, dtype=F64)
x = torch.randn(1, c, T, generator=draw, dtype=F64)      # (b, c, t)
start = torch.randn(1, n, generator=draw, dtype=F64)     # h(-1)

h = torch.zeros(1, n, T, dtype=F64)
for t in range(T):
    h[0, :, t] = torch.linalg.matrix_power(W, t + 1) @ start[0]
    for tau in range(t + 1):
        h[0, :, t] += torch.linalg.matrix_power(W, tau) @ U @ x[0, :, t - tau]   # (4.2)
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
# Three letters need a correction. The tap before the last carries a stray $u$; it is $W^{t-1}U$. The product $x(t-\tau)\,\psi(\tau)$ has the operands in an order that matrices do not allow as soon as $n \neq 1$ or $c \neq 1$; it is $\psi(\tau)\,x(t-\tau)$. And the initial state is gone: the sum alone is $h(t)$ only from $h(-1) = 0$. The cell tries all three.

# %%
psi = lru_kernel(W, U, T)                                # (n, c, T)
try:
    _ = x[0, :, 5] @ psi[..., 0]                         # the order in the notes: (c,) @ (n, c)
except RuntimeError:
    print("x(t - tau) psi(tau) does not type-check:", tuple(x[0, :, 5].shape), tuple(psi[..., 0].shape))
agree("next to last tap is W^(t-1) U", psi[..., T - 2], torch.linalg.matrix_power(W, T - 2) @ U, tol=1e-12)
without = lru_conv(W, U, x)
agree("sum alone = recurrence from h(-1) = 0", without, lru_loop(W, U, x), tol=1e-12)
lost = (h - without).norm(dim=1)[0]
print("the sum alone misses the initial state at t = 0 by", round(float(lost[0] / h[..., 0].norm()), 2), "of |h(0)|")

# %% [markdown]
# ## 4.2 Four ways to one answer
#
# From here on the matrix is diagonal; 4.4 says when that is no loss. Each state then has its own scalar recurrence, and the coefficient may even change from step to step:
#
# $$
# h_t = a_t\, h_{t-1} + b_t, \qquad h_{-1} \text{ given}. \tag{4.8}
# $$
#
# For a constant $a_t = a$ and $b = Bx$ this is (4.1) with $W = \mathrm{diag}(a)$; the kernel is the geometric sequence $1, a, a^2, \dots$
#
# **1. The loop** is (4.8). Two operations a step, and each step waits for the one before.
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
# where $\operatorname{expm1}(z) = e^z - 1$ keeps its digits when $a\,\omega_f$ comes close to 1, and the value at $z_f = 0$ is $T$.
#
# **4. The scan** regroups. Two steps in a row are again one step: first $h \mapsto a_1 h + b_1$, then $h \mapsto a_2 h + b_2$, together
#
# $$
# (a_2, b_2) \circ (a_1, b_1) = (a_2 a_1,\; a_2 b_1 + b_2). \tag{4.9}
# $$
#
# This operation is associative, so any bracketing gives the same result, and brackets can be evaluated side by side. The package cuts time into blocks of 32 steps. Inside a block that starts at state $s$, the state after $j$ steps is
#
# $$
# h_j = p_j\, s + q_j, \qquad p_j = a_j\, p_{j-1}, \quad q_j = a_j\, q_{j-1} + b_j, \tag{4.10}
# $$
#
# with $p, q$ computed in all blocks at once. The starts $s$ of the blocks follow one another by (4.10) too, so they are a recurrence of $T/32$ steps, solved in the same way. Nothing is divided, and $T$ need not be a power of two.

# %%
from ckutils.scan import _blocked_scan

source(_blocked_scan)

# %% [markdown]
# **Should the recurrent and the convolutional mode give the same numbers, and why do mine not?** ([s4#115](https://github.com/state-spaces/s4/issues/115), [s4 PR#114](https://github.com/state-spaces/s4/pull/114), [mamba-minimal#11](https://github.com/johnma2006/mamba-minimal/issues/11)) They should, up to rounding, if three things hold: both modes use the *same* discretised coefficients, both include the initial state, and the tolerance is that of the arithmetic. In double precision a term that is $d$ steps old has passed $2d$ roundings in a loop; an FFT errs by about $\varepsilon \log_2 T\, \|a^t\|\, \|b\|$ at every $t$, also where $h_t$ is small.

# %%
from ckutils.recurrence import geometric_spectrum, powers

T, eps = 1000, torch.finfo(F64).eps
a = torch.polar(torch.tensor([0.5, 0.9, 0.999, 1.0], dtype=F64), torch.tensor([0.0, 2.0, 0.1, 3.0], dtype=F64))
b = torch.randn(4, T, generator=draw, dtype=torch.complex128)
s = torch.randn(4, generator=draw, dtype=torch.complex128)           # h(-1)
table = powers(a, T + 1)                                             # a^0, ..., a^T
loop = linear_recurrence(a[:, None], b, initial=s, method="loop")
kernel = torch.stack([(table[:, : t + 1] * b[:, : t + 1].flip(-1)).sum(-1) for t in range(T)], dim=-1)
kernel = kernel + table[:, 1:] * s[:, None]
fft = torch.fft.ifft(geometric_spectrum(a, T, 2 * T) * torch.fft.fft(b, 2 * T))[:, :T] + table[:, 1:] * s[:, None]
scan = linear_recurrence(a[:, None], b, initial=s, method="scan")
bound = 4 * eps * (math.log2(T) + 4) * float((table.abs().norm(dim=-1) * b.norm(dim=-1)).max())
print("bound below 1e-10:", bound < 1e-10)
for name, way in {"kernel": kernel, "FFT": fft, "scan": scan}.items():
    agree(f"{name} = loop, initial state included", way, loop, tol=bound)

# %% [markdown]
# In single precision the same comparison gives errors nearer to $10^{-4}$, and a check at $10^{-6}$ fails although nothing is wrong. That, a different discretisation of the two modes, and a forgotten initial state are what the threads found.
#
# **Has torch a parallel scan like JAX, or must I write the loop?** ([pytorch#95408](https://github.com/pytorch/pytorch/issues/95408), [tinygrad#3039](https://github.com/tinygrad/tinygrad/issues/3039)) There is one, `torch._higher_order_ops.associative_scan`, still behind an underscore, and its documentation calls it a prototype. Here is a scan in ten lines for any length: before each pass, entry $t$ of $(a, b)$ is the composition (4.9) of the last $r$ steps.

# %%
def scan_in_ten_lines(a, b):
    """h_t = a_t h_{t-1} + b_t from zero, in log2(T) passes; both (..., T)."""
    r = 1
    while r < b.shape[-1]:
        b = torch.cat([b[..., :r], b[..., r:] + a[..., r:] * b[..., :-r]], dim=-1)
        a = torch.cat([a[..., :r], a[..., r:] * a[..., :-r]], dim=-1)
        r *= 2
    return b

for length in (1, 2, 31, 32, 33, 1000):
    gates, inputs = torch.rand(4, length, generator=draw), torch.randn(4, length, generator=draw)
    want = linear_recurrence(gates.double(), inputs.double(), method="loop")
    agree(f"ten lines = loop, T = {length}", scan_in_ten_lines(gates, inputs), want, tol=1e-5)

# %% [markdown]
# ### Counting before timing
#
# **Why does associative scan lose to a loop on a CPU?** ([jax#18221](https://github.com/jax-ml/jax/issues/18221), [jax#14190](https://github.com/jax-ml/jax/issues/14190), [jax#19498](https://github.com/jax-ml/jax/issues/19498)) **And why does a recursive filter run hundreds of times slower on a GPU?** ([audio#1408](https://github.com/pytorch/audio/issues/1408), [cusignal#7](https://github.com/rapidsai/cusignal/issues/7)) Both answers are counts. The cell below runs each method while it counts calls of torch operations and multiplications.

# %%
from torch.utils._python_dispatch import TorchDispatchMode


class Count(TorchDispatchMode):
    """Counts calls that compute, and the products in them."""

    def __enter__(self):
        self.calls, self.products = 0, 0
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out, name = function(*args, **(kwargs or {})), function.overloadpacket.__name__
        self.calls += name in ("mul", "mul_", "add", "add_", "addcmul_", "copy_", "cat", "stack", "_fft_r2c", "_fft_c2r")
        self.products += out.numel() if name in ("mul", "mul_", "addcmul_") else 0
        return out

# %%
T = 16384
gates, inputs = torch.rand(1, T, generator=draw), torch.randn(1, T, generator=draw)
ways = {"loop": lambda: linear_recurrence(gates, inputs, method="loop"),
        "ten lines": lambda: scan_in_ten_lines(gates, inputs),
        "blocked scan": lambda: linear_recurrence(gates, inputs, method="scan")}
for name, run in ways.items():
    with Count() as count:
        _ = run()
    print(f"{name:13s} {count.products / T:6.2f} products a step, {count.calls:6d} calls, one after the other")

# %% [markdown]
# | method | products | steps that wait | coefficients may change |
# |---|---|---|---|
# | loop | $T$ | $T$ | yes |
# | explicit kernel | $T(T+1)/2$ | $\log_2 T$ (the sum) | no |
# | FFT | $\approx 3\cdot\tfrac12\cdot 2T\log_2 2T$ | $\log_2 2T$ | no |
# | scan, ten lines | $\approx 2T\log_2 T$ | $\log_2 T$ | yes |
# | scan, blocks of 32 | $\approx 3T$ | $\approx 32\log_{32} T$ | yes |
#
# A loop over tensors pays for calls, not for arithmetic. On a GPU each call is a launch of several microseconds, whatever it computes: tens of thousands of launches for a signal of two seconds at 8 kHz, with one multiplication each. The scan needs a few hundred and does three times the arithmetic; that wins wherever a call costs more than a few hundred products. In *compiled* code a loop step costs nanoseconds and no call, and there a scan that does $2\log_2 T$ times the work loses: that is the JAX report. (Where coefficients are constant, the FFT saves the loop's calls too: eight or so, whatever $T$ is.)
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
    return left[0] * right[0], left[1] * right[0] + right[1]                # (4.9)


def torch_scan(a, b):
    return associative_scan(compose, (a, b), 1, combine_mode="generic")[1]

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Time relative to the blocked scan against sequence length for loop, ten-line scan, torch's associative scan and FFT, on logarithmic axes; the loop grows to about a hundred times."}}
lengths, ratio = [64, 512, 4096, 16384], {}
for length in lengths:
    g, i = torch.rand(32, length), torch.randn(32, length)
    base = seconds(lambda: linear_recurrence(g, i), 9)
    runs = {"loop": (lambda: linear_recurrence(g, i, method="loop"), 1), "ten lines": (lambda: scan_in_ten_lines(g, i), 5),
            "torch's scan": (lambda: torch_scan(g, i), 5), "FFT": (lambda: linear_recurrence(g[:, :1], i, method="fft"), 5)}
    for name, (run, repeats) in runs.items():
        ratio.setdefault(name, []).append(seconds(run, repeats) / base)
fig, ax = plt.subplots(figsize=(6, 2.8))
for name, values in ratio.items():
    _ = ax.loglog(lengths, values, "o-", label=name)
_ = ax.axhline(1, color="black", linewidth=0.8)
_ = ax.set(xlabel="length T (steps)", ylabel="time / blocked scan's time")
_ = ax.legend(ncols=2)
plt.show()
print({name: [round(v, 1) for v in values] for name, values in ratio.items()})

# %% [markdown]
# Above the line the blocked scan is faster. Against the Python loop there is no crossover beyond about one block: the loop's cost is calls. With complex numbers the picture is the same; a complex product is four real ones for every method. On a GPU: **not measured**; the same code runs there (`linear_recurrence` runs where its inputs are), and the counts above say what to expect.
#
# **Can I scan a dense transition matrix, or only a diagonal one?** ([minimal-LRU#3](https://github.com/NicolasZucchet/minimal-LRU/issues/3), [pytorch#120189](https://github.com/pytorch/pytorch/issues/120189)) The answer in the first thread, that a dense matrix rules out the parallel scan, is too strong. Composition (4.9) with matrices, $(W_2W_1,\; W_2 b_1 + b_2)$, is as associative as with numbers. What it rules out is a *cheap* scan: each composition multiplies two matrices, $n^3$ products where the diagonal form has $n$. Below: exact, counted, and equal to the diagonalised version (section 4.4).

# %%
def dense_scan(W, b):
    """h(t) = W_t h(t-1) + b_t; W (T, n, n), b (T, n); ten lines again, with matrices."""
    r = 1
    while r < len(b):
        b = torch.cat([b[:r], b[r:] + torch.einsum("tij,tj->ti", W[r:], b[:-r])])
        W = torch.cat([W[:r], W[r:] @ W[:-r]])
        r *= 2
    return b


n, T = 8, 500
W = 0.98 * torch.linalg.qr(torch.randn(n, n, generator=draw, dtype=F64))[0]
b = torch.randn(T, n, generator=draw, dtype=F64)
want = lru_loop(W, torch.eye(n, dtype=F64), b.T[None])[0].T
agree("dense scan = loop", dense_scan(W.expand(T, n, n), b), want, tol=1e-12)
lam, V = torch.linalg.eig(W)
z = linear_recurrence(lam[:, None], torch.linalg.solve(V, b.T.to(V.dtype)))     # (n, T)
agree("diagonalised scan = loop", (V @ z).real.T, want, tol=1e-12)
print("products a composition: dense", n**3 + n**2, "diagonal", 2 * n)
# %% [markdown]
# ## 4.3 Which kernels can a recurrence make?
#
# Read the state out with a row $C$ and the scalar kernel is $\psi(\tau) = C W^\tau U$. Numbers first. Take one eigenvalue, $0.9$, once as two separate states and once as a chain in which the first state feeds the second:
#
# $$
# W_1 = \begin{pmatrix} 0.9 & 0 \\ 0 & 0.9 \end{pmatrix}: \; \psi(\tau) = c\,0.9^\tau, \qquad
# W_2 = \begin{pmatrix} 0.9 & 1 \\ 0 & 0.9 \end{pmatrix}: \; \psi(\tau) = \tau\, 0.9^{\tau-1} \text{ for } C = (1, 0),\; U = (0, 1)^T.
# $$
#
# The second kernel starts at 0, rises to lag 9 or 10 and only then decays: it is no sum of exponentials. In general, a Jordan block of size $m$ with eigenvalue $\lambda$ contributes
#
# $$
# \psi(\tau) = \sum_{k=0}^{m-1} c_k \binom{\tau}{k} \lambda^{\tau-k}, \tag{4.11}
# $$
#
# and with all blocks together $n$ states make exactly the sums of exponentials times polynomials whose degrees add up to at most $n$. At $\lambda = 0$ the block is a shift register: $W$ moves each entry on by one place and $\psi$ is *any* kernel that ends after $n$ steps. So this is the class:
#
# $$
# \psi(\tau) = C W^{\tau} U = \sum_{i} P_i(\tau)\, \lambda_i^{\tau} \;+\; \text{any values at } \tau < n_0, \tag{4.12}
# $$
#
# with $n_0$ the multiplicity of the eigenvalue 0. The notes' "one specific class: exponential functions" is right for a diagonalisable, invertible $W$ and too narrow otherwise.

# %%
def readout_kernel(C, W, U, length):
    return torch.einsum("n,nct->t", C, lru_kernel(W, U[:, None], length))


lag = torch.arange(60, dtype=F64)
W2, first, second = torch.tensor([[0.9, 1], [0, 0.9]], dtype=F64), *torch.eye(2, dtype=F64)
jordan = readout_kernel(first, W2, second, 60)
agree("Jordan block = tau 0.9^(tau-1)", jordan, lag * 0.9 ** (lag - 1), tol=1e-12)
boxcar = (lag < 24).to(F64)
shift = torch.diag(torch.ones(23, dtype=F64), -1)              # W e_k = e_(k+1), nilpotent
agree("24 states of a shift register = boxcar of 24", readout_kernel(boxcar[:24], shift, torch.eye(24, dtype=F64)[0], 60), boxcar, tol=0)
print("largest eigenvalue of the shift:", float(torch.linalg.eigvals(shift).abs().max()), "; Jordan peak at lag", int(jordan.argmax()))

# %% [markdown]
# ### The other way round: fit a given kernel
#
# Any finite kernel is reached *exactly* with as many states as taps. How many are needed for a good approximation? `fit_exponentials` finds poles from the shifts of a Hankel matrix (ESPRIT) and weights by least squares:
#
# $$
# \psi(\tau) \approx \operatorname{Re} \sum_{k=1}^{n} c_k\, a_k^{\tau}, \qquad |a_k| \le 1. \tag{4.13}
# $$
#
# Five targets of 256 taps: a CKConv kernel as chapter 3 makes it (a SIREN under a Gaussian window), the same SIREN without the window, a sinusoid, a boxcar, and the Jordan kernel. **How fast does the error fall with the number of exponentials?**

# %%
from ckutils.kernel_nets import GaussianMask, Siren
from ckutils.recurrence import fit_exponentials

torch.manual_seed(0)
lag = torch.arange(256, dtype=F64)
net, positions = Siren(1, 1, omega_0=10.0).double(), 1 - 2 * lag[:, None] / 255
with torch.no_grad():
    bare, windowed = net(positions)[:, 0], GaussianMask(net, width=0.5).double()(positions)[:, 0]
targets = {"CKConv, windowed": windowed, "CKConv, bare": bare, "sinusoid": torch.sin(0.3 * lag),
           "boxcar": (lag < 100).to(F64), "Jordan block": lag * 0.9 ** (lag - 1)}
sizes = [1, 2, 4, 8, 16, 32, 64]
error = {name: [float((fit_exponentials(target, n).kernel(256) - target).norm() / target.norm()) for n in sizes]
         for name, target in targets.items()}
for name, values in error.items():
    print(f"{name:17s}", "error below 1e-5 at n =", next((n for n, e in zip(sizes, values, strict=True) if e < 1e-5), "none of these"))

# %% mystnb={"image": {"alt": "Left: the five target kernels. Right: relative error of the fit against the number of exponentials; sinusoid and Jordan block drop at two, the windowed CKConv kernel at 32, the bare one stays near 20 percent, the boxcar falls slowly to 4 percent."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3))
for row, (name, target) in enumerate(targets.items()):
    _ = left.plot(lag, target / target.abs().max() - 2.3 * row)
    _ = right.loglog(sizes, np.maximum(error[name], 1e-16), "o-", label=name)
_ = left.set(xlabel="lag (steps)", ylabel="kernels, scaled and moved apart", yticks=[])
_ = right.set(xlabel="number of exponentials n", ylabel="relative error", xticks=sizes, xticklabels=sizes)
right.minorticks_off()
_ = right.legend(fontsize=7)
plt.show()
print(digest(windowed=windowed, boxcar_error=np.array(error["boxcar"])))

# %% [markdown]
# A sinusoid takes two exponentials, a conjugate pair. The Jordan kernel gets there with two poles that nearly coincide: a difference quotient in place of a derivative. The windowed CKConv kernel is smooth and dies away, and 32 terms reproduce it to more digits than float32 has. The boxcar's edge costs many terms: its error falls about like $n^{-1/2}$. The bare SIREN kernel is as large at its last lag as anywhere and then stops; decaying exponentials cannot follow it there, and the error stays near 20 %. So: smooth kernels that die away are cheap, edges are not.
#
# **Is the continuous kernel "more flexible than an RNN"?** It depends on what is held equal. The recurrent model meant here is the *linear* one; a nonlinear RNN is no convolution at all. With as many states as taps, a linear recurrence makes every finite kernel (the shift register above), so as classes of finite kernels neither is larger. At equal numbers of parameters the target decides: 16 exponentials, which are 64 real numbers, against a SIREN with 61 weights trained by Adam.

# %%
from ckutils.training import count_weights, fit

torch.manual_seed(1)
inputs, network = positions.float(), {}
for name in ("CKConv, bare", "sinusoid", "boxcar"):
    goal = targets[name].float()[:, None]
    goal = goal / goal.std()
    net = Siren(1, 1, hidden_features=6, omega_0=12.0, weight_norm=False)
    _ = fit(net, torch.nn.MSELoss(), inputs, goal, epochs=600, batch_size=256, learning_rate=1e-2, schedule=lambda f: 1 - f)
    with torch.no_grad():
        network[name] = float((net(inputs) - goal).norm() / goal.norm())
print("weights of the network:", count_weights(net), "; numbers in 16 exponentials:", 4 * 16)
print("bare SIREN kernel: network under a third of the exponentials' error:", network["CKConv, bare"] < error["CKConv, bare"][4] / 3)
print("sinusoid: exponentials under a thousandth of the network's error:", error["sinusoid"][4] < network["sinusoid"] / 1000)
print("boxcar: both between 2 % and 25 %:", all(0.02 < e < 0.25 for e in (network["boxcar"], error["boxcar"][4])))

# %% [markdown]
# ### Where the recurrence wins: a state of fixed size
#
# A convolution that runs on a live signal must remember as many past samples as its kernel is long. A sum of $n$ exponentials remembers $n$ numbers, forever. The cell streams spoken digits (8 kHz, real waveforms) sample by sample through the 32 exponentials of the windowed kernel, and compares with the whole convolution. (The exponentials go on where the CKConv kernel stops at its horizon; the window has shrunk to $e^{-8}$ there, which is the difference that the second line bounds.)

# %%
from ckutils.datasets import spoken_digits
from ckutils.fftconv import causal_conv

wave = spoken_digits().waveforms[0].double()                       # (t,)
poles, weights = fit_exponentials(windowed, 32)
state, streamed = torch.zeros(32, dtype=poles.dtype), []
for sample in wave:
    state = poles * state + sample                                 # all that is remembered
    streamed.append((weights @ state).real)
streamed = torch.stack(streamed)
recurrent_kernel = (weights @ powers(poles, len(wave))).real       # it goes on beyond 256 lags
agree("streamed = convolution with its kernel", streamed, causal_conv(wave[None, None], recurrent_kernel[None, None])[0, 0], tol=1e-6)
finite = causal_conv(wave[None, None], windowed[None, None])[0, 0]
print("close to the CKConv kernel itself, relative error below 1e-3:", bool((streamed - finite).norm() < 1e-3 * finite.norm()))
print("numbers remembered: recurrence", 2 * len(state), "for any length; convolution", len(windowed) - 1, "for a horizon of", len(windowed))
# %% [markdown]
# ## 4.4 From a dense matrix to n numbers
#
# If $W = V \Lambda V^{-1}$ with $\Lambda = \operatorname{diag}(\lambda_1, \dots, \lambda_n)$, the new state $z = V^{-1}h$ has separate entries:
#
# $$
# z_t = \Lambda z_{t-1} + V^{-1} U x_t, \qquad h_t = V z_t, \qquad \psi(\tau) = V \Lambda^{\tau} V^{-1} U. \tag{4.5}
# $$
#
# The price is complex numbers, and a condition: $V$ must be invertible, and in floating point well enough so. Take the chain of 4.3 with two eigenvalues $\delta$ apart,
#
# $$
# W = \begin{pmatrix} 0.9 & 1 \\ 0 & 0.9 + \delta \end{pmatrix}, \qquad V = \begin{pmatrix} 1 & 1 \\ 0 & \delta \end{pmatrix}, \qquad \operatorname{cond}(V) \approx 2/\delta. \tag{4.14}
# $$
#
# At $\delta = 0$ the matrix is *defective*: one eigenvector only. Before that it is *ill-conditioned*: the states $z$ are large and nearly cancel in $Vz$, which costs about $\log_{10}(2/\delta)$ digits. **How many digits are left?**

# %% mystnb={"image": {"alt": "Relative error of the diagonalised recurrence against the distance of the two eigenvalues: it grows as the inverse of the distance, from machine precision to order one."}}
U, x = torch.tensor([[0.0], [1.0]], dtype=F64), torch.randn(1, 1, 300, generator=draw, dtype=F64)
deltas, errors = 10.0 ** -np.arange(1, 16), []
for delta in deltas:
    W = torch.tensor([[0.9, 1.0], [0.0, 0.9 + delta]], dtype=F64)
    lam, V = torch.linalg.eig(W)
    z = linear_recurrence(lam[:, None], torch.linalg.solve(V, U.to(V.dtype)) * x[0])
    want = lru_loop(W, U, x)[0]
    errors.append(float(((V @ z).real - want).norm() / want.norm()))
fig, ax = plt.subplots(figsize=(5.5, 2.6))
_ = ax.loglog(deltas, errors, "o-", label="diagonalised against loop")
_ = ax.loglog(deltas, 2.2e-16 / deltas, "--", color="black", label="machine precision / distance")
_ = ax.set(xlabel="distance of the eigenvalues", ylabel="relative error")
_ = ax.legend()
plt.show()
print("errors rise from below 1e-13 to above 1e-4:", errors[0] < 1e-13 and errors[-1] > 1e-4)

# %% [markdown]
# A random matrix is never exactly defective, but it may be ill-conditioned. Learning $\lambda$ directly, as the linear recurrent unit does, avoids the question: whatever the parameters are, the state is diagonal.
#
# **Why twice the real part, and what do the sign of the imaginary part and an odd state size change?** ([s4#120](https://github.com/state-spaces/s4/issues/120), [s4#160](https://github.com/state-spaces/s4/issues/160), [annotated-s4#74](https://github.com/srush/annotated-s4/issues/74), [celerite#152](https://github.com/dfm/celerite/issues/152)) A real $W$ has its complex eigenvalues in conjugate pairs, and so are the weights $c_k$ of its kernel. A pair adds up to $c\lambda^\tau + \bar c\bar\lambda^\tau = 2\operatorname{Re}(c\lambda^\tau)$, so half the states are enough. It does not matter which of the two is kept: conjugating both $c$ and $\lambda$ leaves the real part. But an odd $n$ has a real eigenvalue, which is no pair; code that stores $\lfloor n/2\rfloor$ complex states loses it.

# %%
W = 0.95 * torch.linalg.qr(torch.randn(5, 5, generator=draw, dtype=F64))[0]
u, C = torch.randn(5, generator=draw, dtype=F64), torch.randn(5, generator=draw, dtype=F64)
want = readout_kernel(C, W, u, 40)
lam, V = torch.linalg.eig(W)
c = (C.to(V.dtype) @ V) * torch.linalg.solve(V, u.to(V.dtype))     # psi(tau) = sum c lam^tau
upper, single = lam.imag > 1e-9, lam.imag.abs() < 1e-9
pairs = 2 * (c[upper] @ powers(lam[upper], 40)).real
rest = (c[single] @ powers(lam[single], 40)).real
agree("twice the real part of one of each pair, and the real eigenvalue", pairs + rest, want, tol=1e-12)
agree("the other one of each pair", 2 * (c[upper].conj() @ powers(lam[upper].conj(), 40)).real, pairs, tol=1e-12)
print("states: 5 =", 2 * int(upper.sum()), "in pairs +", int(single.sum()), "alone")
print("without the real eigenvalue the kernel is off by more than 1 %:", bool((pairs - want).norm() > 0.01 * want.norm()))

# %% [markdown]
# ## 4.5 What gradients do
#
# By (4.2), the last state depends on an early one through a power of $W$, whatever the inputs are:
#
# $$
# \frac{\partial h_T}{\partial h_0} = W^{T}, \qquad \Big\|\frac{\partial h_T}{\partial h_0}\Big\| = \|W^T\| \ge \rho^T, \quad \rho = \max_i |\lambda_i|. \tag{4.15}
# $$
#
# The notes say: exploding and vanishing gradients occur when the eigenvalue of $W$ is not equal to 1. That sentence needs the modulus, and it needs more than eigenvalues. **How does $\|W^T\|$ behave for spectra below, on and above the circle?**

# %% mystnb={"image": {"alt": "Norm of the powers of seven matrices against the power: below the circle they fall, on it they stay at one or grow linearly for a Jordan block, above they explode; a non-normal matrix with eigenvalues 0.9 and 0.8 first grows to about eleven."}}
def turn(angle):
    return [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]


matrices = {"0.9": [[0.9]], "0.99": [[0.99]], "-1": [[-1.0]], "pair on the circle": turn(1.0), "1.02": [[1.02]],
            "Jordan block at 1": [[1.0, 1], [0, 1]], "0.9 and 0.8, non-normal": [[0.9, 4], [0, 0.8]]}
steps, norms = torch.arange(0, 201), {}
for name, rows in matrices.items():
    W = torch.tensor(rows, dtype=F64)
    norms[name] = torch.stack([torch.linalg.matrix_norm(torch.linalg.matrix_power(W, int(k)), 2) for k in steps])
fig, ax = plt.subplots(figsize=(6.4, 3))
for name, style in zip(norms, ("-", "-", "-", "--", "-", "-", "-"), strict=True):
    _ = ax.semilogy(steps, norms[name], style, label=name)
_ = ax.set(xlabel="T (steps)", ylabel="spectral norm of W^T", ylim=(1e-8, 1e3))
_ = ax.legend(title="eigenvalues of W", loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
print(digest(non_normal=norms["0.9 and 0.8, non-normal"], jordan=norms["Jordan block at 1"]))

# %%
at = {name: float(values[200]) for name, values in norms.items()}
print("eigenvalue -1 and a pair on the circle, none equal to 1, norm at T = 200:", round(at["-1"], 6), round(at["pair on the circle"], 6))
print("eigenvalue equal to 1, Jordan block: norm", round(at["Jordan block at 1"]), "and growing")
bump = norms["0.9 and 0.8, non-normal"]
print("non-normal, all |lambda| < 1: peak", round(float(bump.max()), 1), "at T =", int(bump.argmax()), "; below 1e-6 at T = 200:", at["0.9 and 0.8, non-normal"] < 1e-6)
print("0.99 at T = 200:", round(at["0.99"], 3), "; at T = 10,000 below 1e-40:", 0.99**10_000 < 1e-40)

# %% [markdown]
# The corrected sentence:
#
# > **Long-run gradients of a linear recurrence.** If $\rho < 1$, $\|W^T\| \to 0$ like $\rho^T$ up to a polynomial factor: the gradient from step $T$ back to step 0 vanishes. If $\rho > 1$ it explodes. If $\rho = 1$ it does neither, provided that every eigenvalue on the circle, $1$ or not, has a full set of eigenvectors; a Jordan block there grows like a polynomial. For non-normal $W$ this says nothing about the first steps: the norm may grow by orders of magnitude before it falls.
#
# And vanishing concerns the *path* from step 0 to step $T$. The gradient of a parameter sums over all paths, short ones included, and does not vanish. With $l_t$ the whole gradient at $h_t$ and $g_t$ what arrives there from the loss,
#
# $$
# l_t = g_t + W^T l_{t+1}, \qquad \frac{\partial L}{\partial b_t} = l_t, \tag{4.16}
# $$
#
# which is the same recurrence run from the end; the package's reverse pass is a scan and stores the states, not a loop. (Here $W^T$ is the transpose; for complex numbers the conjugate.) For one eigenvalue and $h_T = \sum_s \lambda^s x_{T-s}$ from a zero state,
#
# $$
# \frac{\partial h_T}{\partial \lambda} = \sum_{s=1}^{T} s\,\lambda^{s-1} x_{T-s}. \tag{4.17}
# $$

# %%
T = 400
lam = torch.tensor(0.9, dtype=F64, requires_grad=True)
x, start = torch.randn(T + 1, generator=draw, dtype=F64), torch.tensor(1.0, dtype=F64, requires_grad=True)
last = linear_recurrence(lam.reshape(1), x, initial=start)[-1]
g_lam, g_start = torch.autograd.grad(last, (lam, start))
s = torch.arange(1, T + 1, dtype=F64)
closed = (s * 0.9 ** (s - 1) * x.flip(0)[1:]).sum() + (T + 1) * 0.9**T
agree("d h_T / d lambda: autograd through the scan = (4.17) with the initial state's term", g_lam, closed, tol=1e-10)
agree("d h_T / d h(-1) = lambda^(T+1)", g_start, 0.9 ** (T + 1), tol=1e-25)
print("the path to the start has vanished:", bool(g_start < 1e-15), "; the parameter's gradient has not:", bool(g_lam.abs() > 1e-3))

# %% [markdown]
# **Is the gradient of a complex parameter the conjugate of what I expect?** ([pytorch#41857](https://github.com/pytorch/pytorch/issues/41857), [jax#9110](https://github.com/jax-ml/jax/issues/9110), [jax#4891](https://github.com/jax-ml/jax/issues/4891), [tensorflow#3348](https://github.com/tensorflow/tensorflow/issues/3348)) For a real loss $L(\lambda)$ the direction of steepest ascent is $\partial L/\partial \operatorname{Re}\lambda + i\,\partial L/\partial \operatorname{Im}\lambda$. Finite differences measure exactly this, torch returns exactly this, and JAX returns its conjugate (the tests of this chapter check both). A step along the wrong one may climb.

# %%
x = torch.randn(50, generator=draw, dtype=torch.complex128)


def loss(lam):
    return (linear_recurrence(lam.reshape(1), x)[-1] - 1).abs() ** 2


lam = torch.tensor(0.7 + 0.5j, dtype=torch.complex128, requires_grad=True)
(grad,) = torch.autograd.grad(loss(lam), lam)
with torch.no_grad():
    e = 1e-6
    by_differences = torch.complex((loss(lam + e) - loss(lam - e)) / (2 * e), (loss(lam + 1j * e) - loss(lam - 1j * e)) / (2 * e))
    agree("torch's gradient = steepest ascent by differences", grad, by_differences, tol=1e-6 * float(grad.abs()))
    step = 1e-3 / grad.abs()
    down, other = loss(lam - step * grad), loss(lam - step * grad.conj())
print("a step against it lowers the loss:", bool(down < loss(lam)), "; and more than the conjugate's step:", bool(down < other))

# %% [markdown]
# **What should Adam do with complex parameters: one second moment or two?** ([pytorch#59998](https://github.com/pytorch/pytorch/issues/59998), [tensorflow#38541](https://github.com/tensorflow/tensorflow/issues/38541), [neuraloperator PR#420](https://github.com/neuraloperator/neuraloperator/pull/420)) torch treats a complex number as two reals, each with a second moment of its own: a run with a complex parameter and one with the pair coincide. The other rule keeps one moment, of $|g|^2$. The difference shows when the problem is turned in the complex plane: the modulus rule turns with it, the rule of pairs does not.

# %%
def descend(start, goal, rule, steps=60, rate=0.05):
    """Minimise |z - goal|^2 by Adam; `rule` gives what is averaged as second moment."""
    z, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(torch.view_as_real(start))
    for k in range(1, steps + 1):
        g = 2 * (z - goal)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * rule(g)
        hat = torch.view_as_real(m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)).sqrt() + 1e-8)
        z = z - rate * torch.view_as_complex(hat)
    return z


rules = {"pairs": lambda g: torch.view_as_real(g) ** 2, "modulus": lambda g: (g.abs() ** 2)[..., None].expand(*g.shape, 2)}
z0, goal = torch.tensor([2 + 0.3j], dtype=torch.complex128), torch.tensor([-1 + 0.1j], dtype=torch.complex128)
ends = {}
for name, start in {"complex": z0.clone(), "real pair": torch.view_as_real(z0).clone()}.items():
    parameter = torch.nn.Parameter(start)
    adam = torch.optim.Adam([parameter], lr=0.05)
    for _ in range(60):
        adam.zero_grad()
        value = parameter if parameter.is_complex() else torch.view_as_complex(parameter)
        (value - goal).abs().square().sum().backward()
        adam.step()
    ends[name] = value.detach()

# %%
agree("torch: complex parameter = real pair", ends["complex"], ends["real pair"], tol=1e-14)
spin = torch.polar(torch.tensor(1.0, dtype=F64), torch.tensor(0.7, dtype=F64))
for name, rule in rules.items():
    plain, turned = descend(z0, goal, rule), descend(spin * z0, spin * goal, rule) / spin
    print(f"{name:8s} the turned problem takes the turned path:", bool((plain - turned).abs() < 1e-9))
# %% [markdown]
# ## 4.6 The modern parametrisation
#
# A linear recurrent unit learns $\lambda$ directly. Three choices make that work ([Orvieto et al., 2023](https://arxiv.org/abs/2303.06349)).
#
# **Stable by construction.** A step of gradient descent on $\lambda$ itself can leave the disc. With two exponentials it cannot:
#
# $$
# \lambda = \exp\!\big(-e^{\nu} + i\,e^{\theta}\big), \qquad |\lambda| = e^{-e^{\nu}} \in (0, 1) \text{ for every real } \nu. \tag{4.18}
# $$
#
# The modulus is resolved best where it matters: steps of $\nu$ change the memory $1/(1-|\lambda|) \approx e^{-\nu}$ by a factor, not by an amount.
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
# which grows without bound as $r_{\max} \to 1$. With $\gamma$ the ratio is 1. **Are the eigenvalues where they should be, and are the states as large as (4.21) says?**

# %%
from ckutils.recurrence import LinearRecurrentUnit

torch.manual_seed(42)
low, high = 0.5, 0.95
unit = LinearRecurrentUnit(4, 4096, 1, r_min=low, r_max=high).double()
lam = unit.lam.detach()
area = ((lam.abs() ** 2 - low**2) / (high**2 - low**2)).sort().values         # uniform on [0, 1]
rank = (torch.arange(len(area)) + 0.5) / len(area)
distance = float((area - rank).abs().max()) * math.sqrt(len(area))
print("Kolmogorov-Smirnov distance below 1.63, the 1 % bound:", distance < 1.63)
with torch.no_grad():
    x, gamma = torch.randn(2, 4, 700, generator=draw, dtype=F64), unit.gamma_log.exp()[:, None]
    h = unit.states(x)[..., 300:]                                          # the start is forgotten
    driven = (unit.B @ x.to(unit.B.dtype)).abs().square().mean()
without, with_gain = (h / gamma).abs().square().mean() / driven, h.abs().square().mean() / driven
formula = math.log((1 - low**2) / (1 - high**2)) / (high**2 - low**2)
print("without gamma within 3 % of (4.21):", bool((without / formula - 1).abs() < 0.03), "; formula", round(formula, 2))
print("with gamma within 3 % of 1:", bool((with_gain - 1).abs() < 0.03))

# %% mystnb={"image": {"alt": "Left: eigenvalues scattered over a ring between radii 0.5 and 0.95. Right: histogram of the squared modulus, flat, and of the modulus, rising."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
_ = left.plot(lam.real[:1000], lam.imag[:1000], ".", markersize=2)
_ = left.add_patch(plt.Circle((0, 0), 1, fill=False, color="black"))
_ = left.set(xlabel="real part", ylabel="imaginary part", aspect="equal", xlim=(-1.05, 1.05), ylim=(-1.05, 1.05))
_ = right.hist(area, 20, density=True, alpha=0.8, label="squared modulus, scaled to [0, 1]")
_ = right.hist((lam.abs() - low) / (high - low), 20, density=True, histtype="step", linewidth=2, label="modulus, scaled")
_ = right.set(xlabel="scaled value", ylabel="density", ylim=(0, 2))
_ = right.legend(loc="lower right")
plt.show()
counts = torch.histc(area, 4, 0, 1) / len(area)
print("quarters of the area each hold 25 % within 2 %:", bool(((counts - 0.25).abs() < 0.02).all()))

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
unit = LinearRecurrentUnit(3, 32, 2, r_min=0.8, r_max=0.999)
x = torch.randn(4, 3, 1000, generator=draw)
with torch.no_grad():
    parallel, state, streamed = unit(x), None, []
    for t in range(1000):
        y, state = unit.step(x[..., t], state)
        streamed.append(y)
    by_kernel = causal_conv(x.double(), unit.double().kernel(1000))
agree("streamed = parallel scan (float32)", torch.stack(streamed, -1), parallel, tol=1e-6 * float(parallel.abs().max()))
agree("parallel scan = convolution with (4.22) (float64)", unit(x.double()).detach(), by_kernel.detach(), tol=1e-10)

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


data = fashion_mnist_small()
train, test = (2 * (i[:, 0].mT - 0.286) / 0.353 for i in (data.train_images[:3000], data.test_images))

# %%
torch.manual_seed(0)
models = {"linear recurrent unit": Reader(LinearRecurrentUnit(28, 64, 64, r_min=0.5, r_max=0.99), 64),
          "GRU": Reader(nn.GRU(28, 53, batch_first=True), 53)}
reached = {}
for name, model in models.items():
    history = fit(model, nn.CrossEntropyLoss(), train, data.train_labels[:3000], epochs=4, batch_size=50,
                  learning_rate=5e-3, max_norm=1.0, schedule=lambda f: 1 - f, evaluate=lambda m: accuracy(m, test, data.test_labels))
    reached[name] = history.scores[-1]
    print(f"{name}: {count_weights(model)} weights, test accuracy above 0.70: {reached[name] > 0.70}")
print("within 0.07 of each other:", abs(reached["GRU"] - reached["linear recurrent unit"]) < 0.07)
print("all |lambda| still below 1:", bool((models["linear recurrent unit"].recurrence.lam.abs() < 1).all()))
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
# \text{bilinear:} \quad a = \frac{1 + z/2}{1 - z/2}, \quad g = \frac{\Delta}{1 - z/2}, \quad x_t = a\,x_{t-1} + g\,\frac{u_t + u_{t-1}}{2}. \tag{4.25}
# $$
#
# By hand, $r = -2$ and $\Delta = \tfrac12$ give $z = -1$: the hold has $a = e^{-1} = 0.368$ and $g = 0.316$, the bilinear rule $a = g = \tfrac13$. The hold is exact if $u$ is constant over each step, the bilinear rule follows a smooth $u$ better. **How does the error at $t = 10$ fall with the step, for $u(t) = \sin t$?**

# %% mystnb={"image": {"alt": "Error at time 10 against the step on logarithmic axes: zero-order hold falls in proportion to the step, bilinear with its square."}}
from ckutils.recurrence import bilinear, exponentials_at, zero_order_hold

rate, end = torch.tensor(-2.0, dtype=F64), 10.0
exact = (-rate * math.sin(end) - math.cos(end) + torch.exp(rate * end)) / (rate**2 + 1)
steps, held, trapezoid = [0.5 / 2**k for k in range(7)], [], []
for step in steps:
    u = torch.sin(step * torch.arange(round(end / step) + 1, dtype=F64))
    a, g = zero_order_hold(rate, step)
    held.append(float((linear_recurrence(a.reshape(1), g * u[1:])[-1] - exact).abs()))
    a, g = bilinear(rate, step)
    trapezoid.append(float((linear_recurrence(a.reshape(1), g * (u[1:] + u[:-1]) / 2)[-1] - exact).abs()))
fig, ax = plt.subplots(figsize=(5, 2.6))
_ = ax.loglog(steps, held, "o-", label="zero-order hold")
_ = ax.loglog(steps, trapezoid, "s-", label="bilinear")
_ = ax.set(xlabel="step (units of time)", ylabel="error of x(10)")
_ = ax.legend()
plt.show()
print("halving the step divides the error by", round(held[-2] / held[-1], 1), "and by", round(trapezoid[-2] / trapezoid[-1], 1))

# %% [markdown]
# ### The same kernel both ways
#
# CKConv asks a network for kernel values at positions. Nothing says that the network must be a SIREN: here it is a module that returns $\operatorname{Re}\sum_k c_k e^{r_k s}$. Then CKConv and the recurrence are the same layer, at the training rate and at any other: to change the resolution the recurrence changes its step, $a = e^{r\Delta}$, and both weight their sums with $\Delta$.

# %%
from ckutils.ckconv import CKConv


class ExponentialNet(nn.Module):
    """Position p = 1 - 2 s / (horizon - 1) -> Re sum_k c_k exp(r_k s)."""

    def __init__(self, rates, coefficients, horizon):
        super().__init__()
        self.reach = nn.Parameter(torch.tensor((horizon - 1) / 2, dtype=F64))
        self.rates, self.coefficients = nn.Parameter(rates), nn.Parameter(coefficients)

    def forward(self, positions):
        lags = (1 - positions) * self.reach                                   # (..., 1)
        return (torch.exp(lags * self.rates) @ self.coefficients[:, None]).real


# %%
rates = torch.tensor([-0.02 + 0.3j, -0.1 + 0.05j, -0.5 + 0j], dtype=torch.complex128)
coefficients = torch.tensor([0.5 - 0.2j, 1 + 0.3j, -0.8 + 0j], dtype=torch.complex128)
layer = CKConv(1, 1, kernel_net=ExponentialNet(rates, coefficients, 4000), horizon=4000, bias=False).requires_grad_(False)
hours = wave[:1000]
for density in (1, 2, 4):                                                     # samples per step
    a = torch.exp(rates / density)
    h = linear_recurrence(a[:, None], hours / density)                        # (k, t)
    agree(f"CKConv = recurrence, resolution {density}", layer(hours[None, None], resolution=density)[0, 0], (coefficients @ h).real, tol=1e-10)

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
source(exponentials_at)

# %%
times = (3 * torch.rand(900, generator=draw, dtype=F64)).cumsum(0)             # up to about 1,350
values, queries = torch.randn(1, 1, 900, generator=draw, dtype=F64), 1400 * torch.rand(500, generator=draw, dtype=F64)
weights = torch.rand(900, generator=draw, dtype=F64)
by_pairs = layer.at(times, values, queries, weights=weights)
by_scan = exponentials_at(times, values, queries, rates=rates, coefficients=coefficients[None, None], weights=weights)
agree("irregular scan = CKConv.at", by_scan, by_pairs, tol=1e-10)

# %% [markdown]
# **How does the time grow with the number of samples?**

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Seconds against number of samples on logarithmic axes: the scan grows in proportion up to a million samples, the sum over pairs with the square."}}
sizes, scan_seconds, pair_seconds = [1000, 10_000, 100_000, 1_000_000], [], []
for n in sizes:
    t, v = (3 * torch.rand(n, dtype=F64)).cumsum(0), torch.randn(1, n, dtype=F64)
    scan_seconds.append(seconds(lambda: exponentials_at(t, v, t[::10], rates=rates, coefficients=coefficients[None, None]), 3))
for n in (250, 500, 1000, 2000):
    t, v = (1.5 * torch.rand(n, dtype=F64)).cumsum(0), torch.randn(1, 1, n, dtype=F64)
    pair_seconds.append(seconds(lambda: layer.at(t, v, t), 1))
fig, ax = plt.subplots(figsize=(5.5, 2.8))
_ = ax.loglog(sizes, scan_seconds, "o-", label="scan, every tenth time queried")
_ = ax.loglog([250, 500, 1000, 2000], pair_seconds, "s-", label="CKConv.at, all pairs")
_ = ax.set(xlabel="samples N", ylabel="seconds")
_ = ax.legend()
plt.show()
print("a thousand times the samples take", round(scan_seconds[-1] / scan_seconds[0]), "times as long; doubling the pairs' N:", round(pair_seconds[-1] / pair_seconds[-2], 1))

# %% [markdown]
# ### On real vital signs
#
# Temperatures in intensive care are measured when somebody measures them. The windowed CKConv kernel of 4.3, over 96 hours, is fitted by 24 exponentials on a half-hour grid, and both run over the true times of the stays with the most measurements. **Can one see a difference?**

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
print(len(records), "stays,", sum(len(t) for t, _ in records), "temperatures; longest record:", len(records[0][0]), "in", int(records[0][0][-1] - records[0][0][0]), "hours")

# %%
torch.manual_seed(0)
net = GaussianMask(Siren(1, 1, omega_0=6.0), width=0.5)
ck = CKConv(1, 1, kernel_net=net, horizon=400, bias=False).double().requires_grad_(False)
on_grid = ck.kernel(800, resolution=2.0)[0, 0]                                  # every half hour
poles, amplitudes = fit_exponentials(on_grid, 24)
fitted_rates = torch.log(poles) / 0.5                                           # in 1 / hour
print("kernel of CKConv, relative error of 24 exponentials below 1e-5:",
      float(((amplitudes @ powers(poles, 800)).real - on_grid).norm() / on_grid.norm()) < 1e-5)
hour, temperature = records[0]
query = torch.arange(0, float(hour[-1]), 0.25, dtype=F64)                       # between the samples too
direct = ck.at(hour, temperature[None, None], query)[0, 0]
one_pass = exponentials_at(hour, temperature[None], query, rates=fitted_rates, coefficients=amplitudes[None, None])[0]
gap = float((one_pass - direct).abs().max() / direct.abs().max())
print("one record, largest difference below 1e-4 of the largest output:", gap < 1e-4)

# %% mystnb={"image": {"alt": "Above: irregular temperature measurements of one stay over about 300 hours. Below: the CKConv output and the output by exponentials lie on one another."}}
fig, (upper, lower) = plt.subplots(2, 1, figsize=(7.2, 3.6), sharex=True)
_ = upper.plot(hour, temperature + 37, ".", markersize=3)
_ = upper.set(ylabel="temperature (°C)")
_ = lower.plot(query, direct, linewidth=3, color=COLOURS["sky"], label="CKConv.at, all pairs")
_ = lower.plot(query, one_pass, "--", linewidth=1, color="black", label="24 exponentials, one pass")
_ = lower.set(xlabel="time in the stay (hours)", ylabel="output (°C)")
_ = lower.legend(ncols=2)
plt.show()
print(digest(output=direct))

# %% [markdown]
# All stays fit into *one* scan. Put them one behind the other and set $a_i = 0$ at each first sample: the state is forgotten there, exactly. A recurrence whose coefficients change in time can do that, a convolution cannot.

# %%
all_hours, all_values = (torch.cat([record[k] for record in records]) for k in (0, 1))
first = torch.cat([torch.arange(len(t)) == 0 for t, _ in records])
gaps = torch.diff(all_hours, prepend=all_hours[:1]).masked_fill(first, 0)
decay = torch.exp(fitted_rates[:, None] * gaps).masked_fill(first, 0)           # (24, N)


def all_stays():
    return (amplitudes @ linear_recurrence(decay, all_values.to(decay.dtype))).real


def pair_by_pair(count):
    return torch.cat([ck.at(t, v[None, None], t)[0, 0] for t, v in records[:count]])


want = pair_by_pair(100)
got = all_stays()[: len(want)]
print("temperatures in the scan:", len(all_values), "; compared:", len(want))
print("relative error below 1e-4:", bool((got - want).norm() < 1e-4 * want.norm()))

# %% tags=["nbval-ignore-output"]
per_sample = seconds(all_stays, 3) / len(all_values), seconds(lambda: pair_by_pair(100), 1) / len(want)
print(f"time per temperature: all pairs / one scan = {per_sample[1] / per_sample[0]:.0f}")

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
t, v = times, values[0]                                                        # 900 irregular samples
features = torch.cat([torch.cos(omega[:, None] * t), torch.sin(omega[:, None] * t)])     # (2 k, n)
attention = (features * (features * v).cumsum(-1)).sum(0)
by_scan = exponentials_at(t, v, t, rates=1j * omega, coefficients=torch.ones(1, 1, 16))[0]
pairs = (torch.cos(omega * (t[:, None] - t)[..., None]).sum(-1).tril() @ v[0])
agree("linear attention = sum over pairs", attention, pairs, tol=1e-8)
agree("scan with imaginary rates = sum over pairs", by_scan, pairs, tol=1e-8)
# %% [markdown]
# ## 4.8 Where it breaks
#
# **Powers in single precision.** With $\lambda^t$ computed as $e^{t\log\lambda}$ in complex64, the angle $t\arg\lambda$ is rounded to a relative $6\cdot10^{-8}$; at $t = 10^5$ and an angle of 1 a step that is an error of several thousandths of a radian. `powers` works in double and rounds once.

# %%
lam = torch.polar(torch.tensor(1.0), torch.tensor(1.0))                         # complex64
t = torch.arange(100_001)
exact = powers(lam.to(torch.complex128), 100_001)
naive = (torch.exp(t * torch.log(lam)) - exact).abs()
ours = (powers(lam, 100_001) - exact).abs()
print("complex64 exponentials at t = 100,000 off by more than 1e-4:", bool(naive.max() > 1e-4))
print("powers() off by less than 1e-7:", bool(ours.max() < 1e-7))

# %% [markdown]
# **A modulus within $10^{-7}$ of 1.** In float32 the numbers next to 1 are $6\cdot10^{-8}$ apart below it, so $|\lambda| = 1 - 10^{-7}$ cannot be stored: what is stored has another memory altogether. And $1 - |\lambda|^2$ subtracts nearly equal numbers. The parametrisation (4.18) stores $\nu$, and (4.20) goes from there to $\gamma$ without the subtraction.

# %%
size = torch.tensor([1e-7])                                                     # e^nu = -log |lambda|, float32
true = math.sqrt(-math.expm1(-2e-7))
subtracted = torch.sqrt(1 - torch.exp(-size) ** 2)
kept = torch.sqrt(-torch.expm1(-2 * size))
print("gamma by subtraction, relative error above 5 %:", abs(float(subtracted) / true - 1) > 0.05)
print("gamma by expm1, relative error below 1e-6:", abs(float(kept) / true - 1) < 1e-6)
memory = -1 / math.log(float(torch.exp(-size)))                                 # of the |lambda| that float32 stores
print("memory meant: 10,000,000 steps; memory of the stored modulus:", f"{memory:,.0f}")

# %% [markdown]
# **Is cumulative sum in log space a safe way to solve the recurrence?** ([accelerated-scan#11](https://github.com/proger/accelerated-scan/issues/11), [heinsen_sequence#1](https://github.com/glassroom/heinsen_sequence/issues/1), [pytorch#52213](https://github.com/pytorch/pytorch/issues/52213), [annotated-mamba#1](https://github.com/srush/annotated-mamba/issues/1)) The tempting closed form divides by cumulative products,
#
# $$
# h_t = A_t \sum_{s \le t} \frac{b_s}{A_s}, \qquad A_t = a_0 a_1 \cdots a_t. \tag{4.28}
# $$
#
# The sum overflows when $A_t$ falls below one over the largest number of the format. For $a = 0.9$ and $b = 1$ the sum is $1/(1-a) = 10$ times its last term, so in float32, which ends at $3.4\cdot10^{38}$, it breaks near $t = \log(3.4\cdot10^{37})/\log(1/0.9) \approx 820$. **Does it?**

# %%
a, b = torch.full((2000,), 0.9), torch.ones(2000)
A = torch.cumprod(a, 0)
divided, exact = A * torch.cumsum(b / A, 0), linear_recurrence(a.double(), b.double(), method="loop")
broken = int((~torch.isfinite(divided)).nonzero()[0])
predicted = math.log(torch.finfo(torch.float32).max / 10) / -math.log(0.9)
print("predicted near", round(predicted), "; breaks within two steps of it:", abs(broken - predicted) <= 2)
agree("the scan, all 2,000 steps", linear_recurrence(a, b), exact, tol=1e-4)

# %% [markdown]
# Working with logarithms moves the limit and does not remove the loss. $\log A_t$ grows with $t$, its rounding error grows with it, and $e^{\log A_t - \log A_s}$ turns that *absolute* error into a *relative* one. A sum of logarithms also needs positive numbers: a negative or complex gate has a logarithm only up to multiples of $2\pi i$, and the running sum of the phases is again a large number with a fixed number of digits. The scan multiplies only the factors between $s$ and $t$, and never divides. In the cell the log-space sum even gets help: its logarithms are added in double and only then stored in complex64. **How do the errors grow?**

# %% mystnb={"image": {"alt": "Relative error against time in float32 for the log-space sum and for the scan, with complex gates: the log-space error grows with time, the scan's stays near machine precision."}}
n = 20_000
turn_by = torch.rand(n, generator=draw) * 2 * math.pi
gate = torch.polar(0.9 + 0.1 * torch.rand(n, generator=draw), turn_by)          # complex64
b = torch.randn(n, generator=draw, dtype=torch.complex64)
exact = linear_recurrence(gate.to(torch.complex128), b.to(torch.complex128), method="loop")
log_A = torch.cumsum(torch.log(gate.to(torch.complex128)).to(torch.complex64), 0)
window = 400                                                                    # older terms have faded below rounding
logs = torch.stack([(torch.exp(log_A[t] - log_A[max(0, t - window): t + 1]) * b[max(0, t - window): t + 1]).sum() for t in range(0, n, 50)])
scanned = linear_recurrence(gate, b)
scale = float(exact.abs().mean())
log_error, scan_error = (logs - exact[::50]).abs() / scale, (scanned - exact).abs()[::50] / scale
fig, ax = plt.subplots(figsize=(6, 2.6))
_ = ax.semilogy(torch.arange(0, n, 50), log_error, label="sum in log space, complex64")
_ = ax.semilogy(torch.arange(0, n, 50), scan_error, label="scan, complex64")
_ = ax.set(xlabel="time t (steps)", ylabel="error / mean |h|", ylim=(1e-9, 1))
_ = ax.legend()
plt.show()
print("late error, log space over 100 times the scan's:", bool(log_error[-50:].mean() > 100 * scan_error[-50:].mean()))

# %% [markdown]
# **An FFT answers with an absolute error.** A loud start and a quiet tail: the tail's digits drown.

# %%
b = torch.zeros(4000)
b[0] = 1e4
b[2000:] = 1e-4 * torch.randn(2000, generator=draw)
a = torch.tensor([0.9])
exact = linear_recurrence(a.double(), b.double(), method="loop")
for method in ("scan", "fft"):
    tail = (linear_recurrence(a, b, method=method) - exact)[2500:].abs().max() / exact[2500:].abs().max()
    print(f"{method}: tail right to three digits: {bool(tail < 1e-3)}")

# %% [markdown]
# **Why does torch.compile warn or fail on my complex state?** ([pytorch#125718](https://github.com/pytorch/pytorch/issues/125718), [pytorch#93424](https://github.com/pytorch/pytorch/issues/93424), [pytorch#98161](https://github.com/pytorch/pytorch/issues/98161)) The compiler's code generator for CPU and GPU has no complex arithmetic: it says so in a warning and leaves those operations to the eager kernels. Written out with pairs of reals, $(a_r + i a_i)(h_r + i h_i)$, the same step has nothing complex in it. The values are equal; a state kept as complex is shorter to write, so this book keeps it.

# %%
def complex_step(a, h, b):
    return a * h + b


def pair_step(a, h, b):
    """The same on (..., 2), real and imaginary part last."""
    (ar, ai), (hr, hi) = a.unbind(-1), h.unbind(-1)
    return torch.stack([ar * hr - ai * hi, ar * hi + ai * hr], dim=-1) + b


a, h, b = (torch.randn(64, 4096, generator=draw, dtype=torch.complex64) for _ in range(3))
as_pairs = [torch.view_as_real(x) for x in (a, h, b)]
agree("pairs = complex", torch.view_as_complex(pair_step(*as_pairs)), complex_step(a, h, b), tol=1e-5)

# %% tags=["nbval-ignore-output"]
import warnings

runs = {"complex, eager": (complex_step, (a, h, b)), "pairs, eager": (pair_step, as_pairs)}
try:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, step in {"complex, compiled": complex_step, "pairs, compiled": pair_step}.items():
            runs[name] = (torch.compile(step), (a, h, b) if "complex" in name else as_pairs)
            _ = runs[name][0](*runs[name][1])
    print({str(w.message)[:62] for w in caught if "complex" in str(w.message)})
except Exception as error:                                                      # no C++ compiler at hand
    print("torch.compile did not run here:", type(error).__name__)
    runs = {name: run for name, run in runs.items() if "eager" in name}
times_taken = {name: seconds(lambda run=run: run[0](*run[1])) for name, run in runs.items()}
print({name: round(value / times_taken["complex, eager"], 2) for name, value in times_taken.items()})

# %% [markdown]
# ## 4.9 On the GPU
#
# `linear_recurrence` and `LinearRecurrentUnit` run where their inputs are. By the counts of 4.2, a scan over 16,384 steps is fewer than 200 launches, a loop more than 30,000. Times on a GPU are **not measured** here. A compiled kernel (`method="cuda"`) is refused with a clear message as long as there is none, and "auto" never picks it.

# %%
device = "cuda" if torch.cuda.is_available() else "cpu"
a, b = torch.rand(8, 5000, generator=draw).to(device), torch.randn(8, 5000, generator=draw).to(device)
want = linear_recurrence(a.double().cpu(), b.double().cpu(), method="loop")
agree("scan on this device = loop on the CPU", linear_recurrence(a, b), want, tol=1e-4)
try:
    _ = linear_recurrence(a, b, method="cuda")
except RuntimeError as error:
    print(str(error).split(",")[0])

# %% [markdown]
# ## Exercises
#
# Each solution is executed and checks itself; unfold it after you have tried.
#
# **1.** Which $W$, $U$ and $C$ make the Fibonacci numbers $1, 1, 2, 3, 5, \dots$ the kernel of a recurrence? What is its largest eigenvalue, and what does (4.15) say about its gradients?

# %% tags=["hide-cell"]
W = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=F64)
fibonacci = readout_kernel(torch.tensor([1.0, 0.0], dtype=F64), W, torch.tensor([1.0, 0.0], dtype=F64), 12)
print([int(value) for value in fibonacci])
golden = (1 + math.sqrt(5)) / 2
agree("largest eigenvalue = golden ratio: gradients explode", torch.linalg.eigvalsh(W).max(), golden, tol=1e-12)

# %% [markdown]
# **2.** Two exponential averages in a row, each with coefficient $a$: $u_t = a u_{t-1} + (1-a) x_t$, $v_t = a v_{t-1} + (1-a) u_t$. Write both as one recurrence with two states. Which kernel does $v$ see, and is $W$ diagonalisable?

# %% tags=["hide-cell"]
a = 0.8
W = torch.tensor([[a, 0.0], [(1 - a) * a, a]], dtype=F64)
kernel = readout_kernel(torch.tensor([0.0, 1.0], dtype=F64), W, torch.tensor([1 - a, (1 - a) ** 2], dtype=F64), 30)
k = torch.arange(30, dtype=F64)
agree("v sees (1-a)^2 (tau+1) a^tau: a Jordan block, not diagonalisable", kernel, (1 - a) ** 2 * (k + 1) * a**k, tol=1e-14)

# %% [markdown]
# **3.** After how many steps has the gradient through $\lambda = 0.999$ fallen to one half? How large must $e^\nu$ be in (4.18) for a half-life of 10,000 steps?

# %% tags=["hide-cell"]
print("steps:", math.ceil(math.log(0.5) / math.log(0.999)))
nu = math.log(2) / 10_000                                          # e^nu: |lambda|^10000 = 1/2
agree("half-life of 10,000", math.exp(-nu) ** 10_000, 0.5, tol=1e-12)

# %% [markdown]
# **4.** Show with numbers that the composition (4.9) is associative but not commutative. Why does a scan need only the first?

# %% tags=["hide-cell"]
def after(second, first):
    return second[0] * first[0], second[0] * first[1] + second[1]


p, q, r = (2, 1), (3, 5), (-1, 4)
print("associative:", after(after(r, q), p) == after(r, after(q, p)), "; commutative:", after(p, q) == after(q, p))

# %% [markdown]
# **5.** Run (4.16) from the end with `linear_recurrence` and flips, for coefficients that change, and compare with autograd. Which coefficient belongs to step $t$?

# %% tags=["hide-cell"]
a = (0.5 + 0.5 * torch.rand(50, generator=draw, dtype=F64)).requires_grad_()
b = torch.randn(50, generator=draw, dtype=F64).requires_grad_()
g = torch.randn(50, generator=draw, dtype=F64)                     # dL/dh_t as it arrives
h = linear_recurrence(a, b, method="loop")
g_a, g_b = torch.autograd.grad((g * h).sum(), (a, b))
ahead = torch.cat([a[1:], torch.zeros(1, dtype=F64)])              # step t is reached from t + 1 by a_(t+1)
late = linear_recurrence(ahead.flip(0), g.flip(0)).flip(0)
agree("gradient in b", late, g_b, tol=1e-12)
agree("gradient in a", late * torch.cat([torch.zeros(1, dtype=F64), h[:-1]]), g_a, tol=1e-12)

# %% [markdown]
# **6.** A unit was trained at 100 samples a second with $\lambda$ and zero-order hold. Which $\lambda'$ runs it at 200, and what happens to $\gamma$ if it stands for the hold's gain $g$?

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
# - D. Romero and others (2021), *CKConv: continuous kernel convolution for sequential data*, whose appendix makes the connection of this chapter. [arXiv:2102.02611](https://arxiv.org/abs/2102.02611)
# - A. Gu, K. Goel and C. Ré (2021), *Efficiently modeling long sequences with structured state spaces*. [arXiv:2111.00396](https://arxiv.org/abs/2111.00396)
# - G. Blelloch (1990), *Prefix sums and their applications*, Carnegie Mellon University, CMU-CS-90-190: the scan.
# - R. Roy and T. Kailath (1989), *ESPRIT*: the fit of 4.3. [doi:10.1109/29.32276](https://doi.org/10.1109/29.32276)
# - R. Pascanu, T. Mikolov and Y. Bengio (2013), *On the difficulty of training recurrent neural networks*. [arXiv:1211.5063](https://arxiv.org/abs/1211.5063)
# - A. Katharopoulos and others (2020), *Transformers are RNNs*: linear attention. [arXiv:2006.16236](https://arxiv.org/abs/2006.16236)
