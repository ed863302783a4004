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
# A convolution slides a small array of numbers, the kernel, over a signal and writes down one weighted sum a step.
# This chapter turns every knob of that sentence, derives what it does to sizes, values and gradients, and then checks it on real photographs and sounds.
#
# **What you will find, in a few lines.** The letters, on one axis: $n$ entries go in, the kernel has $k$, the stride $s$ is the step of the window,
# the dilation $d$ the step between kernel entries, and $p_{lo}$ and $p_{hi}$ zeros are put in front and behind.
#
# - The output size is $\lfloor (n + p_{lo} + p_{hi} - K)/s \rfloor + 1$ with $K = d(k-1)+1$. All fifteen published size relationships follow from it, and its inverse is a run of $s$ neighbouring input sizes.
# - `padding="same"` at stride 2 is not one rule but two: TensorFlow's, and the symmetric padding that torch users put in its place. For odd kernels no shorter than the stride they agree in size and differ by $\lceil ((n-1) \bmod s)/2 \rceil$ pixels in place.
# - A transposed convolution is the adjoint (the transposed matrix), no inverse. `output_padding` says which of the $s$ possible input sizes is meant, and the rows that it adds are computed like all others.
# - Checkerboards are unequal *polyphase sums* of the kernel, the sums of every $s$-th weight. A size divisible by the stride guarantees equal ones for a constant kernel only; resizing first makes them equal for every kernel.
# - A convolution is a matrix, and its backward pass is two more convolutions, in which stride and dilation change places.
# - Behind several layers one output sees a stretch of $1 + \sum_l (k_l - 1)\, d_l\, j_{l-1}$ inputs, $j_{l-1}$ being the product of the strides before layer $l$. The formula ends exactly where the gradient does; inside there may be holes.
# - One multiply-add is two floating-point operations: that is the factor 2 between two counters. A depthwise layer saves operations, hardly any memory traffic, and so less time than it promises.
# - Convolution at stride 1 is *equivariant* to shifts, away from the borders: the output moves with the input. Only a global pooling makes it *invariant*, the same wherever the input lies.
# - A temporal convolutional network of fourteen thousand weights, trained here on the spectrograms of 800 recordings, recognises more than 65 % of 200 others (guessing: 10 %) after half a second, and runs chunk by chunk on raw sound with the offline answer, up to rounding.
#
# **What you need.** Sums, derivatives, a little linear algebra (transpose, inner product), Python. Section 1.20 uses singular values; 1.2 and 1.6 check against a Fourier transform. No GPU.
#
# **A first reading** takes sections 1.2 to 1.5, 1.10, 1.12 and 1.15 to 1.17; the others wait until you need them. A star marks one of the ten questions that were asked most in public.

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
import textwrap
import time
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import SVG, display
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ckutils.checks import agree, digest, source
from ckutils.convolution import conv, correlate2d, pad
from ckutils.datasets import fashion_mnist_small, photo, spoken_digits
from ckutils.plotting import COLOURS, DIVERGING, heatmap, use_style
from ckutils.training import accuracy, count_weights, fit, predict

use_style()

# %% tags=["hide-input"]
from ckutils.arithmetic import (
    conv_output_size,
    count_cost,
    count_macs,
    count_parameters,
    dilated_size,
    network_cost,
    receptive_field,
    receptive_set,
    resolve_padding,
)

# %% [markdown]
# ## 1.1 An average, and what is left when the kernel is none
#
# Take the middle row of a photograph: 256 numbers between 0 and 1. Replace each by the average of itself and its four neighbours on either side.
# Worked by hand on three entries, with weights $\tfrac14, \tfrac12, \tfrac14$: the numbers 4, 8, 0 become $\tfrac14 \cdot 4 + \tfrac12 \cdot 8 + \tfrac14 \cdot 0 = 5$.
#
# In general the weights may also be spread continuously, and then the sum becomes an integral. One definition has both; if measures are new to you, skip to (1.2), which is all that this chapter uses.
#
# > **Definition.** Let $\mu$ be a measure on the line (or plane, or space): it says how much each piece of it weighs. The convolution of a signal $f$ and a kernel $g$ is
#
# $$
# (f * g)(x) = \int f(x - y)\, g(y)\, d\mu(y). \tag{1.1}
# $$
#
# With Lebesgue measure, the length of an interval, this is an ordinary integral. With the counting measure, 1 for each integer, it is a sum, and the only form that a computer meets (entries that $f$ or $g$ does not have count as zero):
#
# $$
# (f * g)[t] = \sum_{j \in \mathbb Z} f[t - j]\, g[j]. \tag{1.2}
# $$
#
# If $g \ge 0$ and $\int g\, d\mu = 1$, then $g$ is a probability density with respect to $\mu$, and $(f*g)(x)$ is the mean of $f(x - Y)$ for a random shift $Y$ with that density.
# Two things follow at once: a constant stays what it is, and the result never leaves the range of $f$. The first needs only $\int g\, d\mu = 1$, the *mass* of $g$; the second needs both conditions.
# Which of the following four kernels average?

# %%
row = photo("camera")[128][None]  # (1, 256): one channel
position = torch.arange(-4.0, 5)
gauss = torch.exp(-(position**2) / 8)
kernels = {
    "box / 9": torch.ones(9) / 9,
    "Gaussian": gauss / gauss.sum(),
    "box": torch.ones(9),
    "difference": torch.tensor([0.5, 0, -0.5]),
}
smooth = {}
for name, k in kernels.items():
    smooth[name] = conv(row, k[None, None], padding="reflect", flip=True)[0]
    print(f"{name:10} mass {k.sum():4.1f}, non-negative: {bool((k >= 0).all())}")

# %% mystnb={"image": {"alt": "Two line plots along one photograph row. Left: box and Gaussian averages follow the row more smoothly and stay within its range. Right: an unnormalised box rises to nearly 6 and a difference kernel swings around zero."}}
fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.6))
pairs = ("box / 9", "Gaussian"), ("box", "difference")
for ax, names in zip(axes, pairs, strict=True):
    _ = ax.plot(row[0], color="#9a9a9a", lw=1, label="row 128")
    for name in names:
        _ = ax.plot(smooth[name], label=name)
    _ = ax.set(xlabel="column (pixels)", ylabel="brightness")
    _ = ax.legend(loc="upper left")
plt.show()
print(digest(**{name.split()[0]: y for name, y in smooth.items()}))

# %%
low, high = row.min() - 1e-6, row.max() + 1e-6
for name, k in kernels.items():
    inside = bool(((smooth[name] >= low) & (smooth[name] <= high)).all())
    one = float(conv(torch.ones(1, 20), k[None, None]).mean())
    print(f"{name:10} within the range of the row: {inside!s:5}  1 becomes {one:.1f}")

# %% [markdown]
# The word "average" in the definition is right for the first two only. The box without its 1/9 is a *sum*: it averages after division by its mass.
# The difference kernel has mass 0 and a sign change: it removes what an average would keep. Trained kernels are of this general kind, so "a weighted sum of the neighbourhood" is what survives.
#
# The continuous form works the same way. For $f = \sin$ and the uniform density $g = \frac{1}{2h}$ on $[-h, h]$, (1.1) integrates to $\sin(x)\, \frac{\sin h}{h}$: a damped sine, and the damping is the average's doing.

# %%
h, x = 0.7, torch.linspace(-3, 3, 7, dtype=torch.float64)
y = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 * 2 * h - h  # midpoints
integral = torch.sin(x[:, None] - y).mean(1)  # the density is 1 / (2 h) on 2 h
agree("integral (1.1) = sin(x) sin(h)/h", integral, x.sin() * np.sin(h) / h, tol=1e-9)

# %% [markdown]
# ## 1.2 ★ Is this convolution or cross-correlation, and why do SciPy and torch differ by a flip?
#
# With the signal (1, 2, 3, 4, 5) and the kernel (1, 10, 100), each output digit tells which entry it came from.
# Sliding the kernel as it is written, the first output is $1\cdot1 + 10\cdot2 + 100\cdot3 = 321$. Formula (1.2) reads the signal backwards instead. Its first value that meets three entries, at $t = 2$, is $100\cdot1 + 10\cdot2 + 1\cdot3 = 123$.
#
# $$
# \text{convolution:}\quad (x * w)[t] = \sum_{j=0}^{k-1} w[j]\, x[t - j] \tag{1.3}
# $$
#
# $$
# \text{cross-correlation:}\quad (x \star w)[t] = \sum_{j=0}^{k-1} w[j]\, x[t + j] \tag{1.4}
# $$
#
# Every deep-learning library computes (1.4) and calls it convolution. Signal processing computes (1.3). One is the other with the kernel turned round on every axis.

# %%
x, w = np.array([1, 2, 3, 4, 5.0]), np.array([1, 10, 100.0])
as_written = [int(sum(w[j] * x[t + j] for j in range(3))) for t in range(3)]  # (1.4)
turned = [int(sum(w[j] * x[t + 2 - j] for j in range(3))) for t in range(3)]  # (1.3)
print("cross-correlation", as_written, "  convolution", turned)
agree("np.correlate    = (1.4)", np.correlate(x, w, "valid"), as_written, tol=0)
agree("np.convolve     = (1.3)", np.convolve(x, w, "valid"), turned, tol=0)
signal, kernel = torch.tensor(x)[None], torch.tensor(w)[None, None]
agree("torch's conv1d  = (1.4)", F.conv1d(signal, kernel)[0], as_written, tol=0)
agree("conv            = (1.4)", conv(signal, kernel)[0], as_written, tol=0)
agree("conv, flip=True = (1.3)", conv(signal, kernel, flip=True)[0], turned, tol=0)

# %% [markdown]
# Nobody notices with a symmetric kernel, and no training run notices either: it would learn the kernel turned round. An *asymmetric* kernel that comes from outside makes it visible.
# What does an L-shaped kernel do to a point of light, and to a photograph?

# %%
ell = torch.zeros(9, 9)
ell[:, 1:3] = ell[7:, 1:7] = 1
ell = ell / ell.sum()
point = torch.zeros(1, 25, 25)
point[0, 12, 12] = 1
crop = photo("camera")[None, 30:130, 70:170]
knobs = {"weight": ell[None, None], "padding": "same"}
pictures = {
    "kernel": ell,
    "point, correlated": conv(point, **knobs)[0],
    "point, convolved": conv(point, flip=True, **knobs)[0],
    "photograph": crop[0],
    "difference": (conv(crop, flip=True, **knobs) - conv(crop, **knobs))[0],
}
print("largest difference above 0.1:", bool(pictures["difference"].max() > 0.1))

# %% mystnb={"image": {"alt": "Five small images: an L-shaped kernel; a point after correlation, which shows the L upside down and mirrored; a point after convolution, which shows the L; a crop of the photograph, and the difference of the two results, bright along edges."}}
fig, axes = plt.subplots(1, 5, figsize=(7.2, 1.75))
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    _ = ax.imshow(picture, cmap="gray")
    _ = ax.set_title(title, fontsize=8)
    _ = ax.set_axis_off()
values = list(pictures.values())
plt.show()
print(digest(correlated=values[1], convolved=values[2], difference=values[4].abs()))

# %% [markdown]
# Correlating a point with a kernel returns the kernel *turned round*; convolving returns the kernel. That is the definition of an impulse response, and the reason why engineers flip.
# In two axes both are flipped: one flip alone gives neither. The mathematician's convolution in the next cell is computed by a route that shares nothing with `conv`, the product of Fourier transforms.

# %%
image, kernel = photo("camera")[:40, :56].double(), ell[:8].double()  # not square
size = (40 + 8 - 1, 56 + 9 - 1)
spectrum = torch.fft.rfft2(image, size) * torch.fft.rfft2(kernel, size)
convolved = torch.fft.irfft2(spectrum, size)
both_flips = correlate2d(image, kernel.flip(0, 1), "full")
one_flip = correlate2d(image, kernel.flip(1), "full")
agree("correlation with the flipped kernel = convolution", both_flips, convolved, 1e-13)
print("one flip is enough:", torch.allclose(one_flip, convolved))
valid = conv(image[None], kernel[None, None])[0]
agree("conv = correlate2d", valid, correlate2d(image, kernel), tol=1e-13)

# %% [markdown]
# SciPy has both under honest names, `correlate2d` and `convolve2d`; our `correlate2d` equals its namesake in all modes and dtypes, and `convolve2d` with a flipped kernel
# (`tests/test_convolution.py::test_correlate2d_is_scipys`, `::test_correlate2d_real_values_and_convolve2d`; SciPy is a test's oracle here, not a dependency).
# So if SciPy and torch differ by a flip, you are comparing `convolve2d` with a correlation.
# Readers asked this at [scipy#23444](https://github.com/scipy/scipy/issues/23444), [scipy#14369](https://github.com/scipy/scipy/issues/14369) and on the [torch forum](https://discuss.pytorch.org/t/output-of-a-convolution-layer/170134).
#
# **Channels and axes.** An image is stored as $(N, C, H, W)$: $H$ counts rows (the $y$ direction), $W$ columns ($x$). Reading the last two as "$x, y$" turns pictures on their side.
# A weight is $(C_{out}, C_{in}, \text{rows}, \text{columns})$, and the products are summed over the input channels too. Two checks on a colour photograph that is not square:

# %%
draw = torch.Generator().manual_seed(1)
colour = photo("chelsea")[:, :120, :200].double()  # 120 rows, 200 columns
weight = torch.randn(4, 3, 5, 3, generator=draw).double()
y = conv(colour, weight)
print("rows and columns of the output:", tuple(y.shape[1:]))
channels = [conv(colour[c : c + 1], weight[:, c : c + 1]) for c in range(3)]
agree("sum over channels of 2-axis convolutions", sum(channels), y, tol=1e-12)
deep = conv(colour[None], weight[:, None])  # one channel; depth, rows, columns
agree("3-axis convolution with a kernel of full depth", deep[:, 0], y, tol=1e-12)

# %% [markdown]
# The kernel is as deep as the input unless `groups` says otherwise: with $g$ groups it is $C_{in}/g$ deep, and group $i$ of the channels meets group $i$ of the filters only.

# %%
grouped = conv(colour.repeat(2, 1, 1), weight, groups=2)  # six channels
halves = [conv(colour, weight[:2]), conv(colour, weight[2:])]
print("weight of 6 channels in 2 groups:", tuple(weight.shape))
agree("groups = split, convolve, join", grouped, torch.cat(halves), tol=1e-12)

# %% [markdown]
# ## 1.3 Every knob in one formula
#
# Watch one layer work. The input is a five by five patch of the photograph, rounded to one digit, the kernel looks for edges; it moves two positions at a time and the frame of zeros is one wide.
# Every window, its products and their sum are written out; the picture stands still if your system asks for less motion.

# %% mystnb={"image": {"alt": "Animation: a three by three edge kernel moves in steps of two over a five by five patch framed by zeros. At each of nine stops the nine products and their sum are written, and the output fills up with 7, 11, -18, 17, 5, -22, 8, 0, -8."}}
from ckutils.animation import animate_conv

patch = (F.avg_pool2d(photo("camera")[None], 12)[0, 4:9, 8:13] * 9).round()  # (5, 5)
edges = torch.tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1.0]])
display(SVG(animate_conv(patch, edges, stride=2, padding=1)))
print(digest(output=conv(patch[None], edges[None, None], stride=2, padding=1)))

# %% [markdown]
# The knobs are translations and scalings of the two arrays. Stride $s$ keeps every $s$-th output of the convolution at stride 1; kernel dilation $d$ spreads the *taps*, the entries of the kernel, $d$ apart; input dilation $e$ spreads the signal.
# In formulas, with $y_1$ the output at stride 1, $w^{(d)}$ the kernel with $d - 1$ zeros between neighbours, and $x^{(e)}$ the signal spread likewise:
#
# $$
# y_s[t] = y_1[s\,t] \tag{1.5}
# $$
#
# $$
# w^{(d)}[d\,j] = w[j], \qquad w^{(d)} = 0 \text{ elsewhere} \tag{1.6}
# $$
#
# $$
# x^{(e)}[e\,t] = x[t], \qquad x^{(e)} = 0 \text{ elsewhere} \tag{1.7}
# $$
#
# Put together, with padding $p$ in front, channels $c$ and output channels $o$:
#
# $$
# y[o, t] = b[o] + \sum_{c}\sum_{j=0}^{k-1} w[o, c, j]\; x^{(e)}\big[c,\; s\,t + d\,j - p\big] \tag{1.8}
# $$
#
# On several axes, $t$ and $j$ have one index an axis and each axis its own $s, d, e, p$: axes never mix, which is why one axis is enough for all the arithmetic below.


# %%
def naive(x, w, s=1, p=0, d=1, e=1):
    """Eq. (1.8), one axis and one channel, letter by letter."""
    spread = np.zeros(e * (len(x) - 1) + 1)
    spread[::e] = x
    y = []
    for start in range(-p, len(spread) + p - d * (len(w) - 1), s):
        taps = [start + d * j for j in range(len(w))]
        pairs = zip(w, taps, strict=True)
        y.append(sum(a * spread[i] for a, i in pairs if 0 <= i < len(spread)))
    return np.array(y)


x, w = np.array([1, 2, 3, 4, 5.0]), np.array([1, 10, 100.0])
print("stride 2        ", naive(x, w, s=2))
print("padding 1       ", naive(x, w, p=1))
print("dilation 2      ", naive(x, w, d=2))
print("input dilation 2", naive(x[:3], w, e=2))

# %% [markdown]
# The package's version checks its arguments, settles the padding and hands the sum to torch. For what torch can do it *is* torch, a few microseconds later; what torch lacks (input dilation, unequal sides, torus and mirror, more than three axes) is added around it.

# %%
source(conv)

# %%
line = photo("brick")[100].double()[None]  # (1, 256)
taps = torch.tensor([[[0.5, -1.0, 2.0, 0.25]]], dtype=torch.float64)
for s, p, d, e in product((1, 2, 3), (0, 2), (1, 3), (1, 2)):
    want = naive(line[0].numpy(), taps[0, 0].numpy(), s, p, d, e)
    got = conv(line, taps, stride=s, padding=p, dilation=d, input_dilation=e)[0]
    assert np.abs(got.numpy() - want).max() < 1e-12, (s, p, d, e)
print("conv = loops for 24 settings of the knobs: True")

# %% [markdown]
# And each of (1.5) to (1.7) by itself: every third output; a kernel stuffed with zeros; a signal stuffed with zeros.


# %%
def stuffed(values, step):
    """step - 1 zeros between neighbours of the last axis."""
    spread = values.new_zeros(*values.shape[:-1], step * (values.shape[-1] - 1) + 1)
    spread[..., ::step] = values
    return spread


dense = conv(line, taps)
agree("(1.5) every third output", conv(line, taps, stride=3), dense[:, ::3], tol=1e-14)
wide = conv(line, stuffed(taps, 2))
agree("(1.6) a stuffed kernel", conv(line, taps, dilation=2), wide, tol=1e-14)
long = conv(stuffed(line, 2), taps)
agree("(1.7) a stuffed signal", conv(line, taps, input_dilation=2), long, tol=1e-14)
zeros = {d: int((stuffed(taps, d) == 0).sum()) for d in (1, 2, 3)}
print("zeros between 4 taps, by dilation:", zeros, "  parameters:", taps.numel())

# %% [markdown]
# So dilation 1 means none, in torch as here: the argument is the *step* between taps, and $d - 1$ zeros lie between two of them.
#
# ## 1.4 How long is the output?
#
# Count where the kernel can start. A kernel of 3 taps, 2 apart, spans 5 entries. On 9 entries with one zero in front and none behind it may start at $-1, 0, \dots, 4$: six places, or three at stride 2.
#
# A dilated array of $k$ entries spans
#
# $$
# K = k + (k-1)(d-1) = d\,(k-1) + 1 \tag{1.9}
# $$
#
# entries. The padded signal has $N + p_{lo} + p_{hi}$ of them with $N = e(n-1) + 1$, so the last start is $N + p_{lo} + p_{hi} - K$ places after the first, and whole strides fit into that:
#
# $$
# m = \left\lfloor \frac{N + p_{lo} + p_{hi} - K}{s} \right\rfloor + 1 \tag{1.10}
# $$
#
# The floor is the place where information is lost: entries behind the last whole stride are never read. Below, each dot is an input size and its output size.

# %% mystnb={"image": {"alt": "Three staircases of output size over input size for strides 1, 2 and 3 with kernel 3. Stride 1 is a straight line; the others climb one step every 2 or 3 input sizes."}}
sizes = range(3, 25)
stairs = {s: [conv_output_size(n, 3, stride=s) for n in sizes] for s in (1, 2, 3)}
fig, ax = plt.subplots(figsize=(7.2, 2.6))
for s, m in stairs.items():
    _ = ax.step(sizes, m, "o-", where="post", ms=4, label=f"stride {s}")
_ = ax.set(xlabel="input size n (entries)", ylabel="output size m (entries)")
_ = ax.set_title("kernel 3, no padding")
_ = ax.legend()
plt.show()
print(digest(**{f"stride_{s}": m for s, m in stairs.items()}))

# %%
source(conv_output_size)

# %%
grid = list(product(range(1, 13), range(1, 6), range(1, 5), range(5), (1, 2, 3)))
checked = 0
for n, k, s, p, d in grid:
    if n + 2 * p > d * (k - 1):
        x, w = (torch.empty(1, 1, size, device="meta") for size in (n, k))  # sizes only
        m = F.conv1d(x, w, stride=s, padding=p, dilation=d).shape[-1]
        assert conv_output_size(n, k, stride=s, padding=p, dilation=d) == m
        checked += 1
print(f"(1.10) = torch's size in all {checked} settings that fit: True")

# %% [markdown]
# **Turn the knobs yourself.** The explorer below runs in the page, without Python; the cell prints what `conv` computes for the knobs as they stand, and the page shows the same numbers under "The whole output in numbers". The transposed operation is the subject of section 1.10.
# Which other input size leaves the output at 3, and what happens to its last row?

# %%
from ckutils.widgets import explorer

display(explorer("convolution"))
row, column = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
shown = ((7 * row + 3 * column) % 9 + 1).double()[None]
taps = ((row + 3 * column) % 4 - 1)[:3, :3].double()[None, None]
for number, values in enumerate(conv(shown, taps, stride=2, padding=1)[0].int()):
    print(f"row {number}:", *values.tolist())

# %% [markdown]
# The answer: input size 6 gives 3 too. Its windows start at $-1$, 1, 3 as before, so the last row and column of the padded picture are never read. Those are zeros here; without padding they would be pixels.
#
# **What the sources say about sizes.** Five statements of the notes that this chapter grew from, in numbers. Two are right as they stand, three need a word:

# %%
print("'drops by (k-1) d':", 224 - conv_output_size(224, 7, dilation=2), "=", 6 * 2)
after = conv_output_size(224, 7, input_dilation=2)
print("'T + (T-1)(d-1) + pad - k + 1':", dilated_size(224, 2), "- 7 + 1 =", after)
print("'inflates the input by a factor', d = 2:")
print("  ", {n: round(dilated_size(n, 2) / n, 2) for n in (2, 5, 20, 200)})
print("'expands the reach by a factor', d = 2:")
print("  ", {k: round(dilated_size(k, 2) / k, 2) for k in (2, 3, 5, 7)})
zeros = {d: dilated_size(3, d) ** 2 - 9 for d in (2, 3)}
print("'adds (k-1)(d-1) zeros', 3 x 3 kernel, both axes:", zeros, "not", {2: 2, 3: 4})

# %% [markdown]
# The distance between first and last entry grows by the factor $d$; the length, which is that distance plus 1, does not.
#
# **All published relationships.** Dumoulin and Visin's guide ([arXiv:1603.07285](https://arxiv.org/abs/1603.07285)) derives fourteen relationships for convolution, pooling and transposed convolution, and a fifteenth for dilation, each for its special case. Here are those of convolution ($i$ input, $o$ output), evaluated over the whole grid (number 7, pooling without padding, has the formula of number 5 and is in section 1.9):

# %%
rules = {  # number: (where it applies, output size)
    1: ("s == 1 and p == 0 and d == 1", "i - k + 1"),
    2: ("s == 1 and d == 1", "i - k + 2*p + 1"),
    3: ("s == 1 and d == 1 and k % 2 == 1 and p == k // 2", "i"),
    4: ("s == 1 and d == 1 and p == k - 1", "i + (k - 1)"),
    5: ("d == 1 and p == 0", "(i - k) // s + 1"),
    6: ("d == 1", "(i + 2*p - k) // s + 1"),
    15: ("True", "(i + 2*p - k - (k - 1)*(d - 1)) // s + 1"),
}
for number, (applies, size) in rules.items():
    equal = []
    for i, k, s, p, d in grid:
        here = {"i": i, "k": k, "s": s, "p": p, "d": d}
        if eval(applies, here) and (o := eval(size, here)) >= 1:
            equal.append(o == conv_output_size(i, k, stride=s, padding=p, dilation=d))
    print(f"{number:2}: o = {size:40} in all {len(equal)} cases: {all(equal)}")

# %% [markdown]
# ## 1.5 ★ Why does `padding='same'` refuse stride 2, and why are weights ported from TensorFlow off by a pixel there?
#
# "Same" at stride 1 means: as many outputs as inputs. At stride $s$ that is impossible, and TensorFlow, JAX and flax read it as $\lceil n/s \rceil$ outputs, padded by as little as that needs:
#
# $$
# p_{lo} + p_{hi} = \max\big((\lceil n/s \rceil - 1)\,s + K - n,\; 0\big), \qquad p_{lo} = \big\lfloor (p_{lo} + p_{hi})/2 \big\rfloor \tag{1.11}
# $$
#
# By hand, $n = 6$, $k = 3$, $s = 2$: the total is $2\cdot2 + 3 - 6 = 1$, so $p_{lo} = 0$, $p_{hi} = 1$, and the windows start at 0, 2, 4. A torch layer ported with `padding=1` starts them at $-1, 1, 3$.
# Same number of outputs, each one pixel to the left. Do the two rules ever agree, and how far apart are they?
#
# The total in (1.11) is $K - 1 - r$ with $r = (n-1) \bmod s$ (unless that is negative), and torch's symmetric rule for odd $K$ is $(K-1)/2$ on either side. The difference in front is
#
# $$
# \text{shift} = \min\big(\lceil r/2 \rceil,\, (K-1)/2\big), \qquad r = (n-1) \bmod s.
# $$


# %%
def predicted_shift(n, k, s):
    return min(((n - 1) % s + 1) // 2, (k - 1) // 2)


cases = list(product(range(1, 65), (1, 3, 5, 7), (1, 2, 3, 4)))
shifts, sizes_agree = [], True
for n, k, s in cases:
    ((lo, _),) = resolve_padding("same", k, stride=s, size=n)
    shifts.append(k // 2 - lo)
    m = conv_output_size(n, k, stride=s, padding=k // 2)
    sizes_agree &= m == conv_output_size(n, k, stride=s, padding="same")
print(f"{len(cases)} cases; sizes agree in all: {sizes_agree}")
print("shift as predicted in all:", shifts == [predicted_shift(*c) for c in cases])
print("number of cases with a shift of 0, 1, 2:", [shifts.count(i) for i in range(3)])

# %% mystnb={"image": {"alt": "Left: for n = 6, three windows of TensorFlow's rule start at 0, 2, 4 and three of torch's padding 1 start at -1, 1, 3. Right: heat map of the shift in pixels over input size and stride; at stride 2 every even size is shifted by one."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.5), width_ratios=(1, 1.3))
for level, name, lo, colour in (
    (0, "SAME", 0, "blue"),
    (1.2, "padding 1", 1, "orange"),
):
    for t in range(3):
        place = {"left": 2 * t - lo - 0.5, "height": 0.24, "color": COLOURS[colour]}
        _ = left.barh(level + 0.3 * t, 3, **place)
    _ = left.text(7, level + 0.3, name, fontsize=8, va="center")
_ = left.axvspan(-0.5, 5.5, color="#e4e4e4", zorder=0)
_ = left.set(xlabel="position (the image is grey)", yticks=[], xlim=(-2, 10))
_ = left.set_title("windows, n = 6, k = 3, s = 2")
shift = [[predicted_shift(n, 7, s) for n in range(1, 17)] for s in (1, 2, 3, 4)]
_ = heatmap(right, shift, numbers="d")
_ = right.set(xlabel="input size n", ylabel="stride", title="shift in pixels, k = 7")
_ = right.set_xticks(range(16), range(1, 17))
_ = right.set_yticks(range(4), range(1, 5))
plt.show()
print(digest(shift=shift))

# %% [markdown]
# At stride 2 every even size is shifted by one pixel, and image sizes are even. On a photograph of 256 by 256 with a 3 by 3 kernel at stride 2: the values differ nearly everywhere, yet they are the same feature map one pixel apart.

# %%
picture = photo("coffee").double()  # (3, 256, 256)
layer = torch.randn(8, 3, 3, 3, generator=draw).double()
tensorflow = conv(picture, layer, stride=2, padding="same")
symmetric = conv(picture, layer, stride=2, padding=1)
print("sizes:", tuple(tensorflow.shape), tuple(symmetric.shape))
apart = (tensorflow - symmetric).norm() / symmetric.norm()
print("relative difference above 1 %:", bool(apart > 0.01))
moved = conv(picture.roll((-1, -1), (1, 2)), layer, stride=2, padding=1)  # left and up
inside = (slice(None), slice(1, -1), slice(1, -1))
agree("equal after a move by one pixel", moved[inside], tensorflow[inside], tol=1e-12)

# %% [markdown]
# **Why torch refuses.** Under (1.11) the amount depends on $n$, which a layer does not know when it is made, and it is often odd, which torch's symmetric padding cannot express. Even kernels make it plain: for $k = 4$ no symmetric padding keeps the size at all.
# **The cure** is to pad by the pair that (1.11) gives, which `conv(..., padding="same")` does at any stride; JAX's own function gives the same pairs (`tests/test_arithmetic_sizes.py::test_same_is_jaxs_on_the_grid`).

# %%
try:
    F.conv2d(picture[None], layer, stride=2, padding="same")
except RuntimeError:
    print("torch refuses padding='same' with stride 2: True")
pairs = resolve_padding("same", (3, 3), stride=2, size=(256, 256))
by_hand = F.conv2d(F.pad(picture[None], (*pairs[1], *pairs[0])), layer, stride=2)[0]
print("pairs for rows and columns:", pairs)
agree("pad by the pairs, then torch", by_hand, tensorflow, tol=1e-12)
even = [conv_output_size(10, 4, padding=p) for p in (1, 2)]
print("k = 4, n = 10, symmetric padding 1 or 2 gives", even)

# %% [markdown]
# Asked at [pytorch#3867](https://github.com/pytorch/pytorch/issues/3867) (open since 2017), [pytorch#67551](https://github.com/pytorch/pytorch/issues/67551), [tensorflow#10747](https://github.com/tensorflow/tensorflow/issues/10747), [dreamerv3-torch#32](https://github.com/NM512/dreamerv3-torch/issues/32).
#
# ## 1.6 Beyond the edge: zeros, the torus, the mirror
#
# A window at the border needs values that the signal does not have. Zeros are one invention. Two others read the signal itself, by a map of indices: on the signal (1, 2, 3), two steps beyond the right edge, the torus reads 1, 2 and the mirror 2, 1.
#
# $$
# \text{circular:}\quad \tilde x[i] = x[\,i \bmod n\,] \tag{1.12}
# $$
#
# $$
# \text{reflect:}\quad \tilde x[i] = x\big[\;\big|((i + m) \bmod 2m) - m\big|\;\big], \qquad m = n - 1 \tag{1.13}
# $$
#
# (Here $m$ is half a period, not an output size.) The mirror stands *on* the last entry, which is not repeated (NumPy calls the mirror that repeats it "symmetric"). What does a kernel see of a photograph under each?

# %% mystnb={"image": {"alt": "Three views of one crop of a photograph extended on all sides: with black, with periodic copies, with mirror images."}}
tile = photo("chelsea").mean(0)[60:140, 70:170][None]  # (1, 80, 100)
views = {
    mode: pad(tile, [(40, 40), (50, 50)], mode)[0]
    for mode in ("zeros", "circular", "reflect")
}
fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.2))
for ax, (mode, view) in zip(axes, views.items(), strict=True):
    _ = ax.imshow(view, cmap="gray", vmin=0, vmax=1)
    _ = ax.add_patch(plt.Rectangle((50, 40), 99, 79, fill=False, ec=COLOURS["orange"]))
    _ = ax.set_title(mode)
    _ = ax.set_axis_off()
plt.show()
print(digest(**views))

# %%
signal = torch.tensor([1, 2, 3])
for mode, other in (
    ("zeros", "constant"),
    ("circular", "wrap"),
    ("reflect", "reflect"),
):
    ours, numpys = pad(signal, [(2, 7)], mode), np.pad(signal, (2, 7), other)
    print(f"{mode:8}", ours.tolist(), "= NumPy:", np.array_equal(ours, numpys))
symmetric = np.pad(signal, (2, 7), "symmetric")
print("NumPy's 'symmetric' repeats the edge:", symmetric.tolist())

# %% [markdown]
# ### Why does circular padding act on the wrong axis, do nothing, or refuse to wrap twice?
#
# Three traps, one a line below. torch's `F.pad` counts axes from the *last*, so a pair meant for rows lands on columns.
# `nn.Conv2d(padding_mode="circular")` wraps by `padding`, which is 0 unless you set it. And `F.pad` wraps at most once, though (1.12) has no limit.
# Here each pair stands in the order of the axes, the amount is what the kernel needs, and any amount wraps. Threads: [pytorch#20981](https://github.com/pytorch/pytorch/issues/20981), [pytorch#37844](https://github.com/pytorch/pytorch/issues/37844), [pytorch#105749](https://github.com/pytorch/pytorch/issues/105749).

# %%
grid_of_numbers = torch.arange(1, 7).reshape(1, 2, 3).double()
for what, pairs in (("column", [(0, 0), (1, 0)]), ("row", [(1, 0), (0, 0)])):
    padded = pad(grid_of_numbers, pairs, "circular")[0].int()
    print(f"one more {what}:", padded.tolist())
lazy = torch.nn.Conv2d(1, 1, 3, padding_mode="circular", dtype=torch.float64)
shapes = tuple(tile.shape), tuple(lazy(tile.double()).shape)
print("padding_mode alone pads nothing:", *shapes)
try:
    F.pad(grid_of_numbers, (7, 0), mode="circular")
except RuntimeError:
    print("torch refuses to wrap 3 columns by 7: True")

# %%
print("here:", pad(grid_of_numbers, [(7, 0)], "circular")[0, 0].int().tolist())
equal = []
for sides in product(range(9), repeat=2):
    for pairs in ([sides, (0, 0)], [(0, 0), sides], [sides, sides]):
        want = np.pad(grid_of_numbers[0], pairs, "wrap")
        equal.append(np.array_equal(pad(grid_of_numbers[0], pairs, "circular"), want))
print(f"rows, columns, both, up to 8 each way: NumPy's in {sum(equal)} of {len(equal)}")

# %% [markdown]
# Convolution on the torus is a circulant matrix, each row the one above moved by one place, and Fourier modes are its eigenvectors. So three routes must agree, on every axis: `conv`, the matrix, and a product of spectra.

# %%
x, w = photo("grass")[7, :12].double(), torch.tensor([1, -2, 4, 0.5]).double()
around = conv(x[None], w[None, None], padding="circular")[
    0
]  # the kernel reaches (1, 2)
circulant = torch.zeros(12, 12, dtype=torch.float64)
for t, j in product(range(12), range(4)):
    circulant[t, (t + j - 1) % 12] += w[j]
first_column = circulant[:, 0]
spectra = torch.fft.irfft(torch.fft.rfft(first_column) * torch.fft.rfft(x), 12)
agree("conv on the torus = circulant matrix", around, circulant @ x, tol=1e-13)
agree("                  = product of spectra", around, spectra, tol=1e-13)

# %% [markdown]
# ### Why must reflect padding be smaller than the image, and what would reflecting again mean?
#
# Beyond an edge of $n$ entries the mirror shows the other $n - 1$, and then the far edge: one reflection gives at most $n - 1$ entries.
# Formula (1.13) goes on, with period $2(n-1)$: it is light between two mirrors, and NumPy and flax do this silently. A kernel with twice the length of its input, or more, is more often a mistake than a wish, so `conv` stops there and says so; `pad` goes on.
# Threads: [pytorch#18413](https://github.com/pytorch/pytorch/issues/18413), [pytorch#52205](https://github.com/pytorch/pytorch/issues/52205), [onnxruntime#8265](https://github.com/microsoft/onnxruntime/issues/8265), where one runtime returned wrong values without a word.

# %%
print("at the limit:   ", pad(signal, [(2, 2)], "reflect").tolist())
print("again and again:", pad(signal, [(6, 6)], "reflect").tolist(), "period 4")
try:
    conv(signal.double()[None], torch.ones(1, 1, 7).double(), padding="reflect")
except ValueError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# ## 1.7 ★ How do I make a 1-D convolution causal: pad left, or pad both sides and cut?
#
# Either. A convolution is causal if output $t$ reads no input after $t$. The last tap must sit on the present sample, so the kernel needs all of its reach in front:
#
# $$
# p_{lo} = d\,(k-1), \qquad p_{hi} = 0 \tag{1.14}
# $$
#
# By hand, with $k = 3$, $d = 1$ on (1, 2, 3) and kernel (1, 10, 100): the first output sees 0, 0, 1 and is 100; the second sees 0, 1, 2 and is 210. The other recipe pads $d(k-1)$ on *both* sides and drops the last $d(k-1)$ outputs. It computes them for nothing, and dropping the first ones instead looks into the future.
# (Here the present is under the *last* tap, because `conv` correlates. Chapters 3 and 4 convolve, and there index 0 of a kernel is the present.)
# A spoken digit, both recipes:

# %%
wave = spoken_digits().waveforms[0][None].double()  # (1, t) at 8 kHz
taps = torch.tensor([[[0.2, -0.5, 1.0]]], dtype=torch.float64)
reach = 4 * (3 - 1)
left = conv(wave, taps, dilation=4, padding="causal")
both = conv(wave, taps, dilation=4, padding=reach)
pair = conv(wave, taps, dilation=4, padding=((reach, 0),))
print("samples in and out:", wave.shape[-1], left.shape[-1])
agree("pad left = pad both sides, cut the end", left, both[:, :-reach], tol=1e-15)
agree("         = the pair (1.14)", pair, left, tol=0)
print("cutting the front does it too:", torch.allclose(both[:, reach:], left))

# %% [markdown]
# The test of causality is the Jacobian, the matrix of $\partial y_t / \partial x_i$. It must be zero above the diagonal. Which of these three is?

# %%
recipes = {
    "pad left": lambda x: conv(x, taps, dilation=4, padding="causal"),
    "pad both, cut the end": lambda x: conv(x, taps, dilation=4, padding=8)[:, :-8],
    "'same'": lambda x: conv(x, taps, dilation=4, padding="same"),
}
clip, jacobians = wave[:, 1000:1024], {}
for name, recipe in recipes.items():
    jacobians[name] = torch.autograd.functional.jacobian(recipe, clip)[0, :, 0]
    above = jacobians[name].triu(1)
    print(f"{name:22} lower triangular: {bool((above == 0).all())}")

# %% mystnb={"image": {"alt": "Three banded matrices of derivatives of output over input. Pad left and pad-both-and-cut are identical and lower triangular; padding same has entries above the diagonal."}}
fig, axes = plt.subplots(1, 3, figsize=(7.2, 3.1), sharey=True)
for ax, (name, matrix) in zip(axes, jacobians.items(), strict=True):
    _ = heatmap(ax, matrix, cmap="PuOr", limits=(-1, 1))
    _ = ax.plot([-0.5, 23.5], [-0.5, 23.5], color="#808080", lw=0.8)
    _ = ax.set(title=name, xlabel="input i (samples)")
_ = axes[0].set_ylabel("output t (samples)")
plt.show()
print(digest(left=jacobians["pad left"], same=jacobians["'same'"]))

# %% [markdown]
# With a stride the rule stays: output $t$ reads no input after $s\,t$. On several axes `"causal"` pads in front of each; flax offers it on one axis only (`tests/test_convolution.py::test_cp_27_causal_is_a_pair_on_one_axis`).
# Asked at [pytorch#1333](https://github.com/pytorch/pytorch/issues/1333), on the [forum](https://discuss.pytorch.org/t/causal-convolution/3456), [TCN#8](https://github.com/locuslab/TCN/issues/8), [wavenet_vocoder#131](https://github.com/r9y9/wavenet_vocoder/issues/131).
#
# ## 1.8 Which inputs give this output size?
#
# Turn (1.10) round. The floor equals $m - 1$ exactly when the numerator is $(m-1)s + a$ with $a = 0, \dots, s-1$, so
#
# $$
# N = (m - 1)\,s + K - p_{lo} - p_{hi} + a, \qquad a = 0, \dots, s - 1. \tag{1.15}
# $$
#
# With $k = 7$, $s = 2$, $p = 3$, the first layer of many networks, 112 outputs come from 223 or 224 inputs. The dots below are (1.15), the bars what a search over all sizes finds.

# %% mystnb={"image": {"alt": "For strides 1 to 4, bars show all input sizes that give six outputs, found by search; dots from the formula sit at the ends of each bar."}}
from ckutils.arithmetic import conv_input_sizes

fig, ax = plt.subplots(figsize=(7.2, 2.2))
for s in (1, 2, 3, 4):
    knobs = {"stride": s, "padding": 2}
    found = [n for n in range(1, 60) if conv_output_size(n, 5, **knobs) == 6]
    sizes = list(conv_input_sizes(6, 5, **knobs))
    _ = ax.barh(s, len(found), left=found[0] - 0.5, height=0.5, color=COLOURS["sky"])
    _ = ax.plot(sizes, [s] * s, "o", color=COLOURS["black"], ms=4)
    print(f"stride {s}: {sizes}, equal to the search:", sizes == found)
_ = ax.set(xlabel="input size n (entries)", ylabel="stride", yticks=(1, 2, 3, 4))
_ = ax.set(xlim=(4, 26), xticks=range(4, 27, 2))
_ = ax.set_title("all inputs with 6 outputs, k = 5, p = 2")
plt.show()
first_layer = conv_input_sizes(112, 7, stride=2, padding=3)
print("112 outputs, k 7, s 2, p 3:", digest(sizes=first_layer))

# %% [markdown]
# A transposed convolution (section 1.10) goes from $m$ back to $n$ and has to be told which. Its size is (1.15) read forwards, with $n$ now the size that goes in, and $a$ under the name of output padding:
#
# $$
# n' = (n - 1)\,s + K - p_{lo} - p_{hi} + a \tag{1.16}
# $$
#
# The guide's relationships 8 to 14 are its special cases, on the same grid as above. The guide's 14 also says which $a$ leads back: $a = (i + 2p - k) \bmod s$.

# %%
from ckutils.arithmetic import conv_transpose_output_size

rules = {
    8: ("s == 1 and p == 0 and a == 0", "i + (k - 1)"),
    9: ("s == 1 and a == 0", "i + (k - 1) - 2*p"),
    10: ("s == 1 and a == 0 and k % 2 == 1 and p == k // 2", "i"),
    11: ("s == 1 and a == 0 and p == k - 1", "i - (k - 1)"),
    12: ("p == 0 and a == 0", "s*(i - 1) + k"),
    13: ("a == 0", "s*(i - 1) + k - 2*p"),
    14: ("a < s", "s*(i - 1) + a + k - 2*p"),
}
for number, (applies, size) in rules.items():
    equal = []
    for (i, k, s, p, d), a in product(grid, range(4)):
        here = {"i": i, "k": k, "s": s, "p": p, "a": a}
        if d == 1 and eval(applies, here) and (o := eval(size, here)) >= 1:
            knobs = {"stride": s, "padding": p, "output_padding": a}
            equal.append(o == conv_transpose_output_size(i, k, **knobs))
    print(f"{number:2}: o = {size:24} in all {len(equal)} cases: {all(equal)}")

# %%
for i, k, s, p in product(range(1, 13), range(1, 6), range(1, 5), range(5)):
    if i + 2 * p >= k:
        o, a = conv_output_size(i, k, stride=s, padding=p), (i + 2 * p - k) % s
        back = conv_transpose_output_size(o, k, stride=s, padding=p, output_padding=a)
        assert back == i
print("a = (i + 2p - k) mod s leads back to every input size: True")

# %% [markdown]
# ## 1.9 Pooling
#
# Pooling slides a window too, and takes its maximum or mean. It has no parameters, treats each channel alone, and its size is (1.10) with $d = 1$. Seven entries, window 2, stride 2: the windows start at 0, 2, 4, and entry 6 is left over. The formula in one of the two sets of notes behind this chapter (statement GD-13 in section 1.33), $(W - F)/S + 1$, gives 3.5 here; the floor is missing.
# With `ceil_mode` a last window may hang over the end, provided that it *starts* inside the signal or its left padding:
#
# $$
# m = \left\lceil \frac{n + 2p - k}{s} \right\rceil + 1, \quad \text{one less if } (m - 1)\,s \ge n + p. \tag{1.17}
# $$

# %%
from ckutils.arithmetic import pool_output_size

checked = 0
for n, k, s, p in product(range(1, 13), range(1, 6), range(1, 5), range(3)):
    for ceil_mode in (False, True):
        knobs = {"stride": s, "padding": p, "ceil_mode": ceil_mode}
        if 2 * p <= k <= n + 2 * p:
            m = F.max_pool1d(torch.zeros(1, 1, n), k, **knobs).shape[-1]
            assert pool_output_size(n, k, **knobs) == m
            checked += 1
print(f"(1.17) and relationship 7 = torch's size in {checked} cases: True")

# %%
sizes = [pool_output_size(7, 2, ceil_mode=mode) for mode in (False, True)]
print("7 entries, window 2:", sizes[0], "windows, with ceil_mode", sizes[1])
last = pool_output_size(3, 2, padding=1, ceil_mode=True)
print("3 entries, padding 1, ceil_mode:", last, "(a third would start behind the end)")
pool = torch.nn.MaxPool2d(3, 2)
print("parameters:", sum(p.numel() for p in pool.parameters()))
print("photograph:", tuple(picture.shape), "->", tuple(pool(picture).shape))

# %% [markdown]
# ## 1.10 Transposed convolution: the adjoint
#
# A convolution collects: output $t$ reads inputs $st, st+1, \dots$ Turn every arrow round and it scatters: input $t$ is spread over outputs $st, st + 1, \dots$ with the same weights.
# By hand, with $y = (1, 10)$, kernel (1, 2, 3) and stride 2: 1 writes 1, 2, 3 from place 0, 10 writes 10, 20, 30 from place 2, and where they meet they add: 1, 2, 13, 20, 30.
#
# $$
# x[c,\; s\,t + d\,j - p] \;\mathrel{+}=\; w[o, c, j]\; y[o, t] \quad \text{for all } o, t, j \tag{1.18}
# $$
#
# Write $\operatorname{conv}^{\top}$ for this map (`conv_transpose` in code). It is the one with
#
# $$
# \langle \operatorname{conv}(x, w),\, y \rangle = \langle x,\, \operatorname{conv}^{\top}(y, w) \rangle \quad \text{for all } x, y, \tag{1.19}
# $$
#
# where $\langle \cdot, \cdot \rangle$ multiplies two arrays entry by entry and sums. A map with this property is called the *adjoint*: for a matrix, its transpose. So $\operatorname{conv}^{\top}$ is the adjoint of the convolution with the *same* weight.
# It is also its gradient with respect to the input: by (1.19) the number $\langle \operatorname{conv}(x, w), y \rangle$ is linear in $x$, with the coefficients $\operatorname{conv}^{\top}(y, w)$.

# %%
from ckutils.convolution import conv_transpose


def scatter(y, w, s, p=0, a=0):
    """Eq. (1.18), one axis and one channel, letter by letter."""
    x = np.zeros((len(y) - 1) * s + len(w) - 2 * p + a)
    for t, j in product(range(len(y)), range(len(w))):
        if 0 <= s * t + j - p < len(x):
            x[s * t + j - p] += w[j] * y[t]
    return x


print(scatter(np.array([1, 10.0]), np.array([1, 2, 3.0]), s=2))

# %%
y, w = photo("brick")[40, :9].double(), torch.tensor([0.5, -1, 2, 0.25]).double()
for s, p, a in ((1, 0, 0), (2, 1, 1), (3, 1, 2)):
    knobs = {"stride": s, "padding": p, "output_padding": a}
    got = conv_transpose(y[None], w[None, None], **knobs)[0]
    loops = scatter(y.numpy(), w.numpy(), s, p, a)
    agree(f"conv_transpose = loops, {s=} {p=} {a=}", got, loops, tol=1e-14)

# %%
picture = photo("astronaut").double()[:, :65, :90]  # (3, 65, 90)
weight = torch.randn(4, 3, 3, 5, generator=draw).double()
knobs = {"stride": (2, 3), "padding": ((1, 0), (2, 2)), "dilation": (1, 2)}
x = picture.clone().requires_grad_()
y = conv(x, weight, **knobs)
z = torch.randn(y.shape, generator=draw).double()
plain = conv_transpose_output_size(tuple(y.shape[1:]), (3, 5), **knobs)
a = (65 - plain[0], 90 - plain[1])
back = conv_transpose(z, weight, output_padding=a, **knobs)
print("plain size", plain, "output padding", a, "size", tuple(back.shape[1:]))
gap = ((y * z).sum() - (x * back).sum()) / (y.norm() * z.norm())
agree("(1.19), relative", gap, 0, tol=1e-12)
agree("gradient with respect to x", torch.autograd.grad(y, x, z)[0], back, tol=1e-12)

# %% [markdown]
# It goes in the opposite direction in shape. It does not undo: applied after the convolution it gives back neither the picture nor a multiple of it, so the name "deconvolution" promises too much. Only where the rows of its matrix are orthonormal does the convolution undo its adjoint (question C of the exercises), and then in that order only.
# Nor does it always enlarge. At stride 1 it is a convolution with the kernel turned round, and padding decides the size:

# %%
again = conv_transpose(conv(picture, weight, padding=2), weight, padding=2)
cosine = (again * picture).sum() / (again.norm() * picture.norm())
print("same shape:", again.shape == picture.shape)
print("a multiple of the picture (cosine above 0.99):", bool(cosine > 0.99))
for s in (1, 2):
    sizes = [conv_transpose_output_size(10, 5, stride=s, padding=p) for p in (0, 2, 4)]
    print(f"from 10 entries, k = 5, stride {s}, padding 0, 2, 4: {sizes}")

# %% [markdown]
# **As a convolution.** Spreading $y$ by the stride turns the scatter into a convolution at stride 1. The kernel is turned round and its two channel axes change places:
#
# $$
# \operatorname{conv}^{\top}(y, w;\, s, p, a) = \operatorname{conv}\big(y^{(s)},\, \bar w;\ \text{pads } (K-1-p,\; K-1-p+a)\big) \tag{1.20}
# $$
#
# with $\bar w[c, o, j] = w[o, c, k-1-j]$.
# So an input-dilated convolution *is* a transposed one, with other letters for the weight. Half the literature says "fractionally strided" for this reason; libraries skip the products with the inserted zeros.

# %%
y = conv(picture, weight, stride=2, padding=1)
direct = conv_transpose(y, weight, stride=2, padding=1, output_padding=1)
swapped = weight.transpose(0, 1)  # (c, o, *k)
knobs = {"input_dilation": 2, "padding": ((1, 2), (3, 4))}
spread = conv(y, swapped.flip(2, 3), **knobs)
agree("(1.20) on both axes", direct, spread, tol=1e-12)
unturned = conv(y, swapped, **knobs)
print("equal without turning the kernel round:", torch.allclose(unturned, direct))

# %% [markdown]
# ### What does `output_padding` do, and why are the extra rows not zeros?
#
# It does not pad. It names which of the $s$ input sizes of (1.15) is meant, and the entries that it adds are computed by (1.18) like all others: they are where the padding would otherwise have cropped the scatter.
# At every admissible size, the adjoint identity; and the last rows of a photograph's gradient:

# %%
layer = torch.randn(2, 3, 5, 5, generator=draw).double()
knobs = {"stride": 3, "padding": 2}
for a in (0, 1, 2):
    n = 97 + a
    x = photo("astronaut").double()[:, :n, :n].requires_grad_()
    y = conv(x, layer, **knobs)
    (gradient,) = torch.autograd.grad(y, x, y.detach())
    back = conv_transpose(y.detach(), layer, output_padding=a, **knobs)
    print(f"input {n}, output {y.shape[-1]}, output_padding {a}")
    gap = ((y * y).sum() - (x * back).sum()) / (y * y).sum()  # (1.19) for this y
    agree("   adjoint identity, relative", gap, 0, tol=1e-12)
    agree("   adjoint = gradient", back, gradient, tol=1e-10)
    print("   last row computed, not zero:", bool(back[:, -1].abs().mean() > 0.01))

# %% [markdown]
# An added entry is zero, whatever the weights and $y$, only if no tap reaches it. At dilation 1 that takes $a > p_{hi}$ or a kernel shorter than the stride. Dilated taps may also step over it: with $k = 3$, $s = d = p = 2$ and $a = 1$ they land on even places, and the added place is odd. torch also admits $s \le a < d$; that is the length of an input whose convolution has more outputs than there are.
# Asked at [pytorch#8816](https://github.com/pytorch/pytorch/issues/8816), [pytorch#25536](https://github.com/pytorch/pytorch/issues/25536), on the [forum](https://discuss.pytorch.org/t/what-does-output-padding-exactly-do-in-convtranspose2d/2688), [tensorflow#50168](https://github.com/tensorflow/tensorflow/issues/50168).

# %% [markdown]
# ## 1.11 Windows as columns, and which matrix this is
#
# Write every window of the signal as a column. Windows of two over (0, 1, 2, 3) give the columns (0, 1), (1, 2), (2, 3), and a convolution is a row of weights times that matrix:
#
# $$
# C[(c, j),\, t] = \tilde x[c,\; s\,t + d\,j - p], \qquad y = W C \tag{1.21}
# $$
#
# with $W$ the weight flattened to a matrix, $C_{out}$ by $C_{in} k$. That is *im2col*: one large matrix product in place of many small sums, paid for with $k^2/s^2$ copies of an image. It is exact, for any number of axes, and for the padding of the torus too:

# %%
from ckutils.convolution import col2im, im2col

print(im2col(torch.arange(4.0)[None], 2))

# %%
picture = photo("astronaut").double()[:, :60, :80]
weight = torch.randn(8, 3, 3, 5, generator=draw).double()
for knobs in (
    {},
    {"stride": 2, "padding": 1},
    {"dilation": (2, 1), "padding": "circular"},
):
    columns = im2col(picture, (3, 5), **knobs)
    y = conv(picture, weight, **knobs)
    flat = (weight.flatten(1) @ columns).reshape(y.shape)
    agree(f"matrix product, {knobs}", flat, y, tol=1e-11)
full = im2col(picture, (3, 3), padding=1)
print("3 x 3 windows at stride 1 hold", full.numel() // picture.numel(), "pictures")

# %% [markdown]
# ### Why is fold(unfold(x)) not x, and how do I put overlapping patches back?
#
# Because *fold* (here `col2im`) is the adjoint of *unfold* (`im2col`), not its inverse: it adds every window back to where it came from,
#
# $$
# x[c, i] = \sum_{(j, t):\; s\,t + d\,j - p \,=\, i} C[(c, j),\, t], \tag{1.22}
# $$
#
# so an entry that lies in five windows comes back five times. How often that is does not depend on $x$: fold the unfolded ones, and divide. Entries that no window reads are 0/0, and nothing can bring them back.

# %%
knobs = {"kernel_size": (4, 4), "stride": 3, "padding": 1}
columns = im2col(picture, **knobs)
folded = col2im(columns, (60, 80), **knobs)
overlap = col2im(im2col(torch.ones_like(picture), **knobs), (60, 80), **knobs)
print("fold(unfold(x)) = x:", torch.allclose(folded, picture))
print("how often entries were read:", sorted(overlap.unique().int().tolist()))
read = overlap > 0
restored = folded / overlap
agree("folded / overlap = x, where read", restored[read], picture[read], tol=1e-12)

# %%
other = torch.randn(columns.shape, generator=draw).double()
left = (columns * other).sum()
right = (picture * col2im(other, (60, 80), **knobs)).sum()
gap = (left - right) / (columns.norm() * other.norm())
agree("<unfold x, C> = <x, fold C>, relative", gap, 0, tol=1e-13)

# %% [markdown]
# Asked at [pytorch#7519](https://github.com/pytorch/pytorch/issues/7519), [pytorch#38955](https://github.com/pytorch/pytorch/issues/38955), [pytorch#119474](https://github.com/pytorch/pytorch/issues/119474).
#
# ### Which matrix is this convolution?
#
# Flatten the image to one long vector, and conv is a matrix $T$ whose row $t$ holds the kernel at the places that output $t$ reads:
#
# $$
# T[t, i] = w\big[(i + p - s\,t)/d\big] \text{ where that is a tap}, \quad 0 \text{ elsewhere}. \tag{1.23}
# $$
#
# On one axis at stride 1 it is constant along diagonals: a Toeplitz matrix. On two axes it is a Toeplitz matrix of Toeplitz blocks, one block for each pair of an output row and an input row. Its transpose is `conv_transpose`. Here it is for a 6 by 6 image and a 3 by 3 kernel, and the same at stride 2:

# %% mystnb={"image": {"alt": "Two matrices. Left: 16 by 36, banded blocks repeating along block diagonals, at stride 1. Right: 4 by 36 at stride 2, every other row and column of blocks."}}
kernel = torch.arange(1.0, 10, dtype=torch.float64).reshape(1, 1, 3, 3)
basis = torch.eye(36, dtype=torch.float64).reshape(36, 1, 6, 6)  # all unit images
matrices = {s: conv(basis, kernel, stride=s).flatten(1).T for s in (1, 2)}
fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.3), width_ratios=(1, 1))
for ax, (s, matrix) in zip(axes, matrices.items(), strict=True):
    _ = heatmap(ax, matrix, cmap="Blues")
    _ = ax.set(xlabel="input pixel", ylabel="output pixel")
    _ = ax.set_title(f"stride {s}: {len(matrix)} by 36")
    _ = ax.set(xticks=range(0, 36, 6), yticks=range(0, len(matrix), 4 if s == 1 else 3))
    _ = ax.vlines(np.arange(5.5, 35, 6), -0.5, len(matrix) - 0.5, "#9a9a9a", lw=0.7)
plt.show()
print(digest(stride_1=matrices[1], stride_2=matrices[2]))

# %%
by_formula = torch.zeros(16, 36, dtype=torch.float64)
for t0, t1, i0, i1 in product(range(4), range(4), range(6), range(6)):
    if 0 <= i0 - t0 < 3 and 0 <= i1 - t1 < 3:
        by_formula[4 * t0 + t1, 6 * i0 + i1] = kernel[0, 0, i0 - t0, i1 - t1]
agree("the matrix = (1.23)", matrices[1], by_formula, tol=0)

# %%
image = photo("gravel")[None, :6, :6].double()
for s, matrix in matrices.items():
    y = conv(image, kernel, stride=s)
    collected = matrix @ image.flatten()
    agree(f"stride {s}: T x = conv(x)", collected, y.flatten(), tol=1e-12)
    back = conv_transpose(y, kernel, stride=s, output_padding=(6 - 3) % s)
    scattered = matrix.T @ y.flatten()
    agree(f"stride {s}: T' y = conv_transpose(y)", scattered, back.flatten(), tol=1e-12)

# %% [markdown]
# Asked at [pytorch#26781](https://github.com/pytorch/pytorch/issues/26781), [scipy#7834](https://github.com/scipy/scipy/issues/7834), [keras#9469](https://github.com/keras-team/keras/issues/9469).
#
# ## 1.12 ★ Where do checkerboards come from, and which cure works?
#
# Feed a transposed convolution with a constant 1 and ask what comes out. Far from the border, output $i$ collects the taps $w[j]$ with $s\,t + j = i$ for some $t$, that is, every $s$-th tap of the kernel:
#
# $$
# S_r = \sum_{j \,\equiv\, r \;(\mathrm{mod}\; s)} w[j], \qquad \text{response at } i: \; S_{i \bmod s} \tag{1.24}
# $$
#
# (without padding). A constant comes out constant if and only if all $s$ *polyphase sums* are equal. By hand, kernel (1, 1, 1) at stride 2: $S_0 = 2$, $S_1 = 1$, a pattern 2, 1, 2, 1, and on two axes 4, 2, 2, 1: a checkerboard.
# Kernel (1, 1, 1, 1): 2, 2. But kernel (1, 2, 3, 4), just as long: $S_0 = 4$, $S_1 = 6$. The length decides for equal weights only.


# %%
def polyphase(w, s):
    """The sums S_r of (1.24) on every axis of one kernel, (s, ..., s)."""
    for axis in range(w.ndim):
        phases = [torch.arange(r, w.shape[axis], s) for r in range(s)]
        parts = [w.index_select(axis, phase).sum(axis) for phase in phases]
        w = torch.stack(parts, axis)
    return w


for taps in ([1, 1, 1], [1, 1, 1, 1], [1, 2, 3, 4], [1, 3, 3, 1]):
    w = torch.tensor(taps).float()
    inside = conv_transpose(torch.ones(1, 12), w[None, None], stride=2)[0, 4:12]
    sums = polyphase(w, 2).int().tolist()
    print(f"{taps}: S = {sums}, response {inside[:6].int().tolist()} ...")
    assert torch.equal(inside.reshape(-1, 2), polyphase(w, 2).expand(4, 2))

# %% [markdown]
# How uneven is the overlap for every kernel size and stride? With equal weights it is even exactly when the stride divides the size; and at the border the overlap thins out whatever the size.

# %%
one = torch.ones(1, 5, 5)
counts = {k: conv_transpose(one, torch.ones(1, 1, k, k), stride=2)[0] for k in (3, 4)}
ratio = np.full((4, 8), np.nan)
for s, k in product((1, 2, 3, 4), range(1, 9)):
    if k >= s:  # a shorter kernel leaves holes
        sums = polyphase(torch.ones(k), s)
        ratio[s - 1, k - 1] = sums.max() / sums.min()
for s in (2, 3, 4):
    uneven = [k for k in range(s, 9) if ratio[s - 1, k - 1] > 1]
    print(f"stride {s}: uneven for kernel sizes {uneven}")

# %% mystnb={"image": {"alt": "Left and middle: overlap counts of a transposed convolution of ones with stride 2. Kernel 3 gives a checkerboard of 4, 2 and 1; kernel 4 gives a constant 4 inside with a thinner rim. Right: ratio of largest to smallest overlap for kernel sizes 1 to 8 and strides 1 to 4."}}
fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), width_ratios=(1, 1, 1.35))
for ax, (k, count) in zip(axes[:2], counts.items(), strict=True):
    _ = heatmap(ax, count, numbers=".0f")
    _ = ax.set(title=f"overlap, k = {k}, s = 2", xlabel="column", ylabel="row")
    _ = ax.set(xticks=range(0, 12, 2), yticks=range(0, 12, 2))
_ = heatmap(axes[2], ratio, numbers=".3g", limits=(1, 2))
_ = axes[2].set(xlabel="kernel size", ylabel="stride")
_ = axes[2].set_title("largest / smallest overlap")
_ = axes[2].set_xticks(range(8), range(1, 9))
_ = axes[2].set_yticks(range(4), range(1, 5))
plt.show()
print(digest(overlap_3=counts[3], overlap_4=counts[4], ratio=ratio))

# %% [markdown]
# Three cures are on offer. Each is measured twice: the exact polyphase spread of the kernel, and its effect on a photograph, as the spread of the mean brightness over the four positions in a 2 by 2 cell (a photograph itself has next to none).
#
# 1. *A kernel size divisible by the stride.* Even overlap, for equal weights.
# 2. *A transposed convolution at stride 1.* Its only polyphase sum is the sum of its taps, so it adds no pattern. It does not enlarge either; put behind a stride-2 layer it blurs the pattern that is there.
# 3. *Resize, then convolve.* Nearest-neighbour resizing is a transposed convolution with a box of $s$ ones, so the pair is one transposed convolution with the kernel $w * \text{box}_s$ ($w$ turned round, because `conv` correlates; its sums do not change), and
#
# $$
# S_r = \sum_j w[j] \cdot 1 \quad \text{for every } r, \tag{1.25}
# $$
#
# because among any $s$ neighbouring places exactly one belongs to phase $r$. Even, for *every* kernel.

# %%
draw = torch.Generator().manual_seed(7)


def kernel_of(k, noise, total):
    """A (1, 1, k, k) kernel with this sum: equal weights, or random ones about them."""
    w = 1 + noise * torch.randn(k, k, generator=draw)
    return (total * w / w.sum())[None, None]


rough, post = kernel_of(4, 0.6, total=4), kernel_of(3, 0.6, total=1)
for name, w in {"k = 4 random": rough, "k = 3 random": post}.items():
    sums = polyphase(w[0, 0], 2).flatten()
    print(f"{name}: polyphase sums", [round(float(v), 2) for v in sums])

# %%
small = F.avg_pool2d(photo("coffee").mean(0)[None], 4)  # (1, 64, 64)
up = {
    mode: F.interpolate(small[None], scale_factor=2, mode=mode)[0]
    for mode in ("nearest", "bilinear")
}
twice = {"stride": 2, "padding": 1}
enlarged = {
    "k = 3, equal": conv_transpose(
        small, kernel_of(3, 0, 4), output_padding=1, **twice
    ),
    "k = 4, equal": conv_transpose(small, kernel_of(4, 0, 4), **twice),
    "k = 4, random": conv_transpose(small, rough, **twice),
}
behind = conv_transpose(enlarged["k = 4, random"], post, padding=1)
enlarged["the same, then stride 1"] = behind
enlarged["nearest, then random 3 x 3"] = conv(up["nearest"], post, padding="reflect")
enlarged["bilinear, then random 3 x 3"] = conv(up["bilinear"], post, padding="reflect")
print("sizes:", {tuple(y.shape) for y in enlarged.values()})


# %%
def unevenness(y):
    """Spread of the mean of the four phases inside a picture, in % of their mean."""
    inside = y[0, 8:120, 8:120].reshape(56, 2, 56, 2)
    phases = inside.mean((0, 2))  # (2, 2)
    return float(100 * (phases.max() - phases.min()) / phases.mean())


for name, y in enlarged.items():
    print(f"{name:28} unevenness {unevenness(y):5.1f} %")
original = F.avg_pool2d(photo("coffee").mean(0)[None], 2)
print(f"{'the photograph at that size':28} unevenness {unevenness(original):5.1f} %")

# %% mystnb={"image": {"alt": "Six enlargements of a detail of a photograph. Equal weights with kernel 3 and random weights with kernel 4 show a clear checkerboard, a stride-1 layer behind it a fainter one; kernel 4 with equal weights and both resized versions show none."}}
fig, axes = plt.subplots(2, 3, figsize=(7.2, 4.4))
for ax, (name, y) in zip(axes.flat, enlarged.items(), strict=True):
    _ = ax.imshow(y[0, 40:88, 30:94], cmap="gray", vmin=0, vmax=1.4)
    _ = ax.set_title(name, fontsize=9)
    _ = ax.set_axis_off()
plt.show()
print(digest(**{f"y{i}": y for i, y in enumerate(enlarged.values())}))

# %% [markdown]
# So the first cure is incomplete: divisibility evens the *count* of the terms, and a trained kernel weighs them. The second reduces the pattern and removes nothing for certain. The third holds for every kernel, by (1.25), and here is that composite kernel, with its equal sums.
# It too has edges. At the border zero padding darkens the rim, reflection does not. And "avoids checkerboards" is exact for a *constant*: on a ramp, nearest-neighbour resizing makes steps, a kernel with unequal sums turns them into a faint pattern, and only bilinear resizing keeps the ramp straight.

# %%
w = post.double()
composite = correlate2d(torch.ones(2, 2).double(), w[0, 0], "full")  # box, then w
sums = polyphase(composite, 2).flatten()
print("polyphase sums of resize and conv:", [round(float(v), 4) for v in sums])

# %%
for padding in ("reflect", 1):
    y = conv(torch.ones(1, 16, 16).double(), w, padding=padding)
    even = torch.allclose(y, y.mean())
    print(f"a constant, padding={padding!r}: constant to the rim: {even}")
ramp = torch.arange(16.0).double().expand(1, 1, 16, 16)
for mode in ("nearest", "bilinear"):
    y = conv(F.interpolate(ramp, scale_factor=2, mode=mode)[0], w)[0, 4:-4, 4:-4]
    steps = y.diff(dim=1)
    print(f"a ramp, {mode:8}: straight: {torch.allclose(steps, steps.mean())}")

# %% [markdown]
# A fourth cure follows from (1.24): *start* with a kernel whose polyphase sums are equal, such as the bilinear (1, 3, 3, 1)/4 on each axis, and let training move it.
# The observation and the advice to resize are Odena, Dumoulin and Olah's, [doi:10.23915/distill.00003](https://doi.org/10.23915/distill.00003), 2016; the notes credit the sentence that they quote to the guide to convolution arithmetic, whose text never mentions overlap.
# Asked at [CycleGAN#190](https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix/issues/190), [ganhacks#59](https://github.com/soumith/ganhacks/issues/59), [pix2pixHD#149](https://github.com/NVIDIA/pix2pixHD/issues/149), [fast-neural-style#37](https://github.com/jcjohnson/fast-neural-style/issues/37).
#
# ## 1.13 I wrote the backward pass myself; why is it wrong once stride or groups exceed 1?
#
# Let $g = \partial L / \partial y$. Differentiating (1.8) with respect to the input gives the scatter (1.18), so
#
# $$
# \frac{\partial L}{\partial x} = \operatorname{conv}^{\top}(g, w;\; s, p, d, a), \qquad a = (n + 2p - K) \bmod s \tag{1.26}
# $$
#
# and with respect to the weight it gives a correlation of $x$ with $g$, in which stride and dilation have *changed places*:
#
# $$
# \frac{\partial L}{\partial w[o, c, j]} = \sum_{b, t} g[b, o, t]\; \tilde x[b, c,\; s\,t + d\,j - p] \tag{1.27}
# $$
#
# Three mistakes are common, and none shows at stride 1 with one group. Leaving out $a$: the gradient comes back too short whenever the floor cut something off. Leaving the extra entries of (1.27): the correlation then has more than $k$ outputs, and only the first $k$ are taps. And letting every group of channels of $x$ meet every group of channels of $g$.
# In (1.27) the batch is what is summed over, so the batch takes the place of the channels:


# %%
def weight_gradient(x, g, k, stride, padding, dilation, groups):
    """Eq. (1.27) on one axis: x (b, c, n), g (b, o, m) -> (o, c / groups, k)."""
    b, c, n = x.shape
    signal = x.reshape(b, groups, c // groups, n).permute(2, 1, 0, 3)  # (c/g, g, b, n)
    signal = signal.flatten(1, 2)  # the batch as channels, group by group
    taps = g.transpose(0, 1)  # (o, b, m)
    knobs = {"stride": dilation, "dilation": stride, "padding": padding}
    w = conv(signal, taps, groups=groups, **knobs)
    return w[..., :k].transpose(0, 1)  # (c/g, o, k') -> (o, c/g, k)


# %%
def input_gradient(g, w, n, stride, padding, dilation, groups):
    """Eq. (1.26) on one axis."""
    a = (n + 2 * padding - dilated_size(w.shape[-1], dilation)) % stride
    knobs = {"stride": stride, "padding": padding, "dilation": dilation}
    return conv_transpose(g, w, output_padding=a, groups=groups, **knobs)


# %%
class HandConv(torch.autograd.Function):
    """A convolution on one axis whose backward pass is (1.26) and (1.27)."""

    @staticmethod
    def forward(ctx, x, w, stride, padding, dilation, groups):
        ctx.save_for_backward(x, w)
        ctx.knobs = stride, padding, dilation, groups
        knobs = {"stride": stride, "padding": padding, "dilation": dilation}
        return conv(x, w, groups=groups, **knobs)

    @staticmethod
    def backward(ctx, g):
        (x, w), knobs = ctx.saved_tensors, ctx.knobs
        dx = input_gradient(g, w, x.shape[-1], *knobs)
        return dx, weight_gradient(x, g, w.shape[-1], *knobs), None, None, None, None


# %%
draw, passed = torch.Generator().manual_seed(8), 0
cases = list(product((7, 8), (1, 2, 3), (0, 2), (1, 2), (1, 2)))
for n, *knobs, groups in cases:
    x = torch.randn(2, 2, n, generator=draw).double().requires_grad_()
    w = torch.randn(2, 2 // groups, 3, generator=draw).double().requires_grad_()
    passed += torch.autograd.gradcheck(HandConv.apply, (x, w, *knobs, groups))
print(f"gradcheck passes in {passed} of {len(cases)} settings (n, s, p, d, groups)")

# %% [markdown]
# What the first mistake looks like: at stride 2 and $n = 8$, $k = 3$ the gradient without $a$ has 7 entries for 8 inputs. Padding it with a zero hides the shape error; with padding 1 in the forward pass the missing entry is not zero.

# %%
x = photo("camera")[100, :8].double()[None, None].requires_grad_()
w = torch.tensor([[[1.0, -2.0, 3.0]]], dtype=torch.float64)
y = conv(x, w, stride=2, padding=1)
(truth,) = torch.autograd.grad(y.sum(), x)
ones = torch.ones_like(y)
print("autograd       ", truth[0, 0].int().tolist())
short = conv_transpose(ones, w, stride=2, padding=1)
print("without a      ", short[0, 0].int().tolist())
print("(1.26) with a  ", input_gradient(ones, w, 8, 2, 1, 1, 1)[0, 0].int().tolist())
long = conv_output_size(8, y.shape[-1], dilation=2, padding=1)
print("entries of (1.27) before the cut to 3 taps:", long)

# %% [markdown]
# Asked at [pytorch#51430](https://github.com/pytorch/pytorch/issues/51430), where the library's own helper was wrong, [pytorch#15501](https://github.com/pytorch/pytorch/issues/15501), [pytorch#61100](https://github.com/pytorch/pytorch/issues/61100).
#
# ## 1.14 How do I convolve over four or more axes?
#
# A sum over four indices can be done one index at a time. Take the first axis out:
#
# $$
# y[t_1, \dots, t_4] = \sum_{j_1} \Big( \underbrace{\sum_{j_2, j_3, j_4} w[j_1, \dots, j_4]\; x[t_1 + j_1,\, \dots,\, t_4 + j_4]}_{\text{a three-axis convolution of the slice } t_1 + j_1} \Big) \tag{1.28}
# $$
#
# so $k_1$ calls of a three-axis convolution do it, with the positions $t_1$ riding along in the batch. Five axes take one more sum, and so on.
# Real data with four axes: from one photograph, a grid of views, each moved by a few pixels, as a plenoptic camera takes them; two axes say which view, two say where in it.

# %%
scene = photo("gravel").double()
views = scene[:16, :17].unfold(0, 7, 3).unfold(1, 8, 3)  # (4, 4, 7, 8)
x = views[None]  # one channel, four axes
w = torch.randn(2, 1, 2, 2, 3, 2, generator=draw).double()
loops = torch.zeros(2, 3, 3, 5, 7).double()
for t in product(range(3), range(3), range(5), range(7)):
    for a, b, c, d in product(range(2), range(2), range(3), range(2)):
        value = x[0, t[0] + a, t[1] + b, t[2] + c, t[3] + d]
        loops[(slice(None), *t)] += w[:, 0, a, b, c, d] * value
agree("conv over four axes = nested loops", conv(x, w), loops, tol=1e-12)
y = 0
for j in range(2):  # (1.28): the slices t + j of the first axis as a batch
    y = y + conv(x[:, j : j + 3].transpose(0, 1), w[:, :, j])
agree("sum of three-axis convolutions", y.transpose(0, 1), loops, tol=1e-12)

# %%
from ckutils import convolution

source(convolution._conv_slices)
for axes in range(1, 6):
    x, w = torch.ones(2, 1, *(5,) * axes), torch.ones(3, 1, *(2,) * axes)
    y = conv(x, w, stride=2, padding="same")
    print(f"{axes} axes: {tuple(y.shape)}, taps in the first sum {int(y.flatten()[0])}")

# %% [markdown]
# The weight says how many axes are spatial; whatever stands in front of the channels is batch, none or several: a picture without a batch is a picture.
# JAX's `conv_general_dilated` takes any number of axes and gives the same values (`tests/test_convolution.py::test_conv_is_jaxs_conv_general_dilated`). torch's own functions end at three. Asked at [tensorflow#1661](https://github.com/tensorflow/tensorflow/issues/1661), [tensorflow#9513](https://github.com/tensorflow/tensorflow/issues/9513), [keras#8371](https://github.com/keras-team/keras/issues/8371), [cutlass#926](https://github.com/NVIDIA/cutlass/issues/926).

# %%
picture, w = photo("chelsea")[:, :32, :32], torch.ones(4, 3, 3, 3)
for batch in ((), (1,), (1, 1), (0,), (2, 5)):
    shape = conv(picture.expand(*batch, 3, 32, 32), w, padding="same").shape
    print(f"{(*batch, 3, 32, 32)!s:20} -> {tuple(shape)}")

# %%
from ckutils.blocks import (
    INCEPTION_3A,
    TCN,
    CausalConv1d,
    CausalSequential,
    DepthwiseSeparable,
    Flattened,
    Highway,
    Inception,
    PointwiseGrouped,
    Residual,
    SpatiallySeparable,
    StepNorm,
    TemporalBlock,
    block_diagonal,
    grouped_conv_ref,
    kernel_rank,
    separate,
)

# %% [markdown]
# ## 1.15 ★ What does one output see?
#
# *"What is the receptive field with dilation, stride, two convolutions a block and several stacks?"*
# ([keras-tcn#8](https://github.com/philipperemy/keras-tcn/issues/8),
# [#196](https://github.com/philipperemy/keras-tcn/issues/196),
# [pytorch-tcn#13](https://github.com/paul-krug/pytorch-tcn/issues/13),
# [torch-scan#27](https://github.com/frgfm/torch-scan/issues/27))
#
# A network cannot react to what no path reaches. So before any training one counts paths.
# Take three layers: kernel 3, then kernel 3 with stride 2, then kernel 3 with dilation 2. Which inputs reach
# outputs 0 and 1 of the last layer? Follow the lines down.

# %% mystnb={"image": {"alt": "Four rows of dots joined by lines: output 0 of the third layer reaches inputs 0 to 12, output 1 reaches inputs 2 to 14."}}
layers = [(3, 1, 1), (3, 2, 1), (3, 1, 2)]  # (kernel, stride, dilation)
fields = [receptive_field(layers[:level]) for level in range(4)]


def middle(level, n):  # where output n of a layer is drawn
    return fields[level].start + (fields[level].size - 1) / 2 + fields[level].jump * n


fig, ax = plt.subplots(figsize=(7.2, 2.6))
for nodes, colour in (({0}, COLOURS["blue"]), ({1}, COLOURS["orange"])):
    for level in (3, 2, 1):
        k, s, d = layers[level - 1]
        lines = [(j, s * j + d * i) for j in nodes for i in range(k)]
        for j, i in lines:
            x = middle(level, j), middle(level - 1, i)
            _ = ax.plot(x, (level, level - 1), "o-", color=colour, lw=1, ms=4)
        nodes = {i for _, i in lines}
_ = ax.set(xlabel="input (samples)", ylabel="layer", yticks=range(4), xticks=range(15))
plt.show()
print(digest(seen_by_output_1=sorted(nodes)))

# %% [markdown]
# Counting in the picture: the field is 3 wide after the first layer, 5 after the second, 13 after the third;
# from output 0 to output 1 it moves by 2. Each layer adds $(k-1)\,d$ steps, and a step at that layer is as many
# inputs as all strides before it multiply to. With size $r$, jump $j$ and start $a$ (the index of the first
# input seen by output 0) and padding $p$ in front, begin with the input itself and go up layer by layer:
#
# $$
# r_0 = 1, \qquad j_0 = 1, \qquad a_0 = 0 \tag{1.29}
# $$
#
# $$
# r_l = r_{l-1} + (k_l - 1)\, d_l\, j_{l-1} \tag{1.30}
# $$
#
# $$
# j_l = s_l\, j_{l-1} \tag{1.31}
# $$
#
# $$
# a_l = a_{l-1} - p_l\, j_{l-1} \tag{1.32}
# $$
#
# Output $n$ sees nothing outside $a + n j, \dots, a + n j + r - 1$. Inside there may be holes; the exact set is
#
# $$
# \Big\{\, n j_L + \sum_{l=1}^{L} (d_l\, i_l - p_l)\, j_{l-1} \;:\; 0 \le i_l < k_l \Big\} \tag{1.33}
# $$
#
# The naive way follows every path backwards, and the package adds up (1.30) to (1.32):


# %%
def trace(layers, output):
    """Inputs that one output reads, path by path; no padding."""
    seen = {output}
    for k, s, d in reversed(layers):
        seen = {s * j + d * i for j in seen for i in range(k)}
    return sorted(seen)


field = receptive_field(layers)
print(field)
starts = [field.start + n * field.jump for n in range(3)]
agree("paths = start and jump", [trace(layers, n)[0] for n in range(3)], starts, tol=0)
agree("exact set", trace(layers, 0), receptive_set(layers), tol=0)

# %% [markdown]
# The strongest evidence is a network itself: the inputs at which the gradient of one output is not zero are exactly those that it
# sees, if all weights are positive so that no two paths cancel. Here are the cases of the threads, each a real
# stack of torch layers: one convolution a level; two a level, as in a temporal block; two stacks of those; a stride in front;
# and dilations 1 and 4 without the 2 between, which leave holes.


# %%
def gradient_support(layers, output, length):
    """Inputs with a non-zero gradient at one output, in torch."""
    x = torch.ones(1, 1, length, requires_grad=True)
    y = x
    for k, s, d in layers:
        y = F.conv1d(y, torch.ones(1, 1, k) / k, stride=s, dilation=d)
    y[0, 0, output].backward()
    return (x.grad[0, 0] != 0).numpy()


doubling = [(2, 1, d) for d in (1, 2, 4, 8)]
stacks = {
    "one a level": doubling,
    "two a level": [layer for layer in doubling for _ in range(2)],
    "two a level, 2 stacks": [layer for layer in doubling for _ in range(2)] * 2,
    "stride 3 in front": [(5, 3, 1), *doubling],
    "rates 1 and 4 only": [(2, 1, 1), (2, 1, 4)],
}

# %% mystnb={"image": {"alt": "Five horizontal strips show which of 64 inputs have a non-zero gradient; lines drawn from the formula end exactly where each strip ends, and the last strip has a hole."}}
fig, ax = plt.subplots(figsize=(7.2, 2.6))
sizes = [receptive_field(chain).size for chain in stacks.values()]
for row, (name, chain) in enumerate(stacks.items()):
    seen = np.flatnonzero(gradient_support(chain, 0, 64))
    _ = ax.plot(seen, 0 * seen + row, "s", ms=4, color=COLOURS["blue"])
    _ = ax.plot([-0.6, sizes[row] - 0.4], [row + 0.32] * 2, color=COLOURS["vermilion"])
    assert seen.tolist() == list(receptive_set(chain))
    print(
        f"{name:22}: formula {sizes[row]:2}, gradient at {len(seen):2} up to {seen[-1]}"
    )
_ = ax.set(xlabel="input (samples); line: size by eq. (1.30)", ylim=(4.6, -0.5))
_ = ax.set_yticks(range(5), stacks)
ax.grid(False)
plt.show()
print(digest(sizes=sizes))

# %% [markdown]
# Every bar ends where its strip ends. Two of the rules of thumb in the threads are the second and the third line:
# with two convolutions a level, kernel $k$, $n$ levels of dilation $1, 2, \dots, 2^{n-1}$ and $S$ stacks,
# (1.30) sums to
#
# $$
# r = 1 + 2\,(k-1)\,(2^n - 1)\,S \tag{1.34}
# $$
#
# With one convolution a level the factor 2 goes: for $k = 2$ that is $r = 2^n$, a popular rule of thumb, and about half of what a network of temporal blocks
# (two convolutions a level) sees. A calculator that leaves the dilation out is right for $d = 1$ only. The last line shows why size alone may mislead: its field is 6 wide and misses two of the six.
#
# The blocks of the rest of this chapter obey the same rules. A block with several paths has the field of its longest one:

# %%
twice_3, temporal = [(3, 2, 1, 1), (3, 1, 1, 1)], [(3, 1, 4, 8)] * 2
pairs = [(2, 1, 2**i, 2**i) for i in range(4) for _ in range(2)]
blocks_seen = {
    "temporal block, k 3, d 4": (TemporalBlock(1, 1, 3, 4), temporal),
    "TCN of 4 levels, k 2": (TCN(1, [2] * 4, 1), pairs),
    "residual, stride 2": (Residual(1, 1, stride=2, norm="none"), twice_3),
    "highway": (Highway(1), [(3, 1, 1, 1)]),
    "separable 5x5": (SpatiallySeparable(1, 1, 5, padding=2), [(5, 1, 1, 2)]),
    "depthwise separable": (DepthwiseSeparable(1, 1, 3, padding=1), [(3, 1, 1, 1)]),
    "inception": (Inception(1, (1,) * 6), [(5, 1, 1, 2)]),
}

# %%
for name, (model, chain) in blocks_seen.items():
    axes = 1 if name.startswith(("temporal", "TCN")) else 2
    with torch.no_grad():
        _ = [p.abs_().add_(0.1) for p in model.parameters()]  # no two paths cancel
    x, at = torch.ones(1, 1, *(40,) * axes, requires_grad=True), 35 if axes == 1 else 9
    model.eval()(x)[(0, slice(None), *(at,) * axes)].sum().backward()
    seen = (x.grad.reshape(40, -1) != 0).any(1).nonzero().flatten().tolist()
    offset = at * receptive_field(chain).jump
    agree(name, seen, [offset + i for i in receptive_set(chain)], tol=0)

# %% [markdown]
# ## 1.16 What a layer costs: parameters, multiply-adds, memory
#
# Three numbers decide whether a layer is affordable: how much must be learned, how much must be computed, how much must be kept.
# By hand for a 3 x 3 kernel from 2 channels to 4 over a 5 x 5 image without padding: each of the 4 output channels has
# $3 \cdot 3 \cdot 2 = 18$ weights and a bias, so 76 parameters. There are $3 \cdot 3$ output positions with 4 channels,
# 36 values; each takes 18 multiplications, so 648. In general, with $M$ output positions and $g$ groups:
#
# $$
# \text{parameters} = \frac{C_\text{in} }{g}\, C_\text{out} \prod_a k_a + C_\text{out} \tag{1.35}
# $$
#
# $$
# \text{multiply-adds} = M\, C_\text{out}\, \frac{C_\text{in} }{g} \prod_a k_a \tag{1.36}
# $$
#
# $$
# \text{numbers to store} = \sum_l \big(\text{parameters}_l + M_l\, C_{\text{out},l}\big) \tag{1.37}
# $$
#
# A sum over the layers gives the network. The naive count walks over the loops of the definition and counts:


# %%
def count_products(size, k, c_in, c_out):
    """The loops of a convolution, counting instead of multiplying."""
    count, out = 0, size - k + 1
    for _channel in range(c_out):
        for _row in range(out):
            for _column in range(out):
                for _c in range(c_in):
                    count += sum(1 for _i in range(k) for _j in range(k))
    return count


options = {"in_channels": 2, "out_channels": 4, "kernel_size": 3}
cost = count_cost("conv", (5, 5), **options)
print(cost)
agree("loops = eq. (1.36)", count_products(5, 3, 2, 4), cost.macs, tol=0)
agree("numel = eq. (1.35)", count_weights(nn.Conv2d(2, 4, 3)), cost.parameters, tol=0)

# %% [markdown]
# The package knows every block of this chapter as rows of a table, and counts on the rows. `count_cost` is the whole of it:

# %%
source(count_cost)

# %% [markdown]
# A small network for a photograph, layer by layer. Where are its parameters, and where its work?

# %%
five = {"kernel_size": 5, "stride": 2, "padding": 2}
small_net = [
    ("conv", {"in_channels": 3, "out_channels": 16} | five),
    ("residual", {"in_channels": 16, "out_channels": 32, "stride": 2}),
    ("depthwise_separable", {"in_channels": 32, "out_channels": 64, "kernel_size": 3}),
    ("pool", {"kernel_size": 8}),
    ("linear", {"in_features": 64 * 7 * 7, "out_features": 10}),
]
size = (256, 256)
for name, options in small_net:
    cost = count_cost(name, () if name == "linear" else size, **options)
    size = cost.output_size
    print(f"{name:20}{cost.parameters:8,} parameters{cost.macs:12,} macs, size {size}")
total = network_cost(small_net, (256, 256))
print(f"{'together':20}{total.parameters:8,} parameters{total.macs:12,} macs")

# %%
model = nn.Sequential(
    nn.Conv2d(3, 16, 5, 2, 2), Residual(16, 32, stride=2), DepthwiseSeparable(32, 64, 3),
    nn.MaxPool2d(8), nn.Flatten(), nn.Linear(64 * 7 * 7, 10),
)  # fmt: skip
with FlopCounterMode(display=False) as counter, torch.no_grad():
    _ = model.eval()(photo("astronaut")[None])
print(f"torch counts {counter.get_total_flops():,} floating-point operations")
agree("parameters", total.parameters, count_weights(model), tol=0)
agree("multiply-adds", 2 * total.macs, counter.get_total_flops(), tol=0)

# %% [markdown]
# Most parameters stand in the last layer and nine tenths of the work in the first two: the two costs are different questions.
#
# **Memory.** For training, every value that the backward pass needs is kept from the forward pass. torch tells what it
# keeps, through hooks on saved tensors. For convolutions with ReLU these are the input, one value for each output of a
# layer, and the weights (a bias is not needed again):

# %%
convs = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3, 2)
chain, kept = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU()), {}


def remember(tensor):
    storage = tensor.untyped_storage()
    kept[storage.data_ptr()] = storage.nbytes()
    return tensor


with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
    values = chain[:2](photo("astronaut")[None])
    outputs = values.numel() + chain[2:](values).numel()
weights = sum(layer.weight.numel() for layer in convs)
print(
    f"kept {sum(kept.values()):,} bytes, {4 * outputs / sum(kept.values()):.0%} outputs"
)
agree("values kept", sum(kept.values()) / 4, 3 * 256**2 + outputs + weights, tol=0)

# %%
rows = [
    ("conv", {"in_channels": 3, "out_channels": 16, "kernel_size": 3}),
    ("conv", {"in_channels": 16, "out_channels": 32, "kernel_size": 3, "stride": 2}),
]
cost = network_cost(rows, (256, 256))
agree("outputs by the table", cost.activations, outputs, tol=0)
print(f"eq. (1.37): {cost.parameters + cost.activations:,} numbers")

# %% [markdown]
# ## 1.17 ★ Are FLOPs the same as MACs?
#
# *"Why do two counters differ by a factor of two?"*
# ([pytorch-OpCounter#15](https://github.com/Lyken17/pytorch-OpCounter/issues/15), whose answer has it the wrong way round,
# [flops-counter.pytorch#40](https://github.com/sovrasov/flops-counter.pytorch/issues/40),
# [mmcv#785](https://github.com/open-mmlab/mmcv/issues/785))
#
# A multiply-add (MAC) is one multiplication and one addition, so two floating-point operations. A table headed FLOPs that
# holds multiply-adds is half of what a counter of operations reports for the same network. To see that the factor
# is exactly 2, let numbers count what is done to them:


# %%
done = {"multiplications": 0, "additions": 0}


class Counted:
    """A number that counts what is done to it."""

    def __mul__(self, other):
        done["multiplications"] += 1
        return self

    def __add__(self, other):
        done["additions"] += 1
        return self


# %%
def instrumented(size, k, c_in, c_out, groups=1):
    """One convolution with bias on counted numbers: (multiplications, additions)."""
    done.update(multiplications=0, additions=0)
    one, taps = Counted(), (c_in // groups) * k * k
    for _value in range(c_out * (size - k + 1) ** 2):
        total = one  # the bias
        for _tap in range(taps):
            total = total + one * one
    return tuple(done.values())


print("3x3, 1 to 1 channel, 3x3 image:", instrumented(3, 3, 1, 1))

# %% [markdown]
# Formula, counting loop and torch's counter for four layers over a 10 x 10 image. Which bars are equal, which are twice as high?

# %%
kinds = {
    "3x3, 8 to 16": (3, 16, 1), "1x1, 8 to 16": (1, 16, 1),
    "3x3 in 4 groups": (3, 16, 4), "3x3 depthwise": (3, 8, 8),
}  # fmt: skip
counts = {}
for name, (k, c, g) in kinds.items():
    with FlopCounterMode(display=False) as counter:
        _ = nn.Conv2d(8, c, k, groups=g)(torch.zeros(1, 8, 10, 10))
    sizes = {"in_channels": 8, "out_channels": c, "kernel_size": k, "groups": g}
    formula = count_macs("conv", (10, 10), **sizes)
    counts[name] = formula, *instrumented(10, k, 8, c, g), counter.get_total_flops()
    print(f"{name:16} {counts[name]}, torch / formula {counts[name][3] / formula:g}")

# %% mystnb={"image": {"alt": "Four groups of four bars on a logarithmic axis: formula, multiplications and additions are equal in each group, torch's FLOPs are twice as high."}}
fig, ax = plt.subplots(figsize=(7.2, 2.5))
bars = np.array(list(counts.values()))
names = "formula: MACs", "loop: multiplications", "loop: additions", "torch: FLOPs"
for i, name in enumerate(names):
    _ = ax.bar(np.arange(4) + 0.2 * i - 0.3, bars[:, i], 0.19, label=name)
_ = ax.set(yscale="log", ylabel="operations", ylim=(1e3, 3e5))
_ = ax.set_xticks(range(4), kinds)
_ = ax.legend(ncols=2, loc="upper right")
plt.show()
print(digest(operations=bars))

# %% [markdown]
# Multiplications, additions (the bias being the first summand) and the formula agree; torch counts both kinds, so twice
# the formula. Without a bias a value of $n$ products needs $n - 1$ additions, and every counter ignores that one. When you
# compare published tables, find one layer that you can count by hand: that settles which convention the table follows. Products with
# padded zeros are counted by all of them.

# %% [markdown]
# ## 1.18 The 1 x 1 convolution
#
# A kernel of one pixel looks at no neighbour. What is left is a matrix that mixes the channels of each pixel by itself:
#
# $$
# y_{o}[u] = \sum_{i} W_{o i}\, x_{i}[u] \qquad \text{for every pixel } u \tag{1.38}
# $$
#
# On a photograph, the matrix below turns red, green and blue into lightness and two opponent colours.

# %%
cat = photo("chelsea")
opponent = torch.tensor([[1, 1, 1], [2, -2, 0], [1, 1, -2]]) / 3.0
second = torch.tensor([[1.0, -1, 0], [0, 1, -1], [1, 0, 1]])
first = conv(cat, opponent[:, :, None, None])
per_pixel = (opponent @ cat.flatten(1)).reshape(3, 256, 256)
agree("1x1 = a matrix a pixel", first, per_pixel, tol=1e-6)
one = conv(cat, (second @ opponent)[:, :, None, None])
agree("two = one matrix", conv(first, second[:, :, None, None]), one, tol=1e-6)

# %%
plus, minus = (conv(x.relu(), second[:, :, None, None]) for x in (first, -first))
odd = bool(torch.allclose(minus, -plus, atol=1e-3))
print("a ReLU between, and still f(-x) = -f(x) as for every matrix:", odd)

# %% [markdown]
# So two of them are worth having only with a non-linearity between. What they save, with the numbers of a residual
# bottleneck at 28 x 28: 3 x 3 from 256 to 256 channels directly, or squeezed through 64.

# %%
grid = (28, 28)
direct = count_cost(
    "conv", grid, in_channels=256, out_channels=256, kernel_size=3, padding=1
)
squeezed = network_cost([
    ("conv", {"in_channels": 256, "out_channels": 64, "kernel_size": 1}),
    ("conv", {"in_channels": 64, "out_channels": 64, "kernel_size": 3, "padding": 1}),
    ("conv", {"in_channels": 64, "out_channels": 256, "kernel_size": 1}),
], grid)  # fmt: skip
print(f"direct   {direct.macs:12,} multiply-adds, {direct.parameters:8,} parameters")
print(
    f"squeezed {squeezed.macs:12,} multiply-adds, {squeezed.parameters:8,} parameters"
)
print(
    f"ratio {direct.macs / squeezed.macs:.1f}; the squeezed map has rank at most 64 across channels"
)

# %% [markdown]
# ## 1.19 One-dimensional convolution over text
#
# A text is a sequence, so its convolution runs along one axis. Each letter becomes a vector of $E$ numbers; the simplest
# has $E = 27$ and a single 1. The channels of the signal are the $E$ coordinates, and a kernel of height $h$ covers $h$
# letters and always all of $E$:
#
# $$
# y_o[t] = b_o + \sum_{j=0}^{h-1} \sum_{e=1}^{E} W_{o e j}\; x_e[t + j] \tag{1.39}
# $$
#
# Take as kernel the vectors of the letters i, g, h, t. Inside "right" it would meet all four of its letters and give 4, inside "fight"
# likewise; at "fort" only the last letter agrees, which gives 1. Where does it give 4 in the first stanza of Blake's *The Tyger* (1794)?

# %%
stanza = (
    "tyger tyger burning bright in the forests of the night "
    "what immortal hand or eye could frame thy fearful symmetry"
)
alphabet = "abcdefghijklmnopqrstuvwxyz "


def one_hot(text):
    """(E, t): a column a letter."""
    return F.one_hot(torch.tensor([alphabet.index(c) for c in text]), 27).float().T


signal, word = one_hot(stanza), one_hot("ight")
scores = conv(signal, word[None])[0]  # weight (1, E, h)
print("text", tuple(signal.shape), "kernel", (1, *word.shape), "->", len(scores))

# %% mystnb={"image": {"alt": "Step plot of the number of matching letters along the stanza; it reaches 4 at the words bright and night only."}}
fig, ax = plt.subplots(figsize=(7.2, 2.0))
_ = ax.plot(scores, drawstyle="steps-mid", lw=1)
for t in (scores == 4).nonzero().flatten().tolist():
    found = stanza[stanza.rfind(" ", 0, t) + 1 : stanza.find(" ", t)]
    _ = ax.annotate(found, (t, 4), (t + 3, 3.6), color=COLOURS["vermilion"])
    print(f"4 of 4 letters at {t}: {found}")
_ = ax.set(
    xlabel="position of the first letter", ylabel="matching letters", yticks=range(5)
)
plt.show()
print(digest(scores=scores))

# %% [markdown]
# TextCNN does the same with learned vectors and kernels, and then takes the largest score over the text: *is this pattern anywhere?*
# Two sentences in circulation about its kernel width cannot both be meant: that the kernel is as wide as the *input is
# long*, and that it is as wide as the *embedding*. Run both.

# %%
E, T = signal.shape
as_image = signal.T[None]  # (1, T, E): a picture of T rows and E columns
over_embedding = F.conv2d(as_image, word.T[None, None])[0, :, 0]  # kernel (h, E)
over_text = F.conv2d(as_image, torch.ones(1, 1, T, E))  # kernel (T, E)
agree(
    "Conv2d with kernel (h, E) = Conv1d with E channels", over_embedding, scores, tol=0
)
print("kernel over the embedding:", len(over_embedding), "scores")
print("kernel over the text:", over_text.numel(), "score")

# %% [markdown]
# The embedding it is. A kernel as long as the text gives one number and slides nowhere; it is a dense layer.
#
# ## 1.20 Kernels that separate
#
# A kernel that is a column times a row can be applied as a column, then as a row: $h + w$ products a pixel instead of $h w$.
# By hand: $(1, 2, 1)^\top (1, 2, 1)$ is the 3 x 3 blur with 4 in its middle, and Sobel's kernel is $(1, 2, 1)^\top(-1, 0, 1)$.
#
# $$
# W[a, b] = u[a]\, v[b] \quad\Longrightarrow\quad W * x = v * (u * x) \tag{1.40}
# $$
#
# Which kernels are of that kind? Those of rank 1. And the singular value decomposition says how far any other kernel is from it:
#
# $$
# W = \sum_{r=1}^{R} \sigma_r\, u_r v_r^\top, \qquad
# \min_{u, v} \frac{\lVert W - u v^\top \rVert}{\lVert W \rVert} = \sqrt{1 - \sigma_1^2 / \textstyle\sum_r \sigma_r^2} \tag{1.41}
# $$
#
# so a kernel of rank $R$ is a sum of $R$ separable ones. Six kernels that people use: which would you dare to separate?

# %%
u = torch.arange(-7.0, 8)
rows, columns = torch.meshgrid(u, u, indexing="ij")
bell = torch.exp(-(rows**2 + columns**2) / 18)
kernels = {
    "Gauss": bell,
    "Sobel": torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([-1.0, 0, 1])),
    "Gabor 0°": bell * torch.cos(columns * 1.2),
    "Gabor 45°": bell * torch.cos((rows + columns) * 0.85),
    "defocus": (rows**2 + columns**2 <= 40).float(),
    "motion": torch.diag(torch.linspace(1, 2, 15)),  # ever slower
}
kernels = {name: w / w.abs().sum() for name, w in kernels.items()}
ranks = {name: kernel_rank(w, tol=1e-5) for name, w in kernels.items()}
for name, w in kernels.items():
    print(f"{name:9} rank {ranks[name]:2}, best product misses {separate(w)[2]:.2f}")

# %% mystnb={"image": {"alt": "Three rows for six kernels: the kernel, a photograph filtered with it, and with its best column-times-row product. Gauss, Sobel and the upright Gabor are unchanged; the oblique Gabor, defocus and motion blur differ."}}
face = photo("camera")[40:112, 90:162]
fig, axes = plt.subplots(3, 6, figsize=(7.2, 3.5))
missed = {}
for ax, (name, w) in zip(axes.T, kernels.items(), strict=True):
    nearest = torch.outer(*separate(w)[:2])
    both = [conv(face[None], k[None, None], padding="same")[0] for k in (w, nearest)]
    missed[name] = round(float((both[0] - both[1]).norm() / both[0].norm()), 2)
    for one, picture in zip(ax, (w, *both), strict=True):
        _ = one.imshow(picture, cmap="gray")
        one.set_axis_off()
    _ = ax[0].set_title(f"{name}, rank {ranks[name]}", fontsize=8)
for name, share in missed.items():
    print(f"{name:10s} the part that separation misses: {share:.2f}")
plt.show()
print(digest(missed=list(missed.values())))

# %% [markdown]
# Top: kernel; middle: photograph through it; bottom: through its best product, and the printed numbers are the relative
# differences. A round Gaussian and an upright Gabor separate exactly. The oblique Gabor has rank 2, because $\cos(a+b) = \cos a
# \cos b - \sin a \sin b$: two separable filters give it exactly. A diagonal motion blur has full rank and no good product: the best one is a single tap, the largest, and returns the photograph unblurred. The defocus misses 0.35 of the kernel but little of the photograph,
# whose energy lies at low frequencies, where the two kernels agree.
#
# **Is a trained separable layer therefore worse?** It is restricted, as the sources say, with one channel between. With $m$ channels between
# column and row every kernel is a sum of $m$ products, and nothing is lost from $m = \min(h, w)$ on:

# %%
torch.manual_seed(0)
for m in (1, 2, 3, 5):
    layer = SpatiallySeparable(1, 1, 5, mid_channels=m)
    rank = kernel_rank(layer.dense()[0, 0].detach(), tol=1e-5)
    print(f"{m} between: rank {rank}, {count_weights(layer)} parameters, dense 26")
x = photo("camera")[None, None]
one = conv(x, layer.dense(), layer[1].bias)
agree("columns then rows = one dense kernel", layer(x), one, tol=1e-5)
for k in (3, 5, 7):
    random = torch.randn(200, k, k, generator=torch.Generator().manual_seed(k))
    mean = np.mean([separate(w)[2] for w in random])
    print(f"random {k}x{k}: the best product misses {mean:.2f} on average")

# %% [markdown]
# ## 1.21 Groups: which channels meet which kernels?
#
# *"Why is the weight C_in/groups deep?"* ([onnx#2273](https://github.com/onnx/onnx/issues/2273),
# [caffe#5334](https://github.com/BVLC/caffe/issues/5334), [tensorflow#45751](https://github.com/tensorflow/tensorflow/issues/45751))
#
# Cut the input channels into $g$ equal slices and the output channels likewise. Output slice $i$ reads input slice $i$ and nothing else,
# so a kernel needs a depth of $C_\text{in}/g$ only: deeper weights would have nothing to meet.
#
# $$
# y^{(i)} = W^{(i)} * x^{(i)}, \qquad i = 1, \dots, g \tag{1.42}
# $$
#
# Stacked, that is one dense convolution whose channel matrix is block-diagonal:
#
# $$
# \operatorname{diag}\big(W^{(1)}, \dots, W^{(g)}\big) \tag{1.43}
# $$
#
# All three on a photograph, cut into 12 channels of quarter size:

# %%
x = F.pixel_unshuffle(photo("coffee")[None], 2)  # (1, 12, 128, 128)
draw = torch.Generator().manual_seed(0)
weight = torch.randn(6, 4, 3, 3, generator=draw)  # 3 groups: depth 12 / 3
grouped = conv(x, weight, groups=3)
split = grouped_conv_ref(x, weight, groups=3)
agree("split, convolve, concatenate", split, grouped, tol=1e-4)
one = conv(x, block_diagonal(weight, groups=3))
agree("one block-diagonal dense kernel", one, grouped, tol=1e-4)
source(grouped_conv_ref)

# %%
for g in (1, 2, 4, 8):
    options = {"in_channels": 240, "out_channels": 240, "groups": g}
    cost = count_cost("pointwise_grouped", (28, 28), **options)
    print(f"1x1 in {g} groups: {cost.parameters:6,} parameters, {cost.macs:11,} macs")
second = {"in_channels": 96, "out_channels": 256, "kernel_size": 5}
for g in (1, 2):
    count = count_parameters("conv", groups=g, **second)
    print(f"AlexNet's second layer in {g} groups: {count:,} parameters")

# %% [markdown]
# Weights and work fall by $g$ (biases do not). AlexNet split its second, fourth and fifth layer in two because one GPU could not hold
# them; the word *group* came later. The price: groups never talk. ShuffleNet deals the channels like cards between two grouped layers,
#
# $$
# y[\,j\,g + i\,] = x[\,i\,(C/g) + j\,], \qquad 0 \le i < g,\; 0 \le j < C/g \tag{1.44}
# $$
#
# Which of 12 input channels does each of 12 output channels depend on after two grouped 1 x 1 layers?


# %%
def depends(model):
    """(out, in): whether an output channel has a gradient to an input channel."""
    x = torch.ones(1, 12, 1, 1, requires_grad=True)
    rows = [torch.autograd.grad(y, x, retain_graph=True)[0] for y in model(x).flatten()]
    return torch.stack(rows).flatten(1) != 0


torch.manual_seed(0)
last, dealt = PointwiseGrouped(12, 12, 3), PointwiseGrouped(12, 12, 3, shuffle=True)
stages = {
    "one layer, 3 groups": nn.Sequential(last),
    "two layers": nn.Sequential(PointwiseGrouped(12, 12, 3), last),
    "two with a shuffle": nn.Sequential(dealt, last),
}

# %% mystnb={"image": {"alt": "Three 12 by 12 matrices of dependence: three diagonal blocks after one and after two grouped layers, everything filled after two layers with a shuffle."}}
fig, axes = plt.subplots(1, 3, figsize=(7.2, 3.2))
ticks = range(0, 12, 4)
for ax, (name, model) in zip(axes, stages.items(), strict=True):
    _ = heatmap(ax, depends(model).float(), limits=(0, 1))
    _ = ax.set(title=name, xlabel="input channel", ylabel="output channel")
    _ = ax.set(xticks=ticks, yticks=ticks)
plt.show()
for name, model in stages.items():
    print(digest(**{name.split(",")[0].replace(" ", "_"): depends(model)}))

# %% [markdown]
# One shuffle suffices if each group has at least as many channels as there are groups; with 12 channels in 4 groups of 3 it does not
# (question G of the exercises).
#
# ## 1.22 Depthwise separable and flattened
#
# Take $g = C_\text{in}$: every channel has a kernel of its own, and nothing mixes channels. A 1 x 1 convolution behind
# it does that. Together they are one dense kernel of a special form,
#
# $$
# W[o, i, a, b] = P[o, i]\; D[i, a, b] \tag{1.45}
# $$
#
# Flattening goes on: also the spatial part is a product, so that each filter is made of three vectors,
#
# $$
# W[o, i, a, b] = \alpha_o[i]\; \beta_o[a]\; \gamma_o[b] \tag{1.46}
# $$

# %%
torch.manual_seed(0)
coffee = photo("coffee")[None]
for layer in (DepthwiseSeparable(3, 8, 3), Flattened(3, 8, 3)):
    one = conv(coffee, layer.dense(), layer[-1].bias)
    agree(f"{type(layer).__name__} = one dense kernel", layer(coffee), one, tol=1e-5)
options = {"in_channels": 64, "out_channels": 128, "kernel_size": 3, "padding": 1}
dense = count_cost("conv", (56, 56), **options)
for name in ("depthwise_separable", "flattened", "spatially_separable"):
    cost = count_cost(name, (56, 56), **options)
    ratio = cost.macs / dense.macs
    print(f"{name:20} {cost.parameters:6,} parameters, {ratio:.4f} of the dense macs")
print(f"1/C_out + 1/k^2 = {1 / 128 + 1 / 9:.4f}")

# %% [markdown]
# The spatially separable layer saves nothing here: with 128 channels between, its two halves together cost what the dense layer does.
# The ratio $1/C_\text{out} + 1/k^2$ is exact for the depthwise separable layer. It buys this with its form: the kernels of
# all filters for one input channel are multiples of one spatial kernel, so the matrix of (1.45) for each $i$ has rank 1, against up to
# $\min(C_\text{out}, k^2)$ for a dense layer. *Order:* MobileNet puts the depthwise layer first, with normalisation and ReLU after
# both; Xception describes the 1 x 1 first, as an extreme Inception module, implements depthwise first, and found no non-linearity between them better.
#
# ## 1.23 ★ Fewer operations, but not less time?
#
# *"A depthwise layer needs a fraction of the arithmetic: why is it not faster on my GPU?"*
# ([pytorch#18631](https://github.com/pytorch/pytorch/issues/18631), [pytorch#1708](https://github.com/pytorch/pytorch/issues/1708),
# [tensorflow#19390](https://github.com/tensorflow/tensorflow/issues/19390), [mxnet#8832](https://github.com/apache/mxnet/issues/8832))
#
# A processor must fetch numbers before it can multiply them. The *arithmetic intensity* of a layer is its
# operations over the bytes that it has to move at least: input, output and weights once each, 4 bytes a number.
#
# $$
# I = \frac{2 \cdot \text{multiply-adds} }{4\, (\text{inputs} + \text{outputs} + \text{weights})}, \qquad
# \text{time} \ge \max\!\Big(\frac{\text{operations} }{\text{peak} }, \frac{\text{bytes} }{\text{bandwidth} }\Big) \tag{1.47}
# $$
#
# The second formula is the *roofline*. By hand for one value of a 3 x 3 depthwise layer: 18 operations, and one number read and one
# written, so $18/8 = 2.25$ operations a byte, however many channels there are. A dense layer reuses every number it has
# fetched $C_\text{out}$ times.

# %%
device = "cuda" if torch.cuda.is_available() else "cpu"
batch, c, side = 8, 128, 28
shapes = {
    "dense 3x3": (3, 1),
    "8 groups 3x3": (3, 8),
    "1x1": (1, 1),
    "depthwise 3x3": (3, c),
}
variants, flops, traffic = {}, {}, {}
for name, (k, g) in shapes.items():
    layer = nn.Conv2d(c, c, k, padding=k // 2, groups=g, bias=False).to(device)
    options = {"in_channels": c, "out_channels": c, "kernel_size": k, "groups": g}
    macs = count_macs("conv", (side, side), padding=k // 2, **options)
    variants[name], flops[name] = layer, 2 * batch * macs
    traffic[name] = 4 * (2 * batch * c * side * side + layer.weight.numel())
    work = f"{flops[name] / 1e6:7.1f} Mflop, {traffic[name] / 1e6:.1f} MB"
    print(f"{name:14}{work}, intensity {flops[name] / traffic[name]:6.1f} flop/byte")

# %% [markdown]
# The depthwise layer does 128 times less arithmetic and moves nearly the same bytes. On a machine that does 10 operations in the time in which
# it fetches a byte, the dense layer is bound by arithmetic and the depthwise one by memory. What does this machine do? Peak and bandwidth are
# measured (the best rate of anything here, a matrix product included, and a copy), then each variant; all repetitions are interleaved, and on a GPU each is synchronised.


# %%
def timings(jobs, repeats=7):
    """Seconds of each job, interleaved, so that all meet the same weather."""
    seconds = {name: [] for name in jobs}
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            wait()
            start = time.perf_counter()
            job()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(runs[1:]) for name, runs in seconds.items()}  # 1 to warm up


# %% tags=["nbval-ignore-output"]
square = torch.randn(1024, 1024, device=device)
block, other = torch.randn(2, 8_000_000, device=device)
x = torch.randn(batch, c, side, side, device=device)
jobs = {name: lambda layer=layer: layer(x) for name, layer in variants.items()}
jobs |= {"product": lambda: square @ square, "copy": lambda: other.copy_(block)}
with torch.inference_mode():
    seconds = timings(jobs)
work = flops | {"product": 2 * 1024**3}
peak = max(count / seconds[name].min() for name, count in work.items())
bandwidth = 2 * 4 * 8e6 / seconds["copy"].min()
print(f"peak {peak / 1e9:.0f} Gflop/s, bandwidth {bandwidth / 1e9:.1f} GB/s", end=": ")
print(f"balance {peak / bandwidth:.1f} flop/byte")

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Roofline plot on logarithmic axes: a slope for memory bandwidth and a flat roof for peak arithmetic; the depthwise layer lies far left under the slope, the dense layer right under the flat roof."}}
intensity = np.geomspace(0.5, 1000, 200)
fig, ax = plt.subplots(figsize=(7.2, 2.8))
roof = np.minimum(peak, intensity * bandwidth) / 1e9
_ = ax.plot(intensity, roof, color=COLOURS["black"], label="roofline, measured")
for (name, count), marker in zip(flops.items(), "os^D", strict=True):
    median = np.median(seconds[name])
    _ = ax.plot(count / traffic[name], count / median / 1e9, marker, ms=8, label=name)
    operations, spent = (
        count / flops["dense 3x3"],
        median / np.median(seconds["dense 3x3"]),
    )
    print(f"{name:14} operations / dense {operations:.3f}, time / dense {spent:.3f}")
_ = ax.set(xscale="log", yscale="log", xlabel="arithmetic intensity (flop/byte)")
_ = ax.set(ylabel="attained (Gflop/s)", ylim=(10, 2 * peak / 1e9))
_ = ax.tick_params(axis="y", which="minor", labelleft=False)
_ = ax.legend(loc="lower right")
plt.show()
print(digest(intensity=[flops[name] / traffic[name] for name in flops]))

# %% [markdown]
# On the CPU of this build the depthwise layer needs less time than the dense one, but nowhere near 128 times less (the second number of its line), and it stands
# far to the left and far below the others: with so little reuse, neither the fetching nor the loop around nine products can be hidden.
#
# And the larger a machine's balance, the less can be gained at all. The bound (1.47) for machines of four balances, the dense layer's time over the depthwise layer's:

# %%
depthwise = flops["depthwise 3x3"], traffic["depthwise 3x3"]
for balance in (1, 4, 16, 64):  # flop a byte
    bounds = [
        max(f / balance, b)
        for f, b in zip(flops.values(), traffic.values(), strict=True)
    ]
    print(
        f"balance {balance:2}: dense / depthwise at most {bounds[0] / bounds[3]:5.1f}"
    )

# %% [markdown]
# Arithmetic grows faster than bandwidth from one generation of processors to the next, so the gain shrinks from 128 towards 1, which is the ratio of the bytes. A library also needs a kernel of its own
# for this layer to come near its bound; the threads tell of years without one. *GPU: not measured in this build;* the cells above run there as they are, synchronised. Before you swap layers for
# speed, compute (1.47): it takes three counts, and says which of the two you would be saving.
#
# ## 1.24 Inception: width without a blow-up
#
# An Inception module looks at 1 x 1, 3 x 3 and 5 x 5 neighbourhoods and the local maximum side by side. The 3 x 3 and 5 x 5 are expensive, so 1 x 1
# convolutions squeeze the channels first. The published statement is that the design *increases depth and width while keeping the computational
# budget constant*. Is the cost of a module constant? With the published widths of module 3a:

# %%
grid, w = (28, 28), INCEPTION_3A


def macs(k, c_in, c_out):
    options = {"in_channels": c_in, "out_channels": c_out, "kernel_size": k}
    return count_macs("conv", grid, padding=k // 2, **options)


reduced3 = macs(1, 192, w.reduce3) + macs(3, w.reduce3, w.three)
reduced5 = macs(1, 192, w.reduce5) + macs(5, w.reduce5, w.five)
one, pool = macs(1, 192, w.one), macs(1, 192, w.pool)
modules = {
    "with 1x1 reductions": (one, reduced3, reduced5, pool),
    "without": (one, macs(3, 192, w.three), macs(5, 192, w.five), 0),
    "plain 3x3, 192 to 256": (0, macs(3, 192, 256), 0, 0),
}

# %% mystnb={"image": {"alt": "Stacked horizontal bars of multiply-adds: with reductions 128 million, without 303 million, a plain 3 by 3 layer of the same width 347 million."}}
fig, ax = plt.subplots(figsize=(7.2, 1.9))
millions = np.array(list(modules.values())) / 1e6  # (module, branch)
for i, branch in enumerate(("1x1", "3x3", "5x5", "pooling")):
    left = millions[:, :i].sum(1)
    _ = ax.barh(list(modules), millions[:, i], left=left, label=branch)
_ = ax.set(xlabel="multiply-adds (millions)")
_ = ax.invert_yaxis()
_ = ax.legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
plt.show()
print(digest(millions=millions.sum(1)))

# %%
published = {"in_channels": 192, "widths": INCEPTION_3A}
for reduce in (True, False):
    count = count_macs("inception", grid, reduce=reduce, **published)
    channels = Inception(192, INCEPTION_3A, reduce=reduce)(
        torch.zeros(1, 192, 7, 7)
    ).shape[1]
    print(f"reduce={reduce}: {count:,} multiply-adds, {channels} output channels")
double = {"in_channels": 384, "widths": tuple(2 * width for width in INCEPTION_3A)}
ratio = count_macs("inception", grid, **double) / count_macs(
    "inception", grid, **published
)
print(f"every width doubled: {ratio:.2f} times the work")

# %% [markdown]
# Not constant: doubling all widths multiplies the work by 4, as everywhere. What holds is that the reductions divide the cost of this module by 2.4,
# that they let the designers choose widths within a *fixed budget*, and that the branch with the maximum no longer
# passes all of its input on (without reductions the output grows to 416 channels, and the next module pays for it).
#
# ## 1.25 Residual against highway
#
# A residual block learns the difference to its input; a highway layer mixes input and transform by a gate $T(x) \in (0, 1)$:
#
# $$
# y = F(x) + x \tag{1.48}
# $$
#
# $$
# y = H(x)\, T(x) + x\, \big(1 - T(x)\big) \tag{1.49}
# $$
#
# With $F = 0$ the first is the identity. And the extremes of the second, gate by gate:

# %%
torch.manual_seed(0)
x = F.pixel_unshuffle(photo("coffee")[None], 2)[..., :32, :32]  # (1, 12, 32, 32)
block, highway = Residual(12, 12, norm="none", order="pre"), Highway(12)
with torch.no_grad():
    _ = [p.zero_() for p in block.main.parameters()]
    _ = highway.gate.weight.zero_()
    agree("residual with F = 0 is the identity", block(x), x, tol=0)
    _ = highway.gate.bias.fill_(-1e4)
    agree("T = 0, transform gate closed: y = x", highway(x), x, tol=0)
    _ = highway.gate.bias.fill_(1e4)
    transform = highway.transform(x).relu()
    agree("T = 1, carry gate 1 - T closed: y = H(x)", highway(x), transform, tol=0)

# %% [markdown]
# The sentence *"if the gate is closed, the layer is not residual at all"* is about the gate $1 - T$ in front of the shortcut. For the gate that highway
# networks name first, $T$, the opposite holds: closed, the layer is the identity, and that is how they are initialised (negative bias).
#
# What do the shortcuts cost? The gate is a second convolution; the plus sign costs one addition a value, and no parameter:

# %%
grid, narrow = (56, 56), {"in_channels": 64, "out_channels": 64}
residual = count_cost("residual", grid, **narrow)
highway = count_cost("highway", grid, channels=64)
plus = 64 * 56 * 56
part = plus / (2 * residual.macs)
print(f"residual: {residual.parameters:,} parameters, {residual.macs:,} multiply-adds")
print(f"+: 0 parameters, {plus:,} additions, {part:.2%} of the block's operations")
longer = count_cost("residual", grid, in_channels=64, out_channels=128, stride=2)
part = 64 * 128 * 28 * 28 / longer.macs
print(f"projection: {64 * 128:,} parameters, {part:.1%} of its block's multiply-adds")
print(f"highway: {highway.parameters:,} parameters, half of them in the gate")
gates = torch.sigmoid(Highway(12).gate(torch.cat([x, 1 - x]))).mean((1, 2, 3)).detach()
print("the gate depends on the data:", not bool(torch.isclose(*gates, atol=1e-5)))

# %% [markdown]
# So "neither parameters nor complexity" is right for parameters and for the order of the cost; the exact count is not zero, the additions
# move memory, and a shortcut between different shapes needs a convolution.
#
# **Is the identity really easier to learn with a shortcut?** Train plain and residual stacks to reproduce their input, patches of a photograph.
# How does the error after 60 steps depend on the depth?

# %%
x = F.pixel_unshuffle(photo("coffee")[None], 2)  # (1, 12, 128, 128)
patches = F.unfold(x, 8, stride=8)[0].T.reshape(-1, 12, 8, 8)  # (256, 12, 8, 8)


def identity_error(depth, residual, seed):
    """Mean squared error over the variance after 60 steps of learning y = x."""
    torch.manual_seed(seed)
    plain = [(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()) for _ in range(depth)]
    blocks = [Residual(12, 12, norm="none") for _ in range(depth // 2)]
    model = nn.Sequential(*blocks) if residual else nn.Sequential(*sum(plain, ()))
    loss, knobs = nn.MSELoss(), {"epochs": 15, "seed": seed, "learning_rate": 3e-3}
    history = fit(model, loss, patches, patches, **knobs)
    return np.mean(history.losses[-4:]) / float(patches.var())


# %% mystnb={"image": {"alt": "Error of learning the identity against depth: plain stacks get worse with depth up to the variance of the data, residual stacks stay low; three seeds each."}}
depths, errors = (2, 8, 16), {}
fig, ax = plt.subplots(figsize=(7.2, 2.4))
for residual, name in enumerate(("plain", "residual")):
    runs = [[identity_error(d, residual, seed) for seed in range(3)] for d in depths]
    errors[name] = np.array(runs)
    colour = COLOURS["blue" if residual else "vermilion"]
    _ = ax.plot(depths, runs, "o-", color=colour, label=[name, None, None])
_ = ax.set(
    xlabel="convolutions", ylabel="error / variance", yscale="log", xticks=depths
)
_ = ax.legend()
plain, residual = errors["plain"][2], errors["residual"][2]  # 16 convolutions
print(
    "plain above a quarter, residual below a twentieth of the variance, 3 seeds each:"
)
plt.show()
print(digest(plain=plain > 0.25, residual=residual < 0.05))

# %% [markdown]
# ## 1.26 What training makes of the kernels
#
# Each filter of a layer is a stack of kernels, one an input channel, and yields one output channel; in torch the axes of the weight are (filter,
# input channel, row, column). *Different filters extract different things,* say the sources, *through backpropagation.*
# Train eight filters on Fashion-MNIST twice: from a random start, and with all eight filters (and what reads them) starting equal.

# %%
clothes = fashion_mnist_small()
images, labels = clothes.train_images[:2000], clothes.train_labels[:2000]


def trained_filters(equal_start):
    """A tiny network with eight 5x5 filters, trained on 2,000 images."""
    torch.manual_seed(0)
    first, last = nn.Conv2d(1, 8, 5), nn.Linear(8 * 36, 10)
    if equal_start:
        with torch.no_grad():
            _ = first.weight.copy_(first.weight[:1].expand(8, 1, 5, 5))
            _ = first.bias.zero_()
            _ = last.weight.copy_(last.weight[:, :36].repeat(1, 8))
    model = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), last)
    loss, knobs = nn.CrossEntropyLoss(), {"epochs": 4, "learning_rate": 5e-3}
    _ = fit(model, loss, images, labels, **knobs)
    return model


# %% mystnb={"image": {"alt": "Two rows of eight 5 by 5 filters: different from each other after a random start, all the same after an equal start."}}
nets = {"random start": trained_filters(False), "equal start": trained_filters(True)}
fig, axes = plt.subplots(2, 8, figsize=(7.2, 2.0))
for row, (name, model) in zip(axes, nets.items(), strict=True):
    for ax, kernel in zip(row, model[0].weight.detach()[:, 0], strict=True):
        _ = ax.imshow(kernel, cmap=DIVERGING, vmin=-0.6, vmax=0.6)
        ax.set_axis_off()
    _ = row[0].set_title(name, loc="left")
plt.show()
for name, model in nets.items():
    unit = F.normalize(model[0].weight.detach().flatten(1))
    alike = unit @ unit.T > 0.999  # (8, 8), with itself on the diagonal
    score = accuracy(model, clothes.test_images, clothes.test_labels)
    print(f"{name}: {digest(alike=alike)}; accuracy above 0.6: {score > 0.6}")

# %%
first, image = nets["random start"][0], clothes.test_images[:1]
alone = [
    F.conv2d(image, w[None], b[None]) for w, b in zip(*first.parameters(), strict=True)
]
agree("one filter, one channel", torch.cat(alone, 1), first(image), tol=1e-5)
print("weights, shared over positions:", count_weights(first))
print(f"a dense layer of the same sizes: {(28 * 28 + 1) * 8 * 24 * 24:,}")

# %% [markdown]
# So it is not backpropagation alone that makes filters differ. It treats equal filters equally, for ever; the random start tells them apart.
#
# ## 1.27 Translation: equivariance, and what is called invariance
#
# The sources say that a convolution is *translation invariant*. Let $S_a$ move an image by $a$. Two properties are mixed up here:
#
# > **Equivariant:** the features move along.
# >
# > **Invariant:** the features stay the same.
#
# $$
# f(S_a x) = S_a f(x) \tag{1.50}
# $$
#
# $$
# f(S_a x) = f(x) \tag{1.51}
# $$
#
# Move a face through an empty frame, and compare the features with those before: raw, after moving them back, after a local pooling, after a
# global one.

# %%
torch.manual_seed(0)
face = photo("astronaut")[:, 20:100, 60:140]
filters = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU())


def framed(shift):
    """The face in an empty frame, `shift` pixels to the right."""
    frame = torch.zeros(3, 128, 128)
    frame[:, 24:104, 16 + shift : 96 + shift] = face
    return frame[None]


def change(a, b):
    return float((a - b).norm() / b.norm())


def pooled(x):
    return F.max_pool2d(x, 4)


# %%
shifts, start = range(9), filters(framed(0)).detach()
names = "raw", "moved back", "pooled 4x4, best alignment", "global maximum"
curves = {name: [] for name in names}
for s in shifts:
    now = filters(framed(s)).detach()
    back = now[..., 8 + s : 116 + s], start[..., 8:116]
    moves = [
        (pooled(now)[..., 2 + a : 29 + a], pooled(start)[..., 2:29]) for a in range(3)
    ]
    best = min(change(*move) for move in moves)
    largest = now.amax((2, 3)), start.amax((2, 3))
    row = change(now, start), change(*back), best, change(*largest)
    for name, value in zip(names, row, strict=True):
        curves[name].append(value)

# %% mystnb={"image": {"alt": "Left, the face in its frame before and after a shift of 8 pixels. Right, the change of the features against the shift: raw grows, moved back and global maximum are zero, pooled features return to zero only at multiples of 4."}}
fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.4), width_ratios=(1, 1, 2.2))
for ax, s in zip(axes, (0, 8), strict=False):
    _ = ax.imshow(framed(s)[0].permute(1, 2, 0))
    _ = ax.set_title(f"shift {s}")
    ax.set_axis_off()
for (name, values), style in zip(
    curves.items(), ("o-", "s-", "^-", "x--"), strict=True
):
    _ = axes[2].plot(shifts, values, style, ms=5, label=name)
_ = axes[2].set(xlabel="shift (pixels)", ylabel="relative change", ylim=(-0.03, 1.2))
_ = axes[2].legend(loc="upper left", fontsize=7, ncols=2)
for name, values in curves.items():
    print(f"{name:27}", [round(values[s], 2) for s in (1, 2, 4, 8)])
plt.show()
print(digest(change=list(curves.values())))
agree("convolution is equivariant", curves["moved back"], [0] * 9, tol=1e-6)

# %% [markdown]
# Raw features change by more than half: convolution is **not** invariant. Moved back they are equal, to the last digit:
# it is equivariant. Local pooling with stride 4 is neither: its output can only follow shifts by multiples of 4, and between
# them it changes by up to a quarter of its norm, whichever alignment one tries. A convolution with stride $s$ has the same limit, by (1.5): it follows shifts by multiples of $s$. Only the global pooling is invariant, and only while the face stays
# inside the frame: at the border even equivariance ends (section 1.31).

# %% [markdown]
# ## 1.28 A temporal convolutional network that hears digits
#
# Now all pieces together, on sound: a thousand recordings of the digits zero to nine, 8,000 samples a second. A recogniser that
# listens live must be causal. Its convolution reaches back only,
#
# $$
# y[n] = b + \sum_{i=0}^{k-1} w[i]\; x\big[s n - d\,(k - 1 - i)\big], \qquad x[m] = 0 \text{ for } m < 0 \tag{1.52}
# $$
#
# and a *temporal block* is (causal convolution, ReLU, dropout) twice with a shortcut; a temporal convolutional network (TCN) stacks
# them with dilations 1, 2, 4, ... and ends in a 1 x 1 convolution:
#
# $$
# \text{block}(x) = \operatorname{relu}\big(F(x) + S x\big), \qquad S = 1, \text{ or } 1 \times 1 \text{ if the channels differ} \tag{1.53}
# $$
#
# In front stands a strided causal convolution with fixed kernels: 24 pairs of windowed cosines and sines, 256 samples long, one value every 64
# samples. The logarithm of their energy is a spectrogram.

# %%
digits = spoken_digits()
clips = [F.pad(w[:4096], (0, max(0, 4096 - len(w)))) for w in digits.waveforms]
waves = torch.stack(clips)[:, None]  # (1000, 1, 4096)
low, high = (math.log1p(hertz / 700) for hertz in (150, 3800))
mel = 700 * torch.expm1(torch.linspace(low, high, 24))  # pitch as the ear spaces it
angle = 2 * math.pi * mel[:, None] * torch.arange(256) / digits.rate  # (24, 256)
waveforms = torch.hann_window(256) * torch.cat([angle.cos(), angle.sin()])
ears = CausalConv1d(1, 48, 256, stride=64, bias=False).requires_grad_(False)
_ = ears.weight.copy_(waveforms[:, None])


# %%
class LogEnergy(nn.Module):
    """log(cosine part^2 + sine part^2), scaled; treats each step by itself."""

    pointwise = True

    def forward(self, x):
        cosine, sine = x.chunk(2, dim=1)
        return ((cosine**2 + sine**2 + 0.01).log() + 3.8) / 1.6


sound = nn.Sequential(ears, LogEnergy())(waves)
print("spectrograms (clip, band, step):", tuple(sound.shape))

# %% [markdown]
# How far back should it hear? With kernel 3 and four levels, by (1.34) 61 spectrogram steps; in samples, the layers in a chain:

# %%
steps = [(3, 1, 2**level) for level in range(4) for _ in range(2)]
print("field in steps:", receptive_field(steps).size)
print("field in samples:", receptive_field([(256, 64, 1), *steps]).size)
torch.manual_seed(0)
hearer = TCN(24, [24] * 4, 10, kernel_size=3, dropout=0.1)
sizes = {"in_channels": 24, "channels": [24] * 4, "out_channels": 10, "kernel_size": 3}
cost = count_cost("tcn", 64, **sizes)
print(f"{cost.parameters:,} parameters, {cost.macs:,} multiply-adds for half a second")
agree("parameters", cost.parameters, count_weights(hearer), tol=0)
agree("reach + 1", hearer.reach + 1, receptive_field(steps).size, tol=0)

# %% [markdown]
# 4,096 samples are half a second, which is the length of a clip here. Train on 800 clips, test on 200. The network gives scores
# at every step; their mean over time decides.


# %%
class Mean(nn.Module):
    """The mean over time of a network's scores."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).mean(-1)


order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
train, test = order[:800], order[800:]
knobs = {"epochs": 12, "batch_size": 32, "learning_rate": 5e-3}
knobs["schedule"] = lambda done: 1 - done
loss, judge = nn.CrossEntropyLoss(), Mean(hearer)
history = fit(judge, loss, sound[train], digits.labels[train], **knobs)
score = accuracy(judge, sound[test], digits.labels[test])
print(f"accuracy on unheard clips above 0.65 (chance is 0.1): {score > 0.65}")

# %% [markdown]
# The recordings carry no names of speakers, so the same voices are on both sides of the split: this is an accuracy on new recordings of known speakers.
#
# When does it know? Scores up to step $n$ depend on sound up to step $n$ only, so their running mean is what a live listener would have
# at that moment.

# %% mystnb={"image": {"alt": "Left, a spectrogram of one spoken digit. Right, the fraction of test clips decided correctly against the time heard, rising from chance to its final value."}}
scores = predict(hearer, sound[test])  # (200, 10, 64)
running = scores.cumsum(-1) / torch.arange(1, 65)
right = (running.argmax(1) == digits.labels[test][:, None]).float().mean(0)
fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.5))
label, picture = int(digits.labels[test[0]]), sound[test[0]]
_ = axes[0].imshow(picture, aspect="auto", origin="lower", extent=(0, 512, 0, 24))
_ = axes[0].set(xlabel="time (ms)", ylabel="frequency band", title=f"spoken {label}")
_ = axes[1].plot(8 * torch.arange(1, 65), right)
_ = axes[1].set(xlabel="time heard (ms)", ylabel="right so far (fraction)", ylim=(0, 1))
axes[0].grid(False)
plt.show()
print(digest(spectrogram=picture))
print("after 64 ms below 0.5:", bool(right[7] < 0.5), end="; ")
print("at the end above 0.65:", bool(right[-1] > 0.65))
hearer = hearer.eval()

# %% [markdown]
# The same network, with its weights copied, gives the same numbers as the source's listing in flax; that listing as published needed repair first:
# its indentation is lost, its default `rngs=None` cannot build a single layer, and its usage example is missing. `tests/test_tcn_flax.py` holds both.
# Published TCNs differ from it in three ways: the convolutions carry weight normalisation, the paper drops whole channels, and their initial weights are
# drawn with a standard deviation of 0.01.
#
# ## 1.29 Does the normalisation see the future?
#
# *"My convolutions are causal, but does the normalisation between them see the future?"*
# ([espnet#5900](https://github.com/espnet/espnet/issues/5900), [DeepXi#18](https://github.com/anicolson/DeepXi/issues/18),
# [Wan2.1#294](https://github.com/Wan-Video/Wan2.1/issues/294)) It depends on over what mean and variance are taken:
#
# $$
# \hat x_c[t] = \frac{x_c[t] - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad \mu, \sigma^2 \text{ over a set of } (b, c, t) \tag{1.54}
# $$
#
# Over the channels of one step (*step*) nothing leaks. Over channels and all steps (*group*, with one group) each value depends on all later ones.
# Over batch and steps (*batch*) likewise in training; in evaluation the numbers are fixed and nothing leaks. Where is the gradient of output $t$ to
# input $s$ not zero, for each norm by itself and then for a whole block?


# %%
def slopes(model, x):
    """(t, s): size of the gradient of output t to input s."""
    x = x.clone().requires_grad_()
    y, draw = model(x), torch.Generator().manual_seed(1)
    outputs = (y * torch.randn(1, y.shape[1], 1, generator=draw)).sum((0, 1))
    rows = [torch.autograd.grad(y, x, retain_graph=True)[0] for y in outputs]
    return torch.stack(rows).norm(dim=(1, 2))


norms = {"step": StepNorm, "batch": nn.BatchNorm1d}
norms["group"] = lambda channels: nn.GroupNorm(1, channels)
for name, norm in norms.items():
    layer = norm(24)
    for mode in ("training", "evaluation"):
        slope = slopes(layer.train(mode == "training"), sound[test[:2], :, 10:34])
        later = int((slope[5] > 0).nonzero().max())
        print(f"{name:5} alone, {mode:10}: output 5 depends on steps up to {later}")

# %%
cases = {
    "none": ("none", True), "step": ("step", True), "batch, training": ("batch", True),
    "batch, evaluation": ("batch", False), "group": ("group", False),
}  # fmt: skip
snippet, maps = sound[test[:2], :, 10:34], {}
for name, (norm, training) in cases.items():
    torch.manual_seed(0)
    block = TemporalBlock(24, 8, 3, 2, dropout=0.0, norm=norm).train(training)
    maps[name] = slopes(block, snippet)

# %% mystnb={"image": {"alt": "Five 24 by 24 matrices of gradients; those of none, step and batch in evaluation are lower triangular bands, those of group and batch in training have values above the diagonal."}}
fig, axes = plt.subplots(1, 5, figsize=(7.2, 1.9), sharey=True)
for ax, (name, slope) in zip(axes, maps.items(), strict=True):
    logarithm = (slope / slope.max()).clamp(min=1e-6).log10()
    picture = ax.imshow(logarithm, vmin=-4, vmax=0)
    _ = ax.set_title(name, fontsize=8)
    _ = ax.set(xlabel="input step")
    ax.grid(False)
_ = axes[0].set(ylabel="output step")
_ = fig.colorbar(picture, ax=axes, label="log10 of gradient")
leaks = {name: bool((slope.triu(1) > 0).any()) for name, slope in maps.items()}
print(
    "gradient to a later input:", " and ".join(n for n, leak in leaks.items() if leak)
)
plt.show()
print(digest(leaks=list(leaks.values())))

# %% [markdown]
# So the answers of both kinds that maintainers give are right, for different normalisations. Ask for the set in (1.54), and then check the whole block by
# its gradient, as here; one leaking layer anywhere is enough. Chapter 3 meets a published causal network in which the group form leaks.
#
# ## 1.30 Chunk by chunk, and exactly the offline answer
#
# *"How do I run a causal network chunk by chunk?"* ([MoViNet-pytorch#5](https://github.com/Atze00/MoViNet-pytorch/issues/5),
# [mlx-audio#773](https://github.com/Blaizzy/mlx-audio/issues/773)) Each convolution keeps the last inputs that coming outputs
# still need. After $n$ inputs and $m = \lceil n / s \rceil$ outputs, those are
#
# $$
# x[\,s m - d (k-1)\,], \dots, x[n - 1] \tag{1.55}
# $$
#
# With a stride longer than the kernel the first of these may lie in the future: then inputs have to be skipped. That is all, and it is the method `step`:

# %%
source(CausalConv1d.step)

# %% [markdown]
# The whole recogniser from raw samples, strides included, in chunks of random sizes (some of them empty), against one full pass:

# %%
live = CausalSequential(ears, LogEnergy(), hearer).eval()
wave, draw = waves[test[:4]], torch.Generator().manual_seed(3)
cuts = sorted([0, *torch.randint(0, 4097, (30,), generator=draw).tolist()])
state, heard = live.initial_state(4), []
with torch.no_grad():
    for chunk in wave.tensor_split(cuts, dim=-1):
        y, state = live.step(chunk, state)
        heard.append(y)
    whole = live(wave)
sizes = [chunk.shape[-1] for chunk in wave.tensor_split(cuts, dim=-1)]
print(len(sizes), "chunks of", sizes[:8], "... samples")
print("give", [y.shape[-1] for y in heard[:8]], "... scores")
tol = 1e-5 * float(whole.abs().max())
agree("chunks = one pass", torch.cat(heard, -1), whole, tol=tol)

# %% [markdown]
# A module that cannot be exact says so instead of being nearly right:

# %%
try:
    _ = TCN(24, [8], 10, norm="group").initial_state(1)
except ValueError as error:
    print(error)

# %% [markdown]
# ## 1.31 Where it breaks
#
# **What a mistake says.** Every bad argument is refused before any work, by name, with the rule and the value. A string padding beside an input dilation is refused because the gaps do not say what lies beyond the last entry: the next tooth of the comb, or nothing?

# %%
x, w = torch.ones(1, 2, 6), torch.ones(4, 2, 3)
mistakes = [
    lambda: conv(x, w, stride=1.5),
    lambda: conv(x, w, dilation=3),
    lambda: conv(x, w, groups=3),
    lambda: conv(x, w.double()),
    lambda: conv(x, w, padding="same", input_dilation=2),
    lambda: conv_transpose(x, w[:2], stride=2, output_padding=2),
]
for mistake in mistakes:
    try:
        mistake()
    except ValueError as error:
        print(textwrap.fill(f"- {error}", 80, subsequent_indent="  "))

# %% [markdown]
# **Rounding.** A sum of $N$ products in floating point is off by at most about $N^2 \varepsilon \max|x| \max|w|$ in the worst case, and by far less as a rule: each of about $N$ roundings loses at most a fraction $\varepsilon$ (the rounding unit, $10^{-7}$ for float32) of a sum below $N \max|x| \max|w|$. For a 3 by 3 kernel over 256 channels, $N = 2304$: float32 keeps five digits or more here, and float64 is there for the asking. On a recent NVIDIA GPU, torch's convolutions use TF32 for float32 unless told otherwise, which keeps three; `torch.backends.cudnn.allow_tf32 = False` switches it off.

# %%
draw = torch.Generator().manual_seed(10)
x = torch.randn(256, 32, 32, generator=draw)
w = torch.randn(8, 256, 3, 3, generator=draw)
exact = conv(x.double(), w.double())
error = (conv(x, w) - exact).abs().max() / exact.abs().max()
print("float32 error below 1e-5 of the largest output:", bool(error < 1e-5))
print("dtypes in and out:", conv(x, w).dtype, exact.dtype)

# %% [markdown]
# **Cost.** `conv` adds its checks to torch's call: a few microseconds, which this ratio of medians, measured interleaved in one run, should not show (it varies from run to run).
# **On the GPU** the same lines run where their inputs are; nothing here names a device. GPU times: not measured.

# %% tags=["nbval-ignore-output"]
from time import perf_counter

x, w = torch.randn(8, 32, 64, 64), torch.randn(32, 32, 3, 3)
calls = {
    "ckutils": lambda: conv(x, w, padding=1),
    "torch": lambda: F.conv2d(x, w, padding=1),
}
times = {name: [] for name in calls}
for _ in range(60):
    for name, call in calls.items():
        start = perf_counter()
        call()
        times[name].append(perf_counter() - start)
ratio = np.median(times["ckutils"]) / np.median(times["torch"])
print(f"conv / torch.nn.functional.conv2d: {ratio:.2f}")

# %% [markdown]
# **A cut of nothing.** Causal convolution is often written as padding on both sides, then cutting the last $p = d(k-1)$ outputs with `y[..., :-p]`; the
# published code of the TCN does so. For kernel size 1, $p = 0$, and `:-0` keeps nothing:

# %%
x = sound[test[:1]]
for k in (2, 1):
    p = k - 1
    cut = F.conv1d(x, torch.ones(4, 24, k), padding=p)[..., :-p].shape[-1]
    left = CausalConv1d(24, 4, k)(x).shape[-1]
    print(f"kernel {k}, 64 steps: padded and cut {cut}, padded on the left {left}")

# %% [markdown]
# **Equivariance at the border.** Move a photograph that fills its frame, and what leaves on the right comes back on the left. With padded zeros the features near the moved edges
# are not the moved features. On the torus, with circular padding, they are:

# %%
x = photo("coffee")[None]
kernel = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
for padding in ("same", "circular"):
    before, after = (
        conv(image, kernel, padding=padding) for image in (x, x.roll(9, -1))
    )
    differ = (after - before.roll(9, -1)).abs().amax((0, 1, 2)) > 1e-3
    print(
        f"{padding}: features differ in columns {differ.nonzero().flatten().tolist()}"
    )

# %% [markdown]
# **A count is not a time** (section 1.23), **a field is not an influence.** All 61 steps of the recogniser's field have a path to the last output; how much do they
# weigh? The gradient of the trained network's last scores, averaged over test clips:

# %%
x = sound[test[:50]].clone().requires_grad_()
hearer(x)[..., -1].square().sum().backward()
weight = x.grad.norm(dim=(0, 1))
share = weight.flip(0).cumsum(0) / weight.sum()  # of the last 1, 2, ... steps
half = int((share < 0.5).sum()) + 1
print("gradient at the 3 steps outside the field:", float(weight[:3].sum()))
print("half of it comes from fewer than 30 of the 61 steps:", half < 30)

# %% [markdown]
# ## 1.32 Exercises
#
# First six functions to write, from five minutes to an evening, then seven questions to think about. `check_...(f)` calls your function on a row of cases.
# At the first that does not agree it says which, what was expected, what came, and gives a hint. Copy a signature into a cell of your own and begin there;
# a solution is folded away below each, executed with the chapter. This is what a check says to a function that is only begun:

# %%
from ckutils.exercises import (
    check_conv2d_backward,
    check_even_kernel,
    check_predecessors,
    check_same_lower,
    check_scatter,
    check_wrap_kernel,
)


def begun(size, kernel_size, stride, dilation):
    return 1, 1


try:
    check_same_lower(begun)
except AssertionError as told:
    print(told)

# %% [markdown]
# ### Functions to write
#
# **Exercise 1.1** (5 minutes). JAX also knows `SAME_LOWER`: as many outputs as `"same"` gives, (1.11), but the odd zero stands in *front*. How many zeros go in front and behind?
#
# ```python
# def same_lower(size, kernel_size, stride, dilation):  # four ints
#     return lo, hi  # two ints, never negative
# ```


# %% tags=["hide-cell"]
def same_lower(size, kernel_size, stride, dilation):
    span, outputs = dilation * (kernel_size - 1) + 1, math.ceil(size / stride)
    total = max((outputs - 1) * stride + span - size, 0)
    return total - total // 2, total // 2


check_same_lower(same_lower)

# %% [markdown]
# **Exercise 1.2** (10 minutes). On a circle of $n$ entries a kernel may be longer than the signal: by (1.12), $y[t] = \sum_j w[j]\, x[(t + j) \bmod n]$.
# Which $n$ taps do exactly the same, for every $x$?
#
# ```python
# def wrap_kernel(w, n):  # w (k,), float64, k below or above n
#     return wrapped  # (n,)
# ```


# %% tags=["hide-cell"]
def wrap_kernel(w, n):
    # taps that are n apart read the same entry, so they add up
    return w.new_zeros(n).index_add(0, torch.arange(len(w)) % n, w)


check_wrap_kernel(wrap_kernel)

# %% [markdown]
# **Exercise 1.3** (20 minutes). Which input sizes give exactly `outputs` entries after several layers? (Three layers with $k = 3$, $s = 2$, $p = 1$ and 7 outputs have eight answers.)
# Signals, those between the layers too, have at least one entry. Go back with (1.15).
#
# ```python
# def predecessors(outputs, layers):
#     # layers: [(kernel_size, stride, padding), ...],
#     # first layer first
#     return sizes  # a list of ints, rising, maybe empty
# ```


# %% tags=["hide-cell"]
def predecessors(outputs, layers):
    sizes = [outputs]
    for k, s, p in reversed(layers):
        least = [(m - 1) * s + k - 2 * p for m in sizes]  # eq. (1.15) with a = 0
        sizes = [n + a for n in least for a in range(s) if n + a >= 1]
    return sizes


check_predecessors(predecessors)

# %% [markdown]
# **Exercise 1.4** (20 minutes). Start a transposed convolution without a checkerboard: which kernel is nearest to a given one, in the sum of squares, among those whose
# $s^2$ polyphase sums (1.24), taken on both axes, are all 1? Begin with 3 by 3 ones at stride 2; a well-known kernel comes out.
#
# ```python
# def even_kernel(w, stride):
#     # w (h, w), float64, both sizes at least the stride
#     return even  # (h, w)
# ```


# %% tags=["hide-cell"]
def even_kernel(w, stride):
    even = w.clone()
    for a, b in np.ndindex(stride, stride):
        phase = even[a::stride, b::stride]  # a view: the next line changes `even`
        phase += (1 - phase.sum()) / phase.numel()
    return even


check_even_kernel(even_kernel)

# %% [markdown]
# **Exercise 1.5** (an hour). Write the transposed convolution as the scatter (1.18), on one axis and one channel, at dilation 1, with `padding` and `output_padding`. The length of the result is (1.16).
#
# ```python
# def scatter(y, w, stride, padding, output_padding):
#     # y (n,), w (k,), float64
#     return x
# ```


# %% tags=["hide-cell"]
def scatter(y, w, stride, padding, output_padding):
    # the whole scatter, longer by the output padding; then the padding is cropped
    size = (len(y) - 1) * stride + len(w) + output_padding
    whole = y.new_zeros(size)
    for t, value in enumerate(y):
        whole[stride * t : stride * t + len(w)] += value * w
    return whole[padding : size - padding]


check_scatter(scatter)

# %% [markdown]
# **Exercise 1.6** (an evening). The whole backward pass of `conv2d` by hand, with stride, padding, dilation and groups: (1.26), (1.27) and the bias. No autograd, and no convolution of torch;
# a loop over the taps of the kernel is fine. Section 1.13 names the mistakes that do not show at stride 1 without groups; each has a case.
#
# ```python
# def conv2d_backward(x, w, g, stride, padding, dilation, groups):
#     # x (b, c_in, h, w), w (c_out, c_in / groups, k1, k2),
#     # g (b, c_out, h', w'), all float64;
#     # stride, padding, dilation: pairs of ints
#     return grad_x, grad_w, grad_bias
# ```


# %% tags=["hide-cell"]
def conv2d_backward(x, w, g, stride, padding, dilation, groups):
    (s1, s2), (p1, p2), (d1, d2) = stride, padding, dilation
    padded = F.pad(x, (p2, p2, p1, p1))
    grad_x, grad_w = torch.zeros_like(padded), torch.zeros_like(w)
    taps = w.unflatten(0, (groups, -1))  # (groups, o, c, k1, k2)
    arrived = g.unflatten(1, (groups, -1))  # (b, groups, o, h', w')
    for i, j in np.ndindex(*w.shape[2:]):
        rows = slice(d1 * i, d1 * i + s1 * (g.shape[2] - 1) + 1, s1)
        columns = slice(d2 * j, d2 * j + s2 * (g.shape[3] - 1) + 1, s2)
        seen = padded[..., rows, columns].unflatten(1, (groups, -1))
        tap = torch.einsum("bgohw,bgchw->goc", arrived, seen)  # eq. (1.27)
        grad_w[..., i, j] = tap.flatten(0, 1)
        back = torch.einsum("bgohw,goc->bgchw", arrived, taps[..., i, j])
        grad_x[..., rows, columns] += back.flatten(1, 2)  # eq. (1.18)
    inside = grad_x[..., p1 : p1 + x.shape[2], p2 : p2 + x.shape[3]]
    return inside, grad_w, g.sum((0, 2, 3))


check_conv2d_backward(conv2d_backward)

# %% [markdown]
# ### Questions to think about
#
# Each ends in a check that is executed with the solution.
#
# **A** (5 minutes). A network begins with a 7 x 7 convolution of stride 2, a 3 x 3 pooling of stride 2, and then $n$ residual blocks (two 3 x 3 each, stride 1).
# How many blocks are needed until one output sees 100 pixels? Derive it from (1.30), then check it with `receptive_field`.

# %% tags=["hide-cell"]
# after the stem r = 7 + 2 * 2 = 11 and j = 4; a block adds 2 * 2 * 4 = 16
needed = math.ceil((100 - 11) / 16)  # 11 + 16 n >= 100
stem = [(7, 2, 1), (3, 2, 1)]
sizes = [receptive_field(stem + [(3, 1, 1)] * 2 * n).size for n in (needed - 1, needed)]
print(needed, "blocks; one fewer and these see", sizes)
assert sizes[0] < 100 <= sizes[1]

# %% [markdown]
# **B** (5 minutes). A depthwise separable layer and a dense layer of the same $C_\text{out}$ and $k$: for which $C_\text{out}$ does the first save less than
# half of the multiply-adds, with $k = 2$ and $k = 3$?

# %% tags=["hide-cell"]
# 1/C + 1/k^2 > 1/2: for k = 2, C < 4; for k = 3, C < 36/14, so C <= 2
for k, most in ((2, 3), (3, 2)):
    poor = 0
    for c in range(1, 8):
        sizes = {"in_channels": 8, "out_channels": c, "kernel_size": k}
        cheap = count_macs("depthwise_separable", (9, 9), **sizes)
        poor += 2 * cheap > count_macs("conv", (9, 9), **sizes)
    print(f"k = {k}: saves less than half up to C_out = {poor}")
    assert poor == most

# %% [markdown]
# **C** (10 minutes). Show that the composition of `conv_transpose` and `conv` at stride $s \ge k$, without padding, multiplies each entry by $\lVert w \rVert^2$ (one channel).

# %% tags=["hide-cell"]
# At s >= k windows do not overlap, so the rows of the matrix T are orthogonal:
# T T' = |w|^2 on the output side.
y = photo("brick")[3, :20].double()[None]
w = torch.randn(1, 1, 4, generator=draw).double()
again = conv(conv_transpose(y, w, stride=5), w, stride=5)
agree("question C", again, w.norm() ** 2 * y, tol=1e-12)

# %% [markdown]
# **D** (10 minutes). Build `SAME_LOWER` from `conv(..., padding="same")` with flips only.

# %% tags=["hide-cell"]
# Reversing the signal turns "behind" into "in front"; reversing the kernel undoes it.
x = photo("camera")[None, :, :255].double()
w = torch.randn(2, 1, 4, 3, generator=draw).double()
lower = conv(x.flip(1, 2), w, stride=(2, 3), padding="same", flip=True).flip(1, 2)
knobs = (256, 4, 2, 1), (255, 3, 3, 1)  # size, kernel size, stride, dilation
front = tuple(same_lower(*axis) for axis in knobs)
agree("question D", lower, conv(x, w, stride=(2, 3), padding=front), tol=1e-12)

# %% [markdown]
# **E** (10 minutes). Find a 4 by 4 kernel, not constant and not a product of two vectors, that makes no checkerboard at stride 2.

# %% tags=["hide-cell"]
# Any kernel whose four polyphase sums are equal: exercise 1.4 finds one near a random one.
w = even_kernel(torch.randn(4, 4, generator=draw).double(), 2)
flat = conv_transpose(torch.ones(1, 9, 9).double(), w[None, None], stride=2)
inside = flat[0, 4:-4, 4:-4]
agree("question E", inside, torch.ones_like(inside), tol=1e-12)
print("rank above one:", int(torch.linalg.matrix_rank(w)) > 1)

# %% [markdown]
# **F** (10 minutes). Write the oblique Gabor kernel of section 1.20 as the sum of two separable kernels, from $\cos(a + b) = \cos a \cos b - \sin a \sin b$.

# %% tags=["hide-cell"]
side = torch.exp(-(u**2) / 18)
c, s = side * torch.cos(0.85 * u), side * torch.sin(0.85 * u)
two = torch.outer(c, c) - torch.outer(s, s)
two = two / two.abs().sum()
agree("two products = the oblique Gabor", two, kernels["Gabor 45°"], tol=1e-6)

# %% [markdown]
# **G** (20 minutes). How many grouped 1 x 1 layers with shuffles between them are needed until each of 12 outputs depends on all 12 inputs, for 2, 3, 4 and 6 groups?
# Predict: each layer multiplies the number of inputs seen by $12/g$ at most.

# %% tags=["hide-cell"]
needed, bound = {}, {}
for g in (2, 3, 4, 6):
    layers = [PointwiseGrouped(12, 12, g, shuffle=True) for _ in range(6)]
    full = [bool(depends(nn.Sequential(*layers[:n])).all()) for n in range(1, 7)]
    needed[g] = full.index(True) + 1
    bound[g] = math.ceil(math.log(12, 12 / g) - 1e-9)
print("needed:", needed, "bound:", bound)
assert all(needed[g] >= bound[g] for g in needed)

# %% [markdown]
# ## 1.33 What the sources say
#
# Statements of the two sets of notes behind this chapter (`CP` from the guide to parameters in flax, `GD` from the guide to deeper convolutions), and what became of them. A name behind `-k` is a test, `pytest tests -k name` runs it; flax runs in the tests only.
#
# | id | the statement | verdict | where |
# |---|---|---|---|
# | CP-01 | with a density $g$, $f*g$ is an average | **holds if.** It is an average if g is non-negative with mass 1; then the result stays in the range of f and constants are kept. A trained kernel satisfies neither condition. | 1.1 |
# | CP-02 | the variants come from translations and scalings | **holds.** Stride samples the output, dilation spreads the kernel, input dilation spreads the signal, padding translates. | 1.3 |
# | CP-03 | stride $k$ moves $k$ positions a step | **holds** | 1.3 |
# | CP-04 | padding adds zeros at the boundary | **holds if.** Zeros are the default. Circular and reflect padding read the signal itself and add no zeros. | 1.6 |
# | CP-05 | input dilation inflates the size by a factor | **corrected.** T entries become d(T-1)+1. The distance of first and last grows by the factor d, the length by less. | 1.4 |
# | CP-06 | input dilation is for up-sampling | **holds if.** An input-dilated convolution equals a transposed convolution whose kernel is turned round and whose channel axes are exchanged; with the same array as it stands the values differ. | 1.10 |
# | CP-07 | kernel dilation expands the reach by a factor, same parameters | **corrected.** The distance of first and last tap grows by the factor d, the span is d(k-1)+1, less than d k. The number of parameters is unchanged. | 1.3, 1.4 |
# | CP-08 | `nnx.Conv` needs three positional arguments | **holds if.** The keyword rngs, which has no default, must be given too. | `-k cp_08` |
# | CP-09 | the length of `kernel_size` is the number of axes | **holds.** An int counts as one axis. | `-k cp_11`, 1.14 |
# | CP-10 | time and three coordinates: four axes | **holds.** JAX, flax and ckutils take four axes; torch's own functions end at three. | 1.14, `-k four_axes` |
# | CP-11 | 3 to 4 channels keep (32, 32), with 0, 1, 2 batch axes | **holds if.** All three shapes hold for kernel sizes of two entries. With an int they hold too, but the rows are then a batch and do not meet; with three entries the first call fails. | `-k cp_11` |
# | CP-12 | the default SAME keeps the size | **holds if.** SAME is the default. It keeps the size at stride 1; at stride s it gives ceil(n/s). | 1.5, `-k cp_12` |
# | CP-13 | the last axis is the channel, it must match | **holds** | `-k cp_13` |
# | CP-14 | valid: $k - 1$ less | **holds if.** k-1 less at stride 1 and dilation 1; in general (1.10). | 1.4, `-k keeps_the_size` |
# | CP-15 | (128, 100, 3) to (128, 96, 4) | **holds.** The axis of 128 is a batch, that of 100 is space. | `-k cp_15` |
# | CP-16 | a list of ints or pairs | **holds** | `-k cp_16` |
# | CP-17 | pairs allow causal convolution | **holds** | 1.7 |
# | CP-18 | CIRCULAR is a torus | **holds** | 1.6 |
# | CP-19 | REFLECT is a mirror on the boundary | **holds if.** The mirror stands on the last entry, which is not repeated (NumPy's reflect, not its symmetric). | 1.6 |
# | CP-20 | (224, 5) to (212, 6) with dilation 2 | **holds** | `-k cp_15` |
# | CP-21 | the output drops by $(k-1)d$ | **holds if.** On each axis, at stride 1 and without padding. The count of zeros is for one axis: a 3 by 3 kernel with d = 2 gets 16. | 1.4 |
# | CP-22 | (224, 5) to (441, 6) with input dilation 2 | **holds** | `-k cp_15` |
# | CP-23 | no string padding with input dilation | **holds.** flax refuses every name. Here valid and causal are allowed, because for them it is clear what is meant. | `-k cp_23`, 1.14 |
# | CP-24 | $T + (T-1)(d-1) + \text{pad} - k + 1$ | **holds if.** At stride 1 and kernel dilation 1, with pad the sum of both sides. | `-k adds_steps` |
# | CP-25 | the first listing runs | **does not hold.** The listing as printed calls a layer that it never makes: a NameError. With nnx imported and layer = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)) the shapes are as stated. | `-k cp_25` |
# | CP-26 | a temporal block is (conv, ReLU, dropout) twice, sum, ReLU | **holds.** So the listing; published blocks also carry weight normalisation. | 1.28, `tests/test_tcn_flax.py` |
# | CP-27 | CAUSAL is $(d(k-1), 0)$ | **holds if.** On one axis. On two or more flax refuses the name; ckutils pads in front of each axis. | 1.7, `-k cp_27` |
# | CP-28 | 1 x 1 on the shortcut only where channels differ | **holds** | 1.28, `tests/test_temporal.py` |
# | CP-29 | dilation $2^i$ in level $i$, one level a width | **holds.** Field $1 + 2(k-1)(2^n-1)$. | 1.15, 1.28 |
# | CP-30 | the last 1 x 1 maps to $(B, T, 1)$ | **holds if.** `out_features` is 1, else it is $(B, T, \text{out\_features})$. | `tests/test_tcn_flax.py` |
# | CP-31 | the listed TCN is causal and keeps the length | **holds** | 1.28, `tests/test_temporal.py` |
# | CP-32 | the listing works with its defaults | **does not hold.** `rngs=None` builds no layer; with `rngs` it works, and the one dropout object draws a new mask at each use. | `tests/test_tcn_flax.py` |
# | GD-01 | different filters extract different things, by backpropagation | **holds if.** They start different; equal filters stay equal. | 1.26 |
# | GD-02 | local fields, sharing and pooling give translation invariance | **corrected.** Equivariance; invariance by global pooling only. | 1.26, 1.27 |
# | GD-03 | channel = feature map; a filter is a stack of kernels and gives one channel | **holds** | 1.26 |
# | GD-04 | the same features wherever the patch lies | **corrected.** The same values, at places that move along. | 1.27 |
# | GD-05 | convolution flips, correlation does not | **holds.** On every axis. | 1.2 |
# | GD-06 | $(N, C, H, W)$ read as $(\dots, x, y)$ | **corrected.** H counts rows, the y direction, and W columns; filters are $(C_{out}, C_{in}/g, \text{rows}, \text{columns})$. | 1.2 |
# | GD-07 | sums over channels, filter as deep as the input | **holds if.** With one group. With g groups each filter is $C_{in}/g$ deep and sums over its group only. | 1.2 |
# | GD-08 | $\lfloor (W + 2P - F)/S \rfloor + 1$, depth $K$ | **holds if.** Without dilation and with equal padding on both sides; in general (1.10). | 1.4 |
# | GD-09 | parameters $F^2 D_1 K + K$ | **holds.** Divide the weights by the groups. | 1.16 |
# | GD-10 | work $M^2 K^2 C_\text{in} C_\text{out}$, summed over layers | **holds.** Divide by the groups; products with padded zeros are counted. | 1.16, 1.17 |
# | GD-11 | memory is weights and feature maps | **holds if.** Only the result is wanted; training also keeps the input. | 1.16 |
# | GD-12 | pooling: two hyper-parameters, no parameters, same depth | **holds if.** No parameters and the same depth, yes; padding and ceil_mode are two more choices. | 1.9 |
# | GD-13 | pooling: $(W - F)/S + 1$ | **corrected.** The floor is missing: 7 entries under a window of 2 with stride 2 give 3, not 3.5. With ceil_mode it is the ceiling, less a window that would start behind the signal. | 1.9 |
# | GD-14 | discarding pooling matters for generative models | **not decidable here.** A recommendation, without a measurement; text below. | text below |
# | GD-15 | im2col implements convolution | **holds.** Exactly, for $k^2/s^2$ times the memory of the image. | 1.11 |
# | GD-16 | a text kernel is as wide as the input is long | **does not hold.** It would slide nowhere. | 1.19 |
# | GD-17 | its width is the embedding size | **holds** | 1.19 |
# | GD-18 | shape of a dilated convolution (formula lost) | **holds.** The usual form, floor((H + 2P - D(K-1) - 1)/S + 1). | 1.4 |
# | GD-19 | 1 x 1 reduces depth cheaply, allows a further non-linearity | **holds if.** A non-linearity stands between; two without are one. | 1.18 |
# | GD-20 | transposed convolution up-samples | **holds if.** For a stride above 1. At stride 1 it grows by k-1, keeps or shrinks, as the padding says. | 1.10 |
# | GD-21 | it goes the opposite way | **holds if.** In shape, and as the adjoint. It does not undo the convolution. | 1.10 |
# | GD-22 | its size (formula lost) | **holds.** The usual form, (H-1)S - 2P + D(K-1) + output_padding + 1; the values by zero insertion and by the transposed matrix. | 1.8, 1.10 |
# | GD-23 | uneven overlap iff the stride does not divide the size | **holds if.** For the count of terms inside the picture. At the border it is uneven for every size, and with unequal weights the sums of (1.24) decide. | 1.12 |
# | GD-24 | cure: divisible size | **corrected.** Divisibility makes the number of terms equal, not their sum: it suffices for equal weights only. What counts is that the polyphase sums are equal. | 1.12 |
# | GD-25 | cure: stride 1 | **holds if.** A transposed convolution with stride 1 adds no pattern. It does not enlarge, and behind a strided one it dampens the pattern without removing it. | 1.12 |
# | GD-26 | resize, then convolve, avoids it | **holds if.** For a constant, inside the picture, for every kernel. To the border it takes reflection padding, and on a ramp it takes bilinear resizing. | 1.12 |
# | GD-27 | $l - 1$ spaces between taps, large receptive field in a stack | **holds** | 1.3 |
# | GD-28 | torch's dilation is the space, default 1 is none | **corrected.** The argument is the step between taps; the space is one less. The default 1 leaves no space. | 1.3 |
# | GD-29 | separable kernels are two vectors; not all kernels are; training may suffer | **holds if.** One channel stands between; with $\min(h, w)$ nothing is lost. | 1.20 |
# | GD-30 | depthwise separable = depthwise, then 1 x 1; MobileNet, Xception | **holds if.** One takes Xception as implemented; it is described the other way round. | 1.22 |
# | GD-31 | depthwise separable is efficient | **holds if.** Operations are meant, $1/C_\text{out} + 1/k^2$; time falls far less. | 1.22, 1.23 |
# | GD-32 | groups come from AlexNet; each is an ordinary convolution | **holds** | 1.21 |
# | GD-33 | flattened convolution | **holds.** Three vectors a filter. | 1.22 |
# | GD-34 | shuffled groups | **holds.** Without the shuffle groups never mix. | 1.21 |
# | GD-35 | pointwise groups | **holds.** Weights and work fall by $g$. | 1.21 |
# | GD-36 | Inception widens at constant cost | **corrected.** A fixed budget, by choice of widths; the cost grows with the widths as everywhere. | 1.24 |
# | GD-37 | 1 x 1 before 3 x 3 and 5 x 5 avoids a blow-up | **holds.** 128 M instead of 303 M. | 1.24 |
# | GD-38 | residual: $F(x) + x$ | **holds if.** The ReLU after the sum is left out or meets no negative value; else $F = 0$ is not the identity. | 1.25, `tests/test_blocks.py` |
# | GD-39 | the identity is easier as a zero residual | **holds.** In the experiment, for every seed. | 1.25 |
# | GD-40 | + adds neither parameters nor complexity | **corrected.** No parameters, but one addition a value; projections cost both. | 1.25 |
# | GD-41 | highway: data-dependent, trained gates | **holds.** The gate doubles the parameters. | 1.25 |
# | GD-42 | gate closed: not residual at all | **corrected.** True of the carry gate $1 - T$; with $T = 0$ the layer is the identity. | 1.25 |
# | GD-43 | attributions | **corrected.** Text below. | text below |
#
# **Attributions (GD-43).** The sentence on uneven overlap is from A. Odena, V. Dumoulin, C. Olah, *Deconvolution and checkerboard artifacts*, Distill 2016,
# not from the guide to convolution arithmetic, whose text mentions neither. The sentence that dilation inflates a kernel by inserting spaces *is* the guide's, not DeepLab's. Dilated convolution is older than DeepLab: the *algorithme à trous* of M. Holschneider et al. (1989); for
# dense prediction with growing rates, F. Yu and V. Koltun (2015). The 1 x 1 convolution is rightly credited to Network in Network, the residual and Inception statements
# to their papers, though "keeping the computational budget constant" is there a design goal. **Generative models (GD-14):** the sentence stands in the CS231n notes; the DCGAN paper recommends strided convolutions instead of pooling, as a guideline
# found by exploration. We did not test it.

# %% [markdown]
# ## 1.34 Further reading
#
# - V. Dumoulin and F. Visin, *A guide to convolution arithmetic for deep learning*, [arXiv:1603.07285](https://arxiv.org/abs/1603.07285), 2016: the relationships of sections 1.4 and 1.8.
# - A. Odena, V. Dumoulin and C. Olah, *Deconvolution and checkerboard artifacts*, [doi:10.23915/distill.00003](https://doi.org/10.23915/distill.00003), 2016.
# - M. D. Zeiler, D. Krishnan, G. W. Taylor and R. Fergus, *Deconvolutional networks*, [doi:10.1109/CVPR.2010.5539957](https://doi.org/10.1109/CVPR.2010.5539957), 2010: where the name comes from.
# - K. Chellapilla, S. Puri and P. Simard, *High performance convolutional neural networks for document processing*, 2006, [hal:inria-00112631](https://inria.hal.science/inria-00112631): convolution as a matrix product.
# - W. Shi et al., *Is the deconvolution layer the same as a convolutional layer?*, [arXiv:1609.07009](https://arxiv.org/abs/1609.07009), 2016: sub-pixel convolution.
# - A. Araujo, W. Norris, J. Sim, *Computing receptive fields of convolutional neural networks*, Distill 2019, [doi:10.23915/distill.00021](https://doi.org/10.23915/distill.00021).
# - W. Luo et al., *Understanding the effective receptive field*, [arXiv:1701.04128](https://arxiv.org/abs/1701.04128).
# - M. Lin, Q. Chen, S. Yan, *Network in network*, [arXiv:1312.4400](https://arxiv.org/abs/1312.4400); C. Szegedy et al., *Going deeper with convolutions*, [arXiv:1409.4842](https://arxiv.org/abs/1409.4842).
# - A. Howard et al., *MobileNets*, [arXiv:1704.04861](https://arxiv.org/abs/1704.04861); F. Chollet, *Xception*, [arXiv:1610.02357](https://arxiv.org/abs/1610.02357); X. Zhang et al., *ShuffleNet*, [arXiv:1707.01083](https://arxiv.org/abs/1707.01083); J. Jin et al., *Flattened convolutional neural networks*, [arXiv:1412.5474](https://arxiv.org/abs/1412.5474).
# - K. He et al., *Deep residual learning*, [arXiv:1512.03385](https://arxiv.org/abs/1512.03385), and *Identity mappings*, [arXiv:1603.05027](https://arxiv.org/abs/1603.05027); R. Srivastava et al., *Highway networks*, [arXiv:1505.00387](https://arxiv.org/abs/1505.00387).
# - Y. Kim, *Convolutional neural networks for sentence classification* (TextCNN), [arXiv:1408.5882](https://arxiv.org/abs/1408.5882).
# - S. Bai, J. Z. Kolter, V. Koltun, *An empirical evaluation of generic convolutional and recurrent networks for sequence modeling* (TCN), [arXiv:1803.01271](https://arxiv.org/abs/1803.01271).
# - F. Yu, V. Koltun, *Multi-scale context aggregation by dilated convolutions*, [arXiv:1511.07122](https://arxiv.org/abs/1511.07122); A. Radford et al. (DCGAN), [arXiv:1511.06434](https://arxiv.org/abs/1511.06434).
# - S. Williams, A. Waterman, D. Patterson, *Roofline*, [doi:10.1145/1498765.1498785](https://doi.org/10.1145/1498765.1498785).
#
# **In the package.** Each function of this chapter, with its docstring and a way back to its section: [the reference](../book/api.md#chapter-1-convolution-arithmetic).
