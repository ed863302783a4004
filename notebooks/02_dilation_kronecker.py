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
# # 2. Dilation and Kronecker products
#
# A 27 x 27 kernel has 729 weights. Three 3 x 3 kernels have 27. Applied one after the other with
# dilations 1, 3 and 9, those three *are* one 27 x 27 kernel: their Kronecker product. This chapter
# turns that remark, made in 2016 in a [blog post by Ferenc Huszár](https://www.inference.vc/dilated-convolutions-and-kronecker-factorisation/)
# on [Yu and Koltun's dilated networks](https://arxiv.org/abs/1511.07122), into theorems with their
# exact conditions, and then measures what such kernels are good for.
#
# **Results, for a reader in a hurry.** Each line is proved or measured below.
#
# - The Kronecker product $A \otimes B$ puts a copy of $B$, times $a_{ij}$, in the place of each entry $a_{ij}$. With $E_d$, the $d \times d$ matrix whose only one stands in its
#   first entry, a dilated kernel is $K \otimes E_d$ without its last $d-1$ zeros an axis (section 2.3).
# - A linear cascade of one channel is $K_L \otimes \dots \otimes K_0$ exactly when every dilation is the product of the kernel
#   sizes below it. The first layer is the *right* factor (section 2.4).
# - Kernel size and dilation need not be equal. A larger dilation still gives one product, with holes;
#   a smaller one gives a sum: for the usual size 3 and factor 2, of four products in two dimensions (section 2.5).
# - Each hidden channel adds one product; nine of them reach every 9 x 9 kernel (section 2.6).
# - 27 numbers buy 25 degrees of freedom: of three factors, two can be scaled up and the third down without a change. The rank-one filter of that size takes 54 numbers, not 27 (section 2.7).
# - At equal parameters low rank is nearer to Gabor filters, discs and brick, sums of Kronecker products to grass,
#   gravel and fur (section 2.8).
# - A Kronecker layer with 896 numbers comes within a few points of a full one with 200,704 on Fashion-MNIST. Rows and
#   columns of images explain little of it: with shuffled pixels it loses a point and a half on 60,000 images and nothing visible on 5,000. And it is for training, not for compressing (section 2.9).
# - At equal weights a wide dilated stack labels noisy textures better than a plain one; a pooling network comes near it
#   with fewer products and loses on thin edges (section 2.10).
# - Dilated networks are equivariant (a shifted image gives shifted features) on a torus and wherever no padding is seen; zero padding ends it at the border. Three poolings keep the shifts by multiples of 8 (section 2.11). Padding
#   reaches every pixel of a small image (section 2.12).
# - The factor 27 in arithmetic is a factor of a few on the clock (section 2.13).
#
# You need chapter 1 (convolution, padding, receptive fields) and the singular value decomposition.

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
import copy
import time
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# %% tags=["hide-input"]
from ckutils import kronecker
from ckutils.checks import agree, digest, source
from ckutils.convolution import conv, correlate2d
from ckutils.datasets import fashion_mnist_small, photo
from ckutils.kronecker import (
    compose_kernels,
    dilate_kernel,
    kronecker_kernel,
    low_rank,
    nearest_kronecker,
    rearrange_blocks,
)
from ckutils.plotting import COLOURS, heatmap, images, use_style
from ckutils.training import accuracy, fit

# %%
use_style()
torch.set_num_threads(1)  # the same sums in the same order on every machine
BLUE, ORANGE, GREEN, RED = (
    COLOURS[c] for c in ("blue", "orange", "green", "vermilion")
)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


# %%
def draw(*shape, seed=0):
    """Random numbers in float64: in this chapter equal means equal to 1e-12."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.double)


def ones(*shape):
    return torch.ones(*shape, dtype=torch.double)


print(draw(2, 2).shape, draw(1).dtype)

# %% [markdown]
# ## 2.1 A kernel that skips
#
# A pixel of a landscape is understood from its neighbours, and from what lies a hundred pixels away. A
# network that labels every pixel needs both. Large kernels see far and are expensive; pooling sees far and
# forgets where things were. Dilation takes a small kernel and spreads its taps.
#
# Take the signal (1, 2, 0, 3, 1, 0, 2) and the kernel (1, 2, 3) with dilation 2. The first output reads the
# samples 0, 2 and 4: $1\cdot 1 + 2\cdot 0 + 3\cdot 1 = 4$. The next reads 1, 3 and 5, the last 2, 4 and 6. Which samples does
# each output touch?

# %% mystnb={"image": {"alt": "Seven samples above three outputs. Arrows show that output 0 reads samples 0, 2 and 4, output 1 reads 1, 3, 5 and output 2 reads 2, 4, 6, with weights 1, 2, 3."}}
x, kernel = torch.tensor([1.0, 2, 0, 3, 1, 0, 2]), torch.tensor([1.0, 2, 3])
y = torch.tensor([sum(kernel[j] * x[t + 2 * j] for j in range(3)) for t in range(3)])
fig, ax = plt.subplots(figsize=(5.6, 2.2))
for t, colour in enumerate((BLUE, ORANGE, GREEN)):
    for j in range(3):
        width = 1 + float(kernel[j]) / 2
        _ = ax.plot([t + 2 * j, 2 * t + 1], [1, 0], color=colour, lw=width)
circle = {"boxstyle": "circle", "fc": "white", "ec": "black"}
for row, values, places in ((1.0, x, range(7)), (0.0, y, (1, 3, 5))):
    for place, value in zip(places, values.tolist(), strict=True):
        _ = ax.text(place, row, f"{value:.0f}", ha="center", va="center", bbox=circle)
_ = ax.set(xlabel="input sample", ylim=(-0.4, 1.4))
_ = ax.set_yticks([0, 1], ["output", "input"])
plt.show()
print(digest(y=y), y.tolist())

# %% [markdown]
# The signal processor writes the dilated convolution of a signal $x$ with a kernel $w$ as
#
# $$
# (w *_d x)_t = \sum_{\tau} w_\tau\, x_{t - d\tau}. \tag{2.1}
# $$
#
# Deep-learning libraries, and this book, correlate: the kernel is not flipped,
#
# $$
# y_t = \sum_{j=0}^{k-1} w_j\, x_{t + d j}. \tag{2.2}
# $$
#
# In both, $d$ is the dilation, in (2.2) $k$ is the number of taps, and $d = 1$ is the ordinary operation; in more dimensions $t$, $j$ and $d$ have one entry
# an axis. Here is (2.2) in two dimensions, letter by letter, against the package, torch and (2.1) as a product
# of Fourier transforms, with zeros stuffed between the taps of the flipped kernel.


# %%
def dilated_correlation(image, kernel, d):
    (height, width), (h, w) = image.shape, kernel.shape
    y = torch.zeros(height - d * (h - 1), width - d * (w - 1), dtype=image.dtype)
    for t in np.ndindex(*y.shape):
        for j in np.ndindex(h, w):
            y[t] += kernel[j] * image[t[0] + d * j[0], t[1] + d * j[1]]
    return y


image, K = draw(11, 12), draw(2, 3, seed=1)
want = dilated_correlation(image, K, 3)
stuffed = np.zeros((4, 7))
stuffed[::3, ::3] = K.flip(0, 1).numpy()
spectrum = np.fft.rfft2(image.numpy(), (14, 18)) * np.fft.rfft2(stuffed, (14, 18))
convolved = np.fft.irfft2(spectrum, (14, 18))[3:11, 6:12]  # whole overlaps only
agree("conv, dilation 3", conv(image[None], K[None, None], dilation=3)[0], want, 1e-12)
agree(
    "torch", F.conv2d(image[None, None], K[None, None], dilation=3)[0, 0], want, 1e-12
)
agree("(2.1), kernel flipped", convolved, want, 1e-12)

# %% [markdown]
# ### Does dilation 1 mean none, or does 0?
#
# Both, depending on whom one asks. Here, in torch and in the formula above, $d$ is the *step* from tap to tap and 1 means
# none. Other libraries count the *holes*, $h = d - 1$, and there 0 means none
# ([oneDNN#681](https://github.com/uxlfoundation/oneDNN/issues/681), [caffe#147](https://github.com/weiliu89/caffe/issues/147),
# [a forum thread](https://discuss.pytorch.org/t/what-is-the-dilation-in-the-convolutional-layer-output-size-formula/66834)).
# The size of the spread kernel is $d(k-1)+1$ in the one convention and $k + (k-1)h$ in the other, which is the same number.


# %%
def spread_by_holes(kernel, holes):
    """The convention of the hole counters: `holes` zeros between two taps."""
    padded = torch.cat([kernel[:, None], kernel.new_zeros(len(kernel), holes)], dim=1)
    return padded.flatten()[: len(kernel) + (len(kernel) - 1) * holes]


taps, line = draw(3), draw(1, 20)
for d in (1, 2, 3):
    by_step, by_holes = dilate_kernel(taps, d), spread_by_holes(taps, d - 1)
    print(
        f"step {d} = holes {d - 1}: size {len(by_step)} = {3 + 2 * (d - 1)},", end=" "
    )
    agree("identical", by_step, by_holes, 0)
    stepped = conv(line, taps[None, None], dilation=d)
    dense = conv(line, by_holes[None, None])
    agree("        and so are the outputs", stepped, dense, 1e-12)
try:
    dilate_kernel(taps, 0)
except ValueError as error:
    print("ckutils:", error)

# %% [markdown]
# ## 2.2 How far a unit sees
#
# The receptive field of a unit is the set of inputs that can change it. Each layer $l$ adds $d_l (k_l - 1)$ to its width, so that
# $n$ layers without stride see
#
# $$
# r_n = 1 + \sum_{l=0}^{n-1} d_l\,(k_l - 1). \tag{2.3}
# $$
#
# With plain layers of one size that is $n(k-1)+1$. The blog post writes $l(k-1)+k$ for layer $l$. This is the same number if the first
# layer has index $l = 0$, and one layer too many if it has index 1. A gradient settles it: count the inputs with a
# non-zero derivative.


# %%
def field(kernel_sizes, dilations):
    """Measured: how many inputs have a non-zero gradient at one output."""
    size = 1 + sum(d * (k - 1) for k, d in zip(kernel_sizes, dilations, strict=True))
    x = torch.zeros(1, 2 * size + 1, dtype=torch.double, requires_grad=True)
    y = x
    for k, d in zip(kernel_sizes, dilations, strict=True):
        y = conv(y, ones(1, 1, k), dilation=d)
    y[0, 0].backward()
    return int((x.grad != 0).sum())


print(" k  measured after 1, 2, 3, 4 layers   l(k-1)+k: l from 0 | from 1")
for k in (2, 3, 5):
    seen = [field([k] * n, [1] * n) for n in (1, 2, 3, 4)]
    zero, one = ([(n + i) * (k - 1) + k for n in range(4)] for i in (0, 1))
    print(f" {k}  {seen!s:33}  {zero == seen!s:>18} | {one == seen}")

# %% [markdown]
# Dilations that grow by a factor turn the sum in (2.3) into a geometric one. With $d_l = 2^l$ and size 3 it is $2^{n+1} - 1$; with $d_l = a^l$ and
# size $a$ it is exactly $a^n$. The number of weights grows linearly in both. How fast does the measured field outgrow the weights?

# %% mystnb={"image": {"alt": "Receptive field in one dimension on a log scale against number of layers. Plain 3-tap layers rise slowly to 13, dilations 2 to the l reach 127, dilations 3 to the l reach 729 at six layers; markers measured by gradients lie on the formula. A black line shows 3 weights a layer."}}
layers = np.arange(1, 7)
schedules = {"all 1": 1, "$2^l$ (Yu and Koltun)": 2, "$3^l$ (size = factor)": 3}
fig, ax = plt.subplots(figsize=(5.6, 2.8))
fields = {}
for (name, d), colour in zip(schedules.items(), (BLUE, ORANGE, GREEN), strict=True):
    fields[f"factor_{d}"] = [field([3] * n, [d**i for i in range(n)]) for n in layers]
    formula = [1 + 2 * sum(d**i for i in range(n)) for n in layers]
    _ = ax.semilogy(layers, formula, color=colour, label=f"dilation {name}")
    _ = ax.semilogy(layers, fields[f"factor_{d}"], "o", color=colour)
_ = ax.semilogy(layers, 3 * layers, "--", color="black", label="weights")
_ = ax.set(xlabel="layers", ylabel="receptive field (samples)")
_ = ax.set_title("Lines: (2.3); dots: gradients")
_ = ax.legend()
plt.show()
print(digest(**fields))

# %% [markdown]
# So few weights cannot fill so large a field freely. The blog post calls *how* they are shared "pretty hard to visualise exactly with more
# than 2 layers". It can be measured: the composite kernel is a function of all the weights, and its derivative with respect to
# one weight shows where in the field that weight is at work. With all weights equal to 1, the derivative counts the
# *paths* through the weight. Three layers of 3 x 3, once with dilations 1, 3, 9 and once with 1, 2, 4; the weight in
# the middle of each kernel:


# %% mystnb={"image": {"alt": "Two rows of three maps. For dilations 1, 3, 9 the first-layer weight acts on a lattice of single taps, the second on 3 by 3 blocks, the third on one 9 by 9 block, each tap reached once. For dilations 1, 2, 4 the patterns overlap: several paths reach one tap."}}
def slope_at_middle(steps, layer):
    """Derivative of the composite of all-ones kernels by one layer's middle weight."""
    weights = tuple(ones(3, 3) for _ in steps)
    direction = tuple(torch.zeros(3, 3, dtype=torch.double) for _ in steps)
    direction[layer][1, 1] = 1
    composite = lambda *kernels: compose_kernels(kernels, steps)  # noqa: E731
    return torch.func.jvp(composite, weights, direction)[1]


maps = {
    f"dilations {steps}, layer {layer}": slope_at_middle(steps, layer)
    for steps in ([1, 3, 9], [1, 2, 4])
    for layer in range(3)
}
fig = images(maps, columns=3, cmap="cividis")
fig.set_size_inches(6.6, 4.7)
plt.show()
print(digest(**{f"map_{i}": m for i, m in enumerate(maps.values())}))

# %% [markdown]
# Above, every tap is reached by exactly one path, so every tap is a product of three weights, one a layer; each
# single weight serves 81 of the 729 taps. The first layer repeats at every third place, the last rules one
# block. Below, up to three paths an axis meet in a tap, up to two of them through the weight that is shown. That difference is the subject of sections 2.4 and 2.5.

# %% [markdown]
# ## 2.3 The dilated kernel is $K \otimes E$
#
# The Kronecker product $A \otimes B$ puts a copy of $B$, scaled by $A_i$, at every place $i$ of $A$. With the index written in
# blocks of the size $q$ of $B$,
#
# $$
# (A \otimes B)_{q i + r} = A_i\, B_r, \qquad 0 \le r < q. \tag{2.4}
# $$
#
# Let $E_d$ be the $d \times \dots \times d$ array with a single 1, at its first entry. What does $K \otimes E_3$ look like for
# $K = (1, 2;\ 3, 4)$, and how does it differ from the spread kernel?

# %% mystnb={"image": {"alt": "Three matrices with their numbers: K, 2 by 2; K times E, 6 by 6, with 1, 2, 3, 4 at the corners of 3 by 3 blocks and two zero rows and columns trailing; the spread kernel, 4 by 4, without these."}}
K = torch.tensor([[1.0, 2], [3, 4]])
E = torch.zeros(3, 3)
E[0, 0] = 1
fig, axes = plt.subplots(1, 3, figsize=(6.6, 2.4), width_ratios=[2, 6, 4])
parts = {"$K$": K, "$K \\otimes E_3$": torch.kron(K, E), "spread": dilate_kernel(K, 3)}
for ax, (name, part) in zip(axes, parts.items(), strict=True):
    _ = heatmap(ax, part, numbers=".0f")
    _ = ax.set(title=f"{name}, {part.shape[0]} x {part.shape[1]}", xticks=[], yticks=[])
plt.show()
print(digest(**dict(zip(("K", "product", "spread"), parts.values(), strict=True))))

# %% [markdown]
# > **Theorem 2.1.** In any number of dimensions, a correlation with $K$ at dilation $d$ is a plain correlation with
#
# $$
# \hat K_d = \text{the first } d(k-1)+1 \text{ entries, along each axis, of } K \otimes E_d. \tag{2.5}
# $$
#
# > What is cut off are $d - 1$ zeros at the end of each axis.
#
# *Proof.* By (2.4) the entry of $K \otimes E_d$ at $d i + r$ is $K_i$ if $r = 0$ and 0 otherwise, axis by axis. Its last non-zero place is $d(k-1)$.
# A plain correlation with it is $\sum_i K_i\, x_{t + d i}$, which is (2.2). $\square$
#
# The post prints $E$ as a 5 x 5 matrix with a 1 in the corner, dots inside and zeros at the rim, which leaves room for readings. Which of them gives the
# dilated kernel?


# %%
def readings(d):
    one, five, diagonal = torch.zeros(d, d), torch.zeros(5, 5), torch.eye(d)
    one[0, 0] = five[0, 0] = 1
    diagonal[-1, -1] = 0  # the printed last row is zero
    names = "one 1, d x d", "one 1, 5 x 5", "dots continue a diagonal", "identity"
    return dict(zip(names, (one, five, diagonal, torch.eye(d)), strict=True))


def spreads(E, d):
    """Whether K (x) E is the kernel spread by d with zeros after it."""
    got, want = torch.kron(K, E), dilate_kernel(K, d)
    extra = got.shape[0] - want.shape[0]
    return extra >= 0 and torch.equal(got, F.pad(want, (0, extra, 0, extra)))


for name in readings(2):
    fits = [spreads(readings(d)[name], d) for d in (2, 3, 4, 5)]
    print(f"{name:25} right for d = 2, 3, 4, 5: {fits}")

# %% [markdown]
# The one reading that holds for every $d$ is a single 1 in $d \times d$ zeros; the printed 5 x 5 matrix is the case $d = 5$. The trailing zeros are harmless only if one knows
# about them. What do they do to the output, for each way of treating the border?

# %%
d, K, picture = 3, draw(3, 3), draw(16, 16, seed=1)
trimmed, whole = dilate_kernel(K, d), torch.zeros(9, 9, dtype=torch.double)
whole[:7, :7] = trimmed  # K (x) E_3 as it stands
for mode in ("valid", "full", "same"):
    a, b = (correlate2d(picture, k, mode) for k in (trimmed, whole))
    same = a.shape == b.shape and torch.allclose(a, b)
    print(f"{mode:5}: {tuple(a.shape)} trimmed, {tuple(b.shape)} whole, equal: {same}")
a, b = (correlate2d(picture, k, "valid") for k in (trimmed, whole))
agree("valid: whole loses d - 1 outputs at the end", b, a[:-2, :-2], 1e-12)
a, b = (correlate2d(picture, k, "full") for k in (trimmed, whole))
agree("full: whole adds d - 1 zeros in front", b[2:, 2:], a, 1e-12)
a, b = (correlate2d(picture, k, "same") for k in (trimmed, whole))
agree("same: whole is shifted by (d - 1) / 2", b[1:, 1:], a[:-1, :-1], 1e-12)

# %% [markdown]
# So "$K$ dilated is $K \otimes E$" is true of the operation and, untrimmed, off by a shift or a strip in a program. `dilate_kernel` trims. Here it is, against
# `conv` and torch for the shapes that people use, in one to three dimensions.

# %%
source(dilate_kernel)
for size, d in [
    ((3, 3), 1),
    ((3, 3), 2),
    ((2, 3), 3),
    ((1, 5), 4),
    ((4,), 3),
    ((2, 3, 2), 2),
]:
    K, x = draw(*size), draw(1, *(20,) * len(size), seed=1)
    native = (F.conv1d, F.conv2d, F.conv3d)[len(size) - 1]
    got = conv(x, dilate_kernel(K, d)[None, None])
    agree(f"{size}, dilation {d}: conv", got, conv(x, K[None, None], dilation=d), 1e-12)
    agree(
        f"{size}, dilation {d}: torch", got, native(x, K[None, None], dilation=d), 1e-12
    )

# %% [markdown]
# **The gradient, read through the product.** Let $G = \partial \ell / \partial (K \otimes E_d)$ be the gradient with respect to the large kernel. Since the large kernel is linear in $K$,
#
# $$
# \frac{\partial \ell}{\partial K_i} = \sum_r G_{d i + r}\, (E_d)_r = G_{d i}. \tag{2.6}
# $$
#
# Everything that the loss says about the places between the taps is thrown away. For a general right factor $B$ the same sum is the product of the rearranged $G$ (section 2.8) with the vector of $B$.

# %%
K, x, target = draw(3, 3).requires_grad_(), draw(1, 20, 20), draw(1, 14, 14, seed=2)
((conv(x, K[None, None], dilation=3) - target) ** 2).sum().backward()
large = torch.zeros(9, 9, dtype=torch.double)
large[:7, :7] = dilate_kernel(K.detach(), 3)
large.requires_grad_()
((conv(F.pad(x, (0, 2, 0, 2)), large[None, None]) - target) ** 2).sum().backward()
agree("(2.6): read the large gradient at the taps", large.grad[::3, ::3], K.grad, 1e-9)
E = torch.zeros(9, dtype=torch.double)
E[0] = 1
through = (rearrange_blocks(large.grad, (3, 3)) @ E).reshape(3, 3)
agree("(2.6): rearranged gradient times vec E", through, K.grad, 1e-9)

# %% [markdown]
# ## 2.4 The cascade theorem
#
# Two layers. The first, $K_0 = (1, 2)$, with dilation 1; the second, $K_1 = (1, 10)$, with dilation 2. The output at 0 is
#
# $$
# 1 \cdot (1 x_0 + 2 x_1) + 10 \cdot (1 x_2 + 2 x_3) = 1 x_0 + 2 x_1 + 10 x_2 + 20 x_3 ,
# $$
#
# the correlation with $(1, 2, 10, 20) = K_1 \otimes K_0$. In two dimensions the same happens on both axes. Can the factors be seen in the product?

# %% mystnb={"image": {"alt": "Three matrices with numbers. A first kernel, a second kernel and their 9 by 9 composite, in which each 3 by 3 block is the first kernel times one entry of the second."}}
first = torch.tensor([[1.0, 0, 2], [0, 1, 0], [3, 0, 1]])
second = torch.tensor([[1.0, 2, 0], [0, 3, 0], [1, 0, -1]])
fig, axes = plt.subplots(1, 3, figsize=(7, 3.2), width_ratios=[3, 3, 9])
composite = compose_kernels([first, second], [1, 3])
parts = {"$K_0$": first, "$K_1$": second, "cascade, dilations 1, 3": composite}
for ax, (name, part) in zip(axes, parts.items(), strict=True):
    _ = heatmap(ax, part, numbers=".0f", limits=(-3, 9))
    _ = ax.set(title=name, xticks=[], yticks=[])
plt.show()
print(digest(composite=composite))
agree("the cascade is K1 (x) K0", composite, torch.kron(second, first), 0)

# %% [markdown]
# First, any cascade without padding is one correlation. Write the layers as $K_0, \dots, K_L$ with dilations $d_0, \dots, d_L$.
#
# > **Theorem 2.2 (composition).** Applying $K_0$, then $K_1$, up to $K_L$ is one correlation with the kernel
#
# $$
# C_m = \sum_{d_0 j_0 + \dots + d_L j_L = m} K_L[j_L] \cdots K_1[j_1]\, K_0[j_0], \tag{2.7}
# $$
#
# > of size $1 + \sum_l d_l (k_l - 1)$: the full convolution of the dilated kernels, none of them flipped. With channels the product is a product of matrices, in this order.
#
# *Proof.* Two layers: $y_t = \sum_{j_1} K_1[j_1]\, z_{t + d_1 j_1}$ with $z_s = \sum_{j_0} K_0[j_0]\, x_{s + d_0 j_0}$, so $x_{t + m}$ meets the products whose offsets
# add up to $m$. More layers by induction. $\square$
#
# It is worth pausing at "none of them flipped". Correlations compose by *convolving* their kernels: offsets add.
#
# **The same in the signal processor's letters.** Write $K(z) = \sum_j K[j]\, z^j$, with positive powers because a correlation looks ahead. Dilation by $d$ puts $z^d$ for $z$, and (2.7) reads
#
# $$
# C(z) = K_0(z^{d_0})\, K_1(z^{d_1}) \cdots K_L(z^{d_L}).
# $$
#
# At $z = e^{i\omega}$ the frequency response of a dilated layer is that of its kernel, squeezed and repeated $d$ times around the circle. These images are the price of the zeros; only the other layers can remove them. Filter designers build narrow filters this way since [Neuvo, Dong and Mitra (1984)](https://doi.org/10.1109/TASSP.1984.1164348): a sparse filter, and a short one that takes out its images.
#
# Now the theorem of the blog post, with its conditions.
#
# > **Theorem 2.3 (cascade).** Let $a_l$ be the size of $K_l$ along an axis, and
#
# $$
# d_l = a_0 a_1 \cdots a_{l-1}, \qquad d_0 = 1, \tag{2.8}
# $$
#
# > along that axis. Then the composite kernel is
#
# $$
# C = K_L \otimes K_{L-1} \otimes \dots \otimes K_0. \tag{2.9}
# $$
#
# > If all $a_l \ge 2$, no other dilations make (2.9) true for all kernels.
#
# *Proof.* Every $m$ from 0 to $a_0 \cdots a_L - 1$ is $\sum_l d_l j_l$ with $0 \le j_l < a_l$ in exactly one way: these are the digits of $m$ in the mixed base $a_0, a_1, \dots$ So the
# sum (2.7) has one term, $K_L[j_L] \cdots K_0[j_0]$. By (2.4), used $L$ times, this is the entry of the Kronecker product at $m$. Conversely, let every kernel be an
# impulse: at 1 in layer $l$, at 0 in the others. The cascade moves the signal by $d_l$; the Kronecker product has its only 1 at $a_0 \cdots a_{l-1}$. So $d_l$ must be that number. $\square$
#
# With all kernels $a$ wide this is the identity of the post, $d_l = a^l$. The code follows (2.7), with a transposed convolution doing each full
# convolution:
#
# $$
# C^{(l)} = \operatorname{conv}^{\top}\big(C^{(l-1)}, K_l;\ d_l\big), \qquad C^{(0)} = \hat K_{0, d_0}. \tag{2.10}
# $$

# %%
source(kronecker._compose)
source(kronecker_kernel)

# %%
for a in (2, 3, 4):
    for L in (1, 2, 3, 4) if a < 4 else (1, 2, 3):  # kernels K_0 to K_L
        kernels = [draw(a, a, seed=i) for i in range(L + 1)]
        y = x = draw(1, a ** (L + 1) + 2, a ** (L + 1) + 2, seed=9)
        for i, kernel in enumerate(kernels):
            y = conv(y, kernel[None, None], dilation=a**i)
        product = kronecker_kernel(kernels)[None, None]
        once, size = conv(x, product) / y.abs().max(), product.shape[-1]
        agree(f"a = {a}, L = {L}: {size} wide", once, y / y.abs().max(), 1e-12)

# %% [markdown]
# **Order.** The first layer is the rightmost factor. What happens if the factors are written the other way round, and what if the *layers* change places?

# %%
kernels = [draw(3, 3, seed=i) for i in range(3)]
cascade = compose_kernels(kernels, [1, 3, 9])
wrong = kronecker_kernel(kernels[::-1])  # K_0 (x) K_1 (x) K_2
far = float((wrong - cascade).norm() / cascade.norm())
print("the wrong order is further from the cascade than zero is:", far > 1)
moved = compose_kernels(kernels[::-1], [9, 3, 1])
agree("layers swapped, each keeps its dilation", moved, cascade, 1e-12)
mixed = [draw(2), draw(3), draw(4)]
steps = [1, 2, 6]
got = compose_kernels(mixed, steps)
agree("sizes 2, 3, 4; dilations 1, 2, 6", got, kronecker_kernel(mixed), 1e-12)

# %% [markdown]
# The factors may not be swapped, but the layers may: one channel's correlations commute. What fixes the order of the factors is which kernel got which dilation.
#
# **Conditions.** The theorem asks for linear layers, one channel, no padding between layers, and the dilations of (2.8). Break each but the channels, which follow in section 2.6. How far does the
# cascade then move from the single convolution with (2.9)?


# %%
def run(x, steps=(1, 3, 9), *, bias=0.0, act=None, pad=0):
    for kernel, d in zip(kernels, steps, strict=True):
        x = conv(x, kernel[None, None], dilation=d, padding=pad * d) + bias
        x = act(x) if act else x
    return x


x, product = draw(1, 40, 40, seed=9), kronecker_kernel(kernels)[None, None]
want = conv(x, product)
cases = {
    "as in the theorem": run(x),
    "bias 5 in each layer": run(x, bias=5.0),
    "ReLU after each layer": run(x, act=torch.relu),
    "dilations 1, 2, 4": run(x, (1, 2, 4))[:, 6:-6, 6:-6],  # centred on the same place
}
for name, y in cases.items():
    print(f"{name:22} {float((y - want).norm() / want.norm()):.1f}")

# %%
error = (run(x, pad=1) - conv(x, product, padding=13)).abs()[0]
inside = bool(error[13:-13, 13:-13].max() < 1e-10)
print("zeros padded per layer: the interior is equal:", inside)
print("zeros padded per layer: the border is equal:", bool(error.max() < 1e-10))

# %% [markdown]
# A bias alone only adds a constant, and a bias is easily composed too; the other conditions are essential. The border returns in section 2.12. (The post speaks of kernels $K_l$, $l = 1 \dots L$; its own equation contains
# $K_0$ too, so there are $L + 1$ of them and $F_{L+1}$ on the left is right.)

# %% [markdown]
# ## 2.5 When the dilation is not the kernel size
#
# The post says that the analogy "only holds if the dilation factor and the kernel size are the same", and that the paper uses 3 and 2. Both deserve a closer look.
#
# Cut a cascade above its first $l$ layers. Let $s$ be the size of their composite $B$, and let all dilations above be multiples of $b = d_l$. Chop $B$ into pieces $B_c$ of size $b$, with zeros at the end if
# needed. There are $\lceil s / b \rceil$ pieces an axis.
#
# > **Theorem 2.4 (rank at a cut).** Let $U$ be the composite of the layers above the cut with their dilations divided by $b$, and $U_{\to c}$ the same, moved by $c$ places. The whole composite, padded with zeros to a
# > multiple of $b$, is
#
# $$
# C = \sum_{c} U_{\to c} \otimes B_c, \qquad \text{a sum of at most } \lceil s/b \rceil^{N} \text{ Kronecker products} \tag{2.11}
# $$
#
# > in $N$ dimensions (and of at most $b^N$, the numbers in a piece). In particular it is *one* product, with holes if $b > s$, whenever $b \ge s$.
#
# *Proof.* $B = \sum_c \delta_c \otimes B_c$, with $\delta_c$ an impulse at block $c$. The layers above only move by multiples of $b$, that is by whole blocks, so by (2.7) they act on the left factor, and turn
# $\delta_c$ into $U_{\to c}$. $\square$
#
# With $d_l = d^l$ and size $a$ the part below has $s = 1 + (a-1)(d^l - 1)/(d-1)$, so $\lceil s/b \rceil$ is 1 for $d \ge a$ and tends to $\lceil (a-1)/(d-1) \rceil$ for $d < a$. For size 3 and factor 2 it is 2: four products in two
# dimensions, at every cut. Is the bound reached by random kernels, and how far is the composite from a single product?


# %%
def at_cut(composite, b):
    """The composite, padded with zeros to whole blocks of b and rearranged."""
    blocks = -(-composite.shape[-1] // b)
    extra = blocks * b - composite.shape[-1]
    return rearrange_blocks(F.pad(composite, (0, extra, 0, extra)), (blocks, blocks))


def ranks(a, d, cut, seeds=8):
    """Kronecker rank at the cut below a layer, and the distance from one product."""
    steps, far = [d**i for i in range(cut + 2)], []
    for seed in range(seeds):
        kernels = [draw(a, a, seed=100 * seed + i) for i in steps]
        values = torch.linalg.svdvals(at_cut(compose_kernels(kernels, steps), d**cut))
        far.append(float(values[1:].norm() / values.norm()))
    return int((values > 1e-10 * values[0]).sum()), float(np.mean(far))


# %%
print("a  d  products: bound, measured   mean distance from one product")
for a, d in [(2, 2), (3, 2), (3, 3), (3, 4), (4, 2), (4, 3), (5, 2), (5, 4), (5, 5)]:
    s = 1 + (a - 1) * (d * d - 1) // (d - 1)
    rank, far = ranks(a, d, 2)
    print(f"{a}  {d}  {(-(-s // d**2)) ** 2:15d} {rank:9d} {far:29.1f}")

# %% [markdown]
# So the corrected statement, for dilations that divide one another: *one* Kronecker product if every dilation is at least the size of the composite below it, with equality for a kernel without holes. Otherwise a sum, at the cut below dilation $b$ of at most $\lceil s/b \rceil^N$ products, $s$ being
# the size of the composite below. What does one random example of each kind look like?

# %% mystnb={"image": {"alt": "Three random composites of three 3 by 3 kernels. Factor 2: 15 pixels wide, blurred blocks. Factor 3: 27 wide, crisp blocks inside blocks. Factor 4: 43 wide, the same blocks separated by empty rows and columns."}}
kernels = [draw(3, 3, seed=i + 5) for i in range(3)]
shown = {d: compose_kernels(kernels, [1, d, d * d]) for d in (2, 3, 4)}
kinds = {2: "sum of 4 products", 3: "one product", 4: "one product, holes"}
titles = {d: f"factor {d}: {len(c)} wide\n{kinds[d]}" for d, c in shown.items()}
pictures = {titles[d]: c / c.abs().max() for d, c in shown.items()}
fig = images(pictures, columns=3, cmap="PuOr", limits=(-1, 1))
plt.show()
print(digest(**{f"factor_{d}": c for d, c in shown.items()}))

# %% [markdown]
# **The paper's schedule.** Equation 3 of Yu and Koltun applies 3 x 3 kernels with dilation $2^i$, $i = 0, \dots, n-2$. It is the construction of the post with factor 2 in place of $a = 3$: the layers that follow one another are the same, the composite
# is not one product. Their context module takes dilations 1, 1, 2, 4, 8, 16, 1. Its fields, and the number of products at the cut below each layer whose upper dilations are all multiples of it:

# %%
module = [1, 1, 2, 4, 8, 16, 1]
print("field, measured:", [field([3] * n, module[:n]) for n in range(1, 8)])
kernels = [draw(3, 3, seed=i) for i in range(6)]
composite = compose_kernels(kernels, module[:6])  # the last 1 is a multiple of nothing
for i in range(2, 6):
    s, b = 1 + 2 * sum(module[:i]), module[i]
    values = torch.linalg.svdvals(at_cut(composite, b))
    pieces, count = -(-s // b), int((values > 1e-10 * values[0]).sum())
    print(f"below dilation {b:2}: {s:2} wide, {pieces}^2 pieces, {count} products")

# %% [markdown]
# ### Why do stacked dilated layers leave a grid or blind spots, and which rates avoid it?
#
# The question of [Lung-Segmentation#1](https://github.com/MEDAL-IITB/Lung-Segmentation/issues/1),
# [keras-tcn#226](https://github.com/philipperemy/keras-tcn/issues/226) and [MICCAI-LITS2017#8](https://github.com/assassint2017/MICCAI-LITS2017/issues/8). Compose kernels of ones: (2.7) then counts the paths from each input,
# and a zero is a blind spot, whatever the weights.
#
# > **No holes.** Let every kernel have at least two taps, and sort the layers by dilation. The composite has no hole exactly when each $d_l$ is at most the size $s_l = 1 + \sum_{i<l} d_i (k_i - 1)$ of the composite below it.
#
# *Proof.* Copies of an interval of length $s_l$ at steps $d_l \le s_l$ cover an interval. If some $d_l > s_l$, nothing reaches the offset $s_l$: the layers below end at $s_l - 1$ and any step above is longer. $\square$
#
# Which popular rates leave holes, and how evenly are the paths spread?

# %% mystnb={"image": {"alt": "Path counts over input positions for five sets of rates with 3-tap kernels. 1,1,1 is a bell; 2,2,2 a bell with every second position empty; 2,4,8 has every second position empty; 1,2,4 and 1,2,5 have no holes and one to three paths; 1,3,9 is exactly flat."}}
rates = [[1, 1, 1], [2, 2, 2], [2, 4, 8], [1, 2, 5], [1, 2, 4], [1, 3, 9]]
fig, axes = plt.subplots(2, 3, figsize=(7, 3.4), sharey=True)
paths = {}
for ax, steps in zip(axes.flat, rates, strict=True):
    count = compose_kernels([ones(3)] * 3, steps)
    sizes = [1 + 2 * sum(sorted(steps)[:i]) for i in range(3)]
    predicted = all(d <= s for d, s in zip(sorted(steps), sizes, strict=True))
    assert predicted == bool((count > 0).all())
    place, holes = np.arange(len(count)) - len(count) // 2, int((count == 0).sum())
    _ = ax.bar(place, count, color=RED if holes else BLUE)
    _ = ax.set_title(f"{steps}, {holes or 'no'} holes")
    paths["d" + "_".join(map(str, steps))] = count
_ = [ax.set(xlabel="input position") for ax in axes[1]]
_ = [row[0].set(ylabel="paths") for row in axes]
plt.show()
print(digest(**paths))

# %% [markdown]
# Red bars are grids. With a common factor 2, one can change every second input and half of the outputs do not notice:


# %%
def stack(x, steps):
    for i, d in enumerate(steps):
        x = conv(x, draw(1, 1, 3, seed=i), dilation=d)
    return x


x = draw(1, 60)
other = x.clone()
other[:, 1::2] = draw(1, 30, seed=1)  # every second sample replaced
for steps in ([2, 4, 8], [1, 2, 5]):
    moved = (stack(x, steps) - stack(other, steps)).abs()[0] > 1e-12
    unmoved = 1 - float(moved.double().mean())
    print(f"dilations {steps}: {unmoved:.2f} of the outputs do not notice")

# %% [markdown]
# Rates with a common factor never meet the inputs in between: each output lives on its own sub-grid, and neighbouring outputs share no input at all. That is the grid. Powers of the kernel size give every input exactly one path, the Kronecker case; powers of two give it
# one to three, unevenly. Rates such as 1, 2, 5 are safe too, by the rule and without trial.
#
# **Try other rates.** The explorer below needs no kernel. Which three dilations give each of 27 inputs exactly one path, and what is the smallest change of one of them that leaves a hole? The cell prints, from `compose_kernels`, the numbers that the page starts with.

# %%
from IPython.display import display

from ckutils.widgets import explorer

display(explorer("cascade"))
taps, steps = [[1.0, 2, 1], [1.0, 3, 2], [2.0, 1, 1]], [1, 2, 4]
composite = compose_kernels([torch.tensor(row) for row in taps], steps)
count = compose_kernels([ones(3)] * 3, steps)
print("offset  paths  composite")
for m in range(0, 15, 2):
    print(f"{m:6} {int(count[m]):6} {int(composite[m]):10}")

# %% [markdown]
# ### For one receptive field: more dilations, more stacks, or stride?
#
# Asked in [keras-tcn#71](https://github.com/philipperemy/keras-tcn/issues/71), [keras-tcn#9](https://github.com/philipperemy/keras-tcn/issues/9),
# [TCN#55](https://github.com/locuslab/TCN/issues/55) and [VideoPose3D#222](https://github.com/facebookresearch/VideoPose3D/issues/222). Take a span of 31 samples, kernels of 3 taps, one channel, and build it in four ways: plain layers, two stacks, one stack of growing dilations, strides. Strides and dilations
# reach the same samples by the same weights: what one slides over a coarser grid, the other spreads. What differs is how many outputs are computed.

# %%
ways = {
    "15 plain layers": [1] * 15,
    "stacks 1,2,4 + 1,2,4 + 1": [1, 2, 4, 1, 2, 4, 1],
    "dilations 1,2,4,8": [1, 2, 4, 8],
    "strides 2,2,2,1": [1, 2, 4, 8],
}
shares = {name: compose_kernels([ones(3)] * len(d), d) for name, d in ways.items()}
shares = {name: paths / paths.sum() for name, paths in shares.items()}  # weights 1/3
print(f"{'':25} weights  products a sample  within 3 samples")
for name, steps in ways.items():
    products = 3 * len(steps)
    if name.startswith("strides"):  # each layer has half as many outputs, the last not
        products = sum(3 / 2 ** min(i + 1, 3) for i in range(4))
    near = float(shares[name][12:19].sum())
    print(f"{name:25} {3 * len(steps):7} {products:18} {near:17.2f}")

# %% mystnb={"image": {"alt": "Relative weight over 31 input positions for four constructions. Fifteen plain layers give a narrow bell, two stacks a broader one, growing dilations a wide, jagged plateau; strides lie exactly on growing dilations."}}
fig, ax = plt.subplots(figsize=(6, 2.8))
styles = [{"color": BLUE}, {"color": ORANGE}, {"color": GREEN}]
styles += [{"color": RED, "ls": ":", "lw": 3}]
for (name, share), style in zip(shares.items(), styles, strict=True):
    _ = ax.plot(np.arange(31) - 15, 100 * share, label=name, **style)
_ = ax.set(xlabel="input position", ylabel="weight of an averaging\nnetwork (percent)")
_ = ax.legend()
plt.show()
print(
    digest(**{name.split()[0].strip("15") or "plain": s for name, s in shares.items()})
)

# %% [markdown]
# Reading: if every sample needs an output, growing dilations cost least and spread their weight widest, if unevenly; extra stacks buy attention to the middle (and nonlinearities); if one output in eight is enough, strides
# give the same view for a quarter of the products. The equality of the last two is exact:

# %%
x, kernels = draw(1, 200), [draw(3, seed=i)[None, None] for i in range(4)]
dilated = strided = x
for kernel, d, stride in zip(kernels, (1, 2, 4, 8), (2, 2, 2, 1), strict=True):
    dilated, strided = (
        conv(dilated, kernel, dilation=d),
        conv(strided, kernel, stride=stride),
    )
every_eighth = dilated[:, ::8][:, : strided.shape[1]]
agree("strides = every eighth output of the dilations", strided, every_eighth, 1e-12)

# %% [markdown]
# **Are kernel size, depth and rates tied together?** By two conditions only: the sizes add up, $1 + \sum_l d_l (k - 1) = 31$, and no rate exceeds the size below it.
# How many rising schedules without a hole reach exactly 31 samples?


# %%
def schedules(k, span, depth, least=1, size=1):
    """Rising dilations without a hole that take `depth` layers from `size` to `span`."""
    if depth == 0:
        return int(size == span)
    fits = range(least, min(size, (span - size) // (k - 1)) + 1)
    return sum(schedules(k, span, depth - 1, d, size + d * (k - 1)) for d in fits)


for k in (2, 3, 4, 7):
    found = {depth: schedules(k, 31, depth) for depth in range(1, 9)}
    print(f"kernel {k}: depth and schedules", {n: c for n, c in found.items() if c})

# %% [markdown]
# So there is room: kernels of 3 taps in five layers have 22 such schedules, and more layers or other sizes give others. A composite without holes is not sparse either: every input is reached, and by a number of paths that is
# one entry of a composed kernel of ones, each path through as many nonlinearities as there are layers.

# %% [markdown]
# ## 2.6 Channels and nonlinearities
#
# With $h$ hidden channels between two layers and the dilations of (2.8), the composite from input channel $c$ to output channel $o$ is
#
# $$
# C_{oc} = \sum_{m=1}^{h} K_1[o, m] \otimes K_0[m, c], \tag{2.12}
# $$
#
# one Kronecker product for each path through a hidden channel. With more layers the sum runs over all paths, but at each cut at most over the channels there. Sums of products are what section 2.8 approximates with: hidden channels are its rank. Is the rank of a
# random composite the number of channels?

# %%
for h in (1, 2, 4, 8, 9, 12):
    below, above = draw(h, 1, 3, 3, seed=h), draw(1, h, 3, 3, seed=h + 50)
    composite = compose_kernels([below, above], [1, 3])[0, 0]
    paths = sum(torch.kron(above[0, m], below[m, 0]) for m in range(h))
    agree(f"{h} hidden channels: the sum over paths", composite, paths, 1e-12)
    rank = int(torch.linalg.matrix_rank(rearrange_blocks(composite, (3, 3))))
    print(f"   {18 * h} weights, {rank} products for the 81 taps")

# %% [markdown]
# Nine channels reach every 9 x 9 kernel, with twice its number of weights; the economy lies below that.
#
# **Zhou and others' Kronecker layer** replaces a weight array by $\sum_r A_r \otimes B_r$, where the products run over channels as well as space. The post says that cascades generalise it. They do:
# give the cascade one hidden channel for each pair (output channel of $B$, input channel of $A$), and the layer below and the layer above each act on their half of the pair.

# %%
o1, o2, c1, c2 = 2, 3, 2, 2  # channels of A (o1, c1) and of B (o2, c2)
A, B = draw(o1, c1, 3, 3), draw(o2, c2, 3, 3, seed=1)
layer = torch.kron(A, B)  # (o1 o2, c1 c2, 9, 9): over channels and space at once
below = torch.zeros(o2, c1, c1, c2, 3, 3, dtype=torch.double)
above = torch.zeros(o1, o2, o2, c1, 3, 3, dtype=torch.double)
for c in range(c1):
    below[:, c, c] = B  # hidden channel (o2, c) reads the inputs (c, :) through B
for o in range(o2):
    above[:, o, o] = A  # output channel (:, o) reads the hidden ones (o, :) through A
weights = [below.flatten(2, 3).flatten(0, 1), above.flatten(2, 3).flatten(0, 1)]
agree(
    "the Kronecker layer is a cascade", compose_kernels(weights, [1, 3]), layer, 1e-12
)
print("the converse needs more: dilations 1, 2 give", ranks(3, 2, 1)[0], "products")

# %% [markdown]
# **Nonlinearities.** With a ReLU after the first layer the network is no longer any convolution. How much of it is? Fit the best single 9 x 9 correlation, with a constant, to its output on a
# photograph, by least squares.

# %%
view = photo("camera").double()[::2, ::2][None]
patches = F.unfold(view[None], 9)[0].T  # (places, 81)
design = torch.cat([patches, ones(len(patches), 1)], dim=1)
for name, act in (("no nonlinearity", torch.nn.Identity()), ("ReLU", torch.relu)):
    left = []
    for seed in range(5):
        first, second = (draw(1, 1, 3, 3, seed=2 * seed + i) for i in (0, 1))
        first = first - first.mean()  # reacts to contrast, not to brightness
        y = conv(act(conv(view, first)), second, dilation=3).reshape(-1, 1)
        best = design @ torch.linalg.lstsq(design, y).solution
        left.append(float((best - y).norm() / (y - y.mean()).norm()))
    print(f"{name:16} left unexplained: {np.median(left):.1f} of the spread")

# %% [markdown]
# ## 2.7 What such kernels can represent
#
# A 27 x 27 kernel from three 3 x 3 kernels has 27 numbers. They are not 27 degrees of freedom: doubling one factor and halving another changes nothing. The post compares them with rank-one filters
# "with the same number of parameters (27)". But a column and a row of 27 are 54 numbers. Count both, the numbers stored and the rank of the derivative of the kernel with respect to them.


# %%
def freedom(build, *factors):
    """(numbers stored, degrees of freedom): the Jacobian's rank at random factors."""
    flat = lambda *f: build(*f).flatten()  # noqa: E731
    jacobian = torch.autograd.functional.jacobian(flat, factors)
    rank = torch.linalg.matrix_rank(torch.cat([j.flatten(1) for j in jacobian], dim=1))
    return sum(f.numel() for f in factors), int(rank)


def product(*kernels):
    return kronecker_kernel(kernels)


def cascade(*kernels):
    return compose_kernels(kernels, [3**i for i in range(len(kernels))])


# %%
three = [draw(3, 3, seed=i) for i in range(3)]
pair = [draw(2, 1, 3, 3), draw(2, 2, 3, 3, seed=1), draw(1, 2, 3, 3, seed=2)]
counts = {
    "three 3 x 3 kernels": freedom(product, *three),
    "one 3 x 3 kernel, three times": freedom(lambda k: product(k, k, k), three[0]),
    "three layers, 2 channels": freedom(cascade, *pair),
    "rank one: column and row of 27": freedom(torch.outer, draw(27), draw(27, seed=1)),
}
for name, (numbers, free) in counts.items():
    print(f"{name:31} {numbers:3} numbers, {free:2} degrees of freedom, 729 taps")

# %% [markdown]
# $L + 1$ factors lose $L$ scales: $9 \cdot 3 - 2 = 25$; column and row lose one, $54 - 1 = 53$. Far below 729 in both cases: a field that outgrows its weights is a constraint, and this is how severe it is. A rank-one filter with 27
# numbers would be 13 x 14. What do random members of each family look like? (With the numbers each stores.)

# %% mystnb={"image": {"alt": "Two rows of four 27 by 27 kernels. Random Kronecker products show blocks within blocks; a two-channel cascade is similar but less regular; self-products are fractal, the last a Sierpinski carpet; rank-one kernels show plaid stripes."}}
carpet, gallery = ones(3, 3), {}
carpet[1, 1] = 0
for i in (1, 2):
    random = product(*[draw(3, 3, seed=3 * i + j) for j in range(3)])
    gallery[f"Kronecker: 27 ({i})"] = random
gallery["2 channels: 72"] = cascade(*pair)[0, 0]
gallery["rank one: 54 (1)"] = torch.outer(draw(27, seed=3), draw(27, seed=4))
for i in (1, 2):
    gallery[f"fractal: 9 ({i})"] = product(*[draw(3, 3, seed=30 + i)] * 3)
gallery["carpet: 9"] = product(carpet, carpet, carpet)
gallery["rank one: 54 (2)"] = torch.outer(draw(27, seed=5), draw(27, seed=6))
scaled = {name: k / k.abs().max() for name, k in gallery.items()}
fig = images(scaled, cmap="PuOr", limits=(-1, 1))
plt.show()
print(digest(**{f"kernel_{i}": k for i, k in enumerate(gallery.values())}))

# %% [markdown]
# "Repeated patterns and hierarchical structure" is literal. Every block equals every other up to a factor, at both scales; the self-product contains itself; and the carpet, whose base has 8 of 9 cells filled, has box-counting dimension
# $\log 8 / \log 3$.

# %%
kernel = product(*three)
for size in (3, 9):
    blocks = rearrange_blocks(kernel, (27 // size,) * 2)  # a row is a block
    values = torch.linalg.svdvals(blocks)
    alike = bool(values[1] < 1e-12 * values[0])
    print(f"{len(blocks)} blocks of {size} x {size}, all multiples of one: {alike}")
block = product(*[three[0]] * 3)[9:18, :9]
smaller = product(three[0], three[0])
agree("block (1, 0) of the fractal", block, three[0][1, 0] * smaller, 1e-12)
carpets = [product(*[carpet] * n) for n in (1, 2, 3, 4)]
wide, filled = [len(c) for c in carpets], [int(c.sum()) for c in carpets]
slope = np.polyfit(np.log(wide), np.log(filled), 1)[0]
agree("box-counting dimension", slope, np.log(8) / np.log(3), 1e-12)

# %% [markdown]
# **Logarithmic against linear.** For an $n \times n$ kernel with $n = a^m$ the numbers are
#
# $$
# \text{dense } n^2, \qquad \text{rank one } 2n, \qquad \text{Kronecker } a^2 m = \frac{a^2}{\log a} \log n . \tag{2.13}
# $$
#
# The logarithm needs $n$ to be a power (or a product of small factors): a prime $n$ has no Kronecker factors at all. How large is the difference?

# %% mystnb={"image": {"alt": "Numbers stored against kernel width on two logarithmic axes: dense is steepest, rank one rises in proportion to width, Kronecker products of 2 by 2 and 3 by 3 kernels stay below 70 numbers up to width 2187."}}
n, powers = 3 ** np.arange(1, 8), np.arange(1, 12)
lines = {
    "dense, $n^2$": (n, n**2),
    "rank one, $2n$": (n, 2 * n),
    "3 x 3 factors, $9 \\log_3 n$": (n, 9 * np.arange(1, 8)),
    "2 x 2 factors, $4 \\log_2 n$": (2**powers, 4 * powers),
}
fig, ax = plt.subplots(figsize=(5.4, 2.8))
for (name, (width, numbers)), marker in zip(lines.items(), "os^v", strict=True):
    _ = ax.loglog(width, numbers, marker=marker, ms=4, label=name)
_ = ax.set(xlabel="kernel width (taps)", ylabel="numbers stored")
_ = ax.legend()
plt.show()
print(digest(**{f"line_{i}": v[1] for i, v in enumerate(lines.values())}))

# %% [markdown]
# ### Are two 3x3 layers one 5x5 layer, and what is lost?
#
# Asked at [fast.ai](https://forums.fast.ai/t/kernel-size-why-would-you-ever-make-it-larger/8205), at [AI.SE](https://ai.stackexchange.com/questions/5107/how-can-3-same-size-cnn-layers-in-different-ordering-output-different-receptive/7069) and
# [elsewhere](https://codewithsundeep.com/discussion/solution/51015834). They see the same 25 inputs with 18 numbers instead of 25. One channel: 17 degrees of freedom, so most 5 x 5 kernels are out of reach. Two hidden channels: all 25.

# %%
for h in (1, 2):
    layers, both = [draw(h, 1, 3, 3), draw(1, h, 3, 3, seed=1)], [1, 1]
    numbers, free = freedom(lambda *k: compose_kernels(k, [1, 1]), *layers)
    print(f"{h} hidden channel(s): {numbers} numbers, {free} of 25 degrees of freedom")

# %% [markdown]
# How far off is a 5 x 5 kernel, then? With one factor fixed, the nearest other one is a linear least-squares problem, so we alternate, from eight starts, for 60 random kernels and for 5 x 5 patches of a photograph.


# %%
def with_factor(k):
    """The 25 x 9 matrix that composes a 3 x 3 kernel with k."""
    out = k.new_zeros(*k.shape[:-2], 5, 5, 3, 3)
    for i, j in np.ndindex(3, 3):
        out[..., i : i + 3, j : j + 3, i, j] = k
    return out.reshape(*k.shape[:-2], 25, 9)


def distance_from_products(targets, starts=8, steps=40):
    goal = targets.reshape(-1, 1, 25, 1).expand(-1, starts, -1, -1)
    k = draw(len(targets), starts, 3, 3)
    for _ in range(steps):
        k = torch.linalg.lstsq(with_factor(k), goal).solution.unflatten(-2, (3, 3))[
            ..., 0
        ]
        k = k / k.flatten(2).norm(dim=-1)[..., None, None]
    left = goal - with_factor(k) @ torch.linalg.lstsq(with_factor(k), goal).solution
    return (left.norm(dim=(-2, -1)) / goal.norm(dim=(-2, -1))).amin(dim=1)


# %%
grey = photo("camera").double()[::2, ::2]
cut = grey.unfold(0, 5, 16).unfold(1, 5, 16).reshape(-1, 5, 5)
pairs = [[draw(3, 3, seed=s), draw(3, 3, seed=s + 9)] for s in range(9)]
cases = {
    "random kernels": draw(60, 5, 5),
    "photo patches": cut - cut.mean((1, 2), keepdim=True),
    "products of two": torch.stack([compose_kernels(pair, [1, 1]) for pair in pairs]),
}
print(f"{'median distance':17} below 0.02   0.2 to 0.4")
for name, targets in cases.items():
    middle = float(distance_from_products(targets).median())
    print(f"{name:17} {middle < 0.02!s:>10} {0.2 < middle < 0.4!s:>12}")

# %% [markdown]
# So: not the same. In the median about a third of a random kernel and a quarter of a patch of a photograph are out of reach of the pair. What is gained is the nonlinearity between the layers and, with channels, the same span from fewer weights: with $C$ channels throughout $18 C^2$ instead of $25 C^2$.
#
# ## 2.8 Approximation: Kronecker against low rank
#
# The product $A \otimes B$ looks nothing like a matrix of rank one. Put each block into a row (Van Loan's rearrangement), and it is one:
#
# $$
# \mathcal R(C)_{i,\, r} = C_{q i + r}, \qquad \mathcal R(A \otimes B) = \operatorname{vec}(A)\, \operatorname{vec}(B)^{\mathsf T}. \tag{2.14}
# $$
#
# > **Theorem 2.5** ([Van Loan and Pitsianis 1993](https://doi.org/10.1007/978-94-015-8196-7_17)). Let $\sigma_1 \ge \sigma_2 \ge \dots$ be the singular values of $\mathcal R(C)$ and $u_r$, $v_r$ its singular vectors. The sum of $R$ Kronecker products nearest to $C$ is
#
# $$
# \sum_{r=1}^{R} \sigma_r\, \operatorname{vec}^{-1}(u_r) \otimes \operatorname{vec}^{-1}(v_r), \qquad \text{squared error } \sum_{r > R} \sigma_r^2 . \tag{2.15}
# $$
#
# *Proof.* $\mathcal R$ only moves entries, so it keeps distances. It maps sums of $R$ products onto matrices of rank at most $R$. The nearest of these is the truncated singular value decomposition (Eckart and Young). $\square$
#
# The rival, low rank, truncates $C$ itself:
#
# $$
# C \approx \sum_{r=1}^{R} c_r\, w_r^{\mathsf T}, \qquad c_r \in \mathbb R^m,\ w_r \in \mathbb R^n, \tag{2.16}
# $$
#
# for a kernel of $m \times n$ taps: a column filter after a row filter for each $r$.

# %%
kernel = draw(6, 6)
left, right = nearest_kronecker(
    kernel, (2, 3), rank=2
)  # left (2, 2, 3), right (2, 3, 2)
near = sum(torch.kron(a, b) for a, b in zip(left, right, strict=True))
tail = torch.linalg.svdvals(rearrange_blocks(kernel, (2, 3)))[2:].norm()
agree("error = tail of the singular values", (kernel - near).norm(), tail, 1e-10)
left, right = nearest_kronecker(product(*three), (9, 9))
agree("exact on a product", torch.kron(left[0], right[0]), product(*three), 1e-10)

# %%
column, row = low_rank(kernel, 2)
terms = [torch.outer(c, w) for c, w in zip(column, row, strict=True)]
agree("low rank: two columns times rows", column.T @ row, sum(terms), 1e-12)
x = draw(1, 20, 20)
once = conv(x, (column.T @ row)[None, None])
along = [conv(x, w[None, None, None]) for w in row]
both = [conv(z, c[None, None, :, None]) for z, c in zip(along, column, strict=True)]
agree("a horizontal and a vertical filter each", sum(both), once, 1e-12)

# %% [markdown]
# Random perturbations of both factors never do better, and the gradient of the nearest sum exists also where singular values coincide, unless the cut falls between two equal ones (where differentiating the decomposition itself gives NaN):

# %%
left, right = nearest_kronecker(kernel, (2, 3))
best, tries = float((kernel - torch.kron(left[0], right[0])).norm()), []
for seed in range(1000):
    step = 10.0 ** -(seed % 5)
    a = left[0] + step * draw(2, 3, seed=seed)
    b = right[0] + step * draw(3, 2, seed=seed + 1000)
    tries.append(float((kernel - torch.kron(a, b)).norm()))
print("1,000 perturbations, none nearer:", min(tries) >= best)
twins = torch.diag(torch.tensor([2.0, 2, 1, 1]).double()).requires_grad_()
u, s, vt = torch.linalg.svd(twins)  # values 2, 2, 1, 1
naive = torch.autograd.grad(((u[:, :2] * s[:2]) @ vt[:2]).pow(3).sum(), twins)[0]
column, row = low_rank(twins, 2)
ours = torch.autograd.grad((column.T @ row).pow(3).sum(), twins)[0]
print("gradient through torch.linalg.svd finite:", bool(naive.isfinite().all()))
print("gradient through low_rank finite:", bool(ours.isfinite().all()))

# %% [markdown]
# **Which wins where.** The post finds Kronecker kernels "somehow natural" and rank-one kernels less so. Looks are hard to check; errors are not. Take 27 x 27 kernels that people use. A sum of $R$ products of 9 x 9 with 3 x 3 kernels takes $90 R$ numbers, a rank-$R$ kernel
# $54 R$; at 270 numbers they meet, with $R = 3$ and $R = 5$.

# %%
t = torch.arange(27).double() - 13
v, u = torch.meshgrid(t, t, indexing="ij")
r2 = u**2 + v**2


def gabor(angle):
    along = u * np.cos(angle) + v * np.sin(angle)
    return torch.exp(-r2 / 72) * torch.cos(2 * np.pi * along / 9)


def patch(name, row=60, column=100):
    grey = photo(name).double().reshape(-1, 256, 256).mean(0)
    cut = grey[row : row + 27, column : column + 27]
    return cut - cut.mean()


print("Gabor filter:", digest(straight=gabor(0.0)))

# %%
across = u * np.sin(0.52) - v * np.cos(0.52)
targets = {
    "Gauss": torch.exp(-r2 / 50),
    "disc": (r2 < 100).double(),
    "motion 30°": torch.exp(-(across**2) / 2) * (r2 < 150),
    "Gabor 0°": gabor(0.0),
    "Gabor 30°": gabor(0.52),
}
names = ("camera", "astronaut", "brick", "grass", "gravel")
targets |= {name: patch(name) for name in names}
targets |= {"random": draw(27, 27), "carpet": product(carpet, carpet, carpet)}
print(len(targets), "kernels,", digest(disc=targets["disc"]))


# %%
def errors(kernel):
    """Relative error against numbers stored, for three families."""
    families = {
        "low rank": (kernel, 54),
        "9x9 ⊗ 3x3": (rearrange_blocks(kernel, (9, 9)), 90),
        "3x3 ⊗ 9x9": (rearrange_blocks(kernel, (3, 3)), 90),
    }
    curves = {}
    for name, (matrix, price) in families.items():
        values = torch.linalg.svdvals(matrix)
        tail = torch.stack([values[r:].norm() for r in range(1, len(values))])
        numbers = price * torch.arange(1, len(values))
        keep = numbers < 729
        curves[name] = numbers[keep], (tail / values.norm()).clamp(min=1e-3)[keep]
    return curves


# %%
print(f"{'at 270 numbers':14} {'low rank':>10} {'9x9 ⊗ 3x3':>10} {'3x3 ⊗ 9x9':>10}")
table = {}
for name, kernel in targets.items():
    curves = errors(kernel).values()
    table[name] = [float(error[numbers == 270][0]) for numbers, error in curves]
    print(f"{name:14} " + " ".join(f"{error:10.2f}" for error in table[name]))

# %% [markdown]
# How do the errors fall as more numbers are spent? (Errors below 0.001 are drawn at 0.001.)

# %% mystnb={"image": {"alt": "Six panels of relative error against numbers stored. Low rank falls to nothing early for the disc and the Gabor filter and is lowest for brick; Kronecker with 9 by 9 left factors is level with it for camera, slightly lower for grass, and exact for the carpet; 3 by 3 left factors are worst except on the carpet."}}
fig, axes = plt.subplots(2, 3, figsize=(7.2, 4), sharex=True, sharey=True)
shown = ("disc", "Gabor 30°", "camera", "brick", "grass", "carpet")
styles = [{"color": RED, "marker": "o"}, {"color": BLUE, "marker": "s"}]
styles += [{"color": GREEN, "marker": "^"}]
for ax, name in zip(axes.flat, shown, strict=True):
    for (label, curve), style in zip(
        errors(targets[name]).items(), styles, strict=True
    ):
        _ = ax.semilogy(*curve, ms=4, label=label, **style)
    _ = ax.set_title(name)
_ = [ax.set(xlabel="numbers stored (of 729)") for ax in axes[1]]
_ = [row[0].set(ylabel="relative error") for row in axes]
_ = axes[1, 1].legend(loc="lower left")
plt.show()
print(digest(at_270=np.array(list(table.values()))))

# %% [markdown]
# One patch is an anecdote. Take 49 patches from each photograph, at the same 270 numbers, and count.


# %%
def share_lost(matrices, keep):
    """Relative error of each matrix without all but its first singular values."""
    values = torch.linalg.svdvals(matrices)
    return values[:, keep:].norm(dim=1) / values.norm(dim=1)


places = [(i, j) for i in range(0, 217, 36) for j in range(0, 217, 36)]
print(f"{'median error':12} low rank  Kronecker  Kronecker nearer in")
for name in ("camera", "astronaut", "chelsea", "brick", "grass", "gravel"):
    cuts = torch.stack([patch(name, *place) for place in places])
    low, kron = share_lost(cuts, 5), share_lost(rearrange_blocks(cuts, (9, 9)), 3)
    nearer = f"{int((kron < low).sum()):2} of {len(cuts)}"
    print(
        f"{name:12} {float(low.median()):8.2f} {float(kron.median()):10.2f}  {nearer}"
    )

# %% [markdown]
# So both are right about something. Low rank wins where a kernel has axes or circles: brick, Gaussians, discs, and Gabor filters at any angle, which under a round envelope are of rank 2 at most. Sums of $9 \times 9 \otimes 3 \times 3$ win on texture: grass and
# gravel in every patch, the cat's fur in most, and the oblique motion blur; on camera and astronaut they are about even. The reason is visible in (2.14): the rows of $\mathcal R$ are the 3 x 3 blocks, and three right factors are the three best building blocks for all of
# them, a small code for the texture's grain. Large right factors (3 x 3 $\otimes$ 9 x 9) find little to share. The post's impression holds for textures, not in general.
#
# ### Is my kernel separable, and why is the factored network not faster?
#
# A kernel is separable exactly when its second singular value is zero; how fast the singular values fall says how many separable terms are needed ([Wronski's article](https://bartwronski.com/2020/02/03/separate-your-filters-svd-and-low-rank-approximation-of-image-filters/),
# [tensorly-notebooks#10](https://github.com/JeanKossaifi/tensorly-notebooks/issues/10), [caffe#8](https://github.com/wenwei202/caffe/issues/8), [pytorch#30933](https://github.com/pytorch/pytorch/issues/30933)).

# %%
sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]).double()
chosen = ("Gauss", "Gabor 30°", "disc", "motion 30°", "grass")
print(f"{'':11} separable   terms: exact   for 99% of the energy")
for name, kernel in {"Sobel": sobel, **{k: targets[k] for k in chosen}}.items():
    values = torch.linalg.svdvals(kernel)
    terms = int((values > 1e-6 * values[0]).sum())
    energy = values.square().cumsum(0) / values.square().sum()
    print(f"{name:11} {terms == 1!s:9} {terms:14} {int((energy < 0.99).sum()) + 1:23}")
column, row = low_rank(targets["Gauss"], 1)
scene = photo("camera").double()[None]
once = conv(scene, targets["Gauss"][None, None])
twice = conv(conv(scene, row[None, None]), column[:, None, :, None])
agree("Gauss as a row and a column", twice / once.max(), once / once.max(), 1e-12)

# %% [markdown]
# $R$ separable terms need $2 R k$ products an output instead of $k^2$, so counting breaks even at $k = 2R$. Time does not follow the count: each extra call reads and writes the whole image again, and a one-dimensional kernel gives the processor little to do
# per number read. Where is the break-even on this machine? (Ratios of medians, taken in turn; they vary from run to run and machine to machine.)


# %%
def race(*runs, rounds=7):
    """Median seconds of each function, taken in turn."""
    spent = [[] for _ in runs]
    for _ in range(rounds + 1):  # the first round warms up and is dropped
        for run, record in zip(runs, spent, strict=True):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            record.append(time.perf_counter() - start)
    return [float(np.median(record[1:])) for record in spent]


# %% tags=["nbval-ignore-output"]
def one_by_one(x, kernels):
    for kernel in kernels:
        x = F.conv2d(x, kernel)
    return x


scene = photo("camera")[None, None]
for k in (3, 5, 9, 15, 27):
    square = torch.randn(1, 1, k, k)
    pair = [torch.randn(1, 1, 1, k), torch.randn(1, 1, k, 1)]
    whole, parts = race(
        partial(F.conv2d, scene, square), partial(one_by_one, scene, pair)
    )
    fewer, faster = k / 2, whole / parts
    print(
        f"k = {k:2}: products {fewer:4.1f} times fewer, time {faster:4.1f} times less"
    )

# %% [markdown]
# The printed ratios above are those of the machine that built this page. A factor of time below 1 is the answer to the readers' question: for small kernels the factored form does save arithmetic and still loses. The same holds for factored layers with channels, where the rank between the two
# halves must fall well below $k C/2$ before anything is won.
#
# ## 2.9 The Kronecker layer on Fashion-MNIST
#
# [Zhou and others (2015)](https://arxiv.org/abs/1512.09194) put such products into dense and convolutional layers and report 3.6 times fewer parameters for less than 1% of accuracy on their tasks, which the post cites. We try the idea on the
# small Fashion-MNIST of this book, 5,000 training and 1,000 test images, and, since a ratio means little without the rest of the curve, at many sizes: a network of one hidden layer of 256 units whose 256 x 784 weight matrix is
#
# - full; or full with fewer units, the plainest way to save weights;
# - of low rank $R$: $R\,(784 + 256)$ numbers;
# - a sum of $R$ Kronecker products of 16 x 28 matrices: $896 R$ numbers. On the image $X$ each acts as $A X B^{\mathsf T}$: $B$ works along the rows, $A$ along the columns.


# %%
class KroneckerLayer(nn.Module):
    """x (b, 1, 28, 28) -> (b, 256): sum over r of left[r] x right[r]^T, flattened."""

    def __init__(self, rank):
        super().__init__()
        self.left = nn.Parameter(torch.randn(16, rank, 28) / (28 * rank) ** 0.5)
        self.right = nn.Parameter(torch.randn(28, rank, 16) / 28**0.5)

    def forward(self, x):
        z = x.squeeze(1) @ self.right.flatten(1)  # (b, 28, r 16)
        z = z.unflatten(2, (-1, 16)).transpose(1, 2).flatten(1, 2)  # (b, r 28, 16)
        return (self.left.flatten(1) @ z).flatten(1)  # (b, 256)


def kronecker_sum(left, right):
    """sum over r of left[r] (x) right[r]."""
    pairs = zip(left, right, strict=True)
    return torch.stack([kronecker_kernel([b, a]) for a, b in pairs]).sum(0)


# %%
layer, image = KroneckerLayer(3), torch.randn(2, 1, 28, 28)
weight = kronecker_sum(layer.left.transpose(0, 1), layer.right.permute(1, 2, 0))
want = image.reshape(2, 784) @ weight.T  # weight (256, 784)
agree("the layer is its Kronecker sum", layer(image), want, 1e-4)


# %%
def first_layer(kind, size):
    """The layers that stand for the 256 x 784 matrix, and how many units they give."""
    if kind == "Kronecker":
        return [KroneckerLayer(size)], 256
    wide = nn.Linear(784, size, bias=False)
    if kind == "low rank":
        return [nn.Flatten(), wide, nn.Linear(size, 256, bias=False)], 256
    return [nn.Flatten(), wide.requires_grad_(kind != "frozen")], size


def network(kind, size, seed):
    """The network, and the numbers in its first layer."""
    torch.manual_seed(seed)
    first, units = first_layer(kind, size)
    numbers = sum(p.numel() for part in first for p in part.parameters())
    return nn.Sequential(*first, nn.ReLU(), nn.Linear(units, 10)), numbers


# %%
data = fashion_mnist_small()
mean, spread = data.train_images.mean(), data.train_images.std()
plain = [(part - mean) / spread for part in (data.train_images, data.test_images)]
order = torch.randperm(784, generator=torch.Generator().manual_seed(0))
mixed = [part.flatten(1)[:, order].reshape(part.shape) for part in plain]
warm_up = lambda s: min(1.0, 5 * s + 0.1) * (1 - s)  # noqa: E731, factor on the rate


def score(kind, size, seed, inputs):
    """Test accuracy, numbers in the first layer, the trained network."""
    net, numbers = network(kind, size, seed)
    settings = {"epochs": 6, "batch_size": 100, "learning_rate": 4e-3}
    settings |= {"seed": seed, "schedule": warm_up}
    loss = nn.CrossEntropyLoss()
    _ = fit(net.to(device), loss, inputs[0], data.train_labels, **settings)
    return accuracy(net, inputs[1], data.test_labels), numbers, net


print(digest(train=plain[0].mean((0, 1))))

# %% [markdown]
# What accuracy does each size of each kind reach, over three seeds? Two controls: the Kronecker layer on images whose pixels are shuffled, all in the same way, which destroys rows and columns; and a full layer that is
# drawn at random and never trained.

# %%
sizes = {
    "full": (4, 16, 64, 256),
    "low rank": (1, 2, 4, 8, 16),
    "Kronecker": (1, 2, 4, 16),
    "Kronecker, shuffled": (1, 4),
    "frozen": (256,),
}
results = {}
for kind, choices in sizes.items():
    inputs = mixed if "shuffled" in kind else plain
    for size in choices:
        runs = [score(kind.split(",")[0], size, seed, inputs) for seed in range(3)]
        results[kind, size] = (runs[0][1], np.array([run[0] for run in runs]))
print(len(results), "layers, three seeds each")

# %% mystnb={"image": {"alt": "Test accuracy against numbers in the first layer, logarithmic. Kronecker layers stay above 0.8 down to 896 numbers, with shuffled pixels too; full layers with fewer units and low-rank layers fall off steeply below ten thousand; a frozen random layer lies near 0.78."}}
fig, ax = plt.subplots(figsize=(6.4, 3.2))
for kind, colour, marker in zip(
    sizes, (BLUE, RED, GREEN, ORANGE, "black"), "os^vx", strict=True
):
    points = [results[kind, size] for size in sizes[kind]]
    numbers, middle = [p[0] for p in points], [p[1].mean() for p in points]
    bars = [p[1].std(ddof=1) for p in points]
    style = {"color": colour, "marker": marker, "ms": 4, "capsize": 3}
    _ = ax.errorbar(numbers, middle, bars, label=kind, **style)
_ = ax.set(xlabel="numbers in the first layer", ylabel="test accuracy")
_ = ax.set(xscale="log", ylim=(0.25, 0.9))
_ = ax.legend()
plt.show()
print(digest(numbers=[n for n, _ in results.values()]))

# %%
level = {key: float(scores.mean()) for key, (_, scores) in results.items()}
best, small = level["full", 256], level["Kronecker", 1]
print("full layer, 200,704 numbers: accuracy above 0.82:", best > 0.82)
print("Kronecker, 896 numbers: within 0.06 of it:", best - small < 0.06)
print("Kronecker, 14,336 numbers: within 0.02:", best - level["Kronecker", 16] < 0.02)
print("full, 64 units, 50,176 numbers: within 0.02:", best - level["full", 64] < 0.02)
print("896 beats low rank, 2,080, by 0.04:", small > level["low rank", 2] + 0.04)
shuffled, frozen = level["Kronecker, shuffled", 1], level["frozen", 256]
print("shuffling costs the 896 numbers less than 0.03:", small - shuffled < 0.03)
print("the frozen layer: above 0.74, and below the 896:", 0.74 < frozen < small)

# %% [markdown]
# What to make of it. The published figure, 3.6 times fewer for one percent, is easily reached here, and it says little: a full layer with a quarter of the units does the same, as does low rank. The curve says more: at a thousand numbers the Kronecker layer stands far above its rivals. It would be tempting to credit the rows and columns of
# images. The shuffled control leaves little of that: nothing visible here; on all 60,000 images, three seeds, 896 numbers give 87.2 to 87.4 % as they are and 85.6 to 85.8 % shuffled ([Reproductions](../book/reproductions.md#kronecker-layers-on-fashion-mnist-60000-images)). A product $A \otimes B$ has rank $\operatorname{rank} A \cdot \operatorname{rank} B$, here up to 256, from 896 numbers, while a low-rank layer with as many passes the whole image through *one* number. Many hidden units carry far even when they are not trained at all, as the frozen layer shows.
#
# **The filters of a trained layer.** How well does each family approximate the trained full layer, at (nearly) equal numbers: the whole 256 x 784 matrix, and its single 28 x 28 filters? And what is left of the accuracy?

# %%
_, _, net = score("full", 256, 0, plain)
weight = net[1].weight.detach().cpu().clone()
left, right = nearest_kronecker(weight, (16, 28), rank=16)  # 14,336 numbers
column, row = low_rank(weight, 14)  # 14,560 numbers
near = {"Kronecker": kronecker_sum(left, right), "low rank": column.T @ row}
kept, far = {"full": accuracy(net, plain[1], data.test_labels)}, {}
for name, matrix in near.items():
    with torch.no_grad():
        net[1].weight.copy_(matrix)
    kept[name] = accuracy(net, plain[1], data.test_labels)
    far[name] = float((weight - matrix).norm())
print("low rank is nearer to the trained matrix:", far["low rank"] < far["Kronecker"])
print("it keeps the accuracy within 0.05:", kept["low rank"] > kept["full"] - 0.05)
print("Kronecker loses 0.03 more:", kept["Kronecker"] < kept["low rank"] - 0.03)
filters = weight.reshape(256, 28, 28)  # 280 numbers against 260
low, kron = share_lost(filters, 5), share_lost(rearrange_blocks(filters, (7, 7)), 4)
print(
    "low rank is nearer to 0.9 of the filters:",
    float((low < kron).double().mean()) > 0.9,
)

# %% [markdown]
# So a Kronecker layer is a good thing to *train* and a poor way to *compress* a layer that was trained without it. The same accuracy is reached by other weights.

# %% [markdown]
# ## 2.10 The context module on real textures
#
# Yu and Koltun append a module to a network for dense prediction: 3 x 3 layers with dilations 1, 1, 2, 4, 8, 16, 1, as many channels in as out. Its field is 67 wide (section 2.5) and every layer keeps the resolution. They report that it trains badly from the usual random start and well from the identity,
#
# $$
# K[o, c] = \delta_{oc}\, E_{\text{centre} } + \text{small noise}, \qquad \text{bias } 0: \tag{2.17}
# $$
#
# with $E_{\text{centre} }$ the 3 x 3 kernel whose only one stands in the middle: at first, the module hands its input on. The task here is a texture map: mosaics of the photographs brick, grass and gravel, in strong noise; every pixel is to say which of the three it belongs to. A single pixel says nothing, a wide neighbourhood does. What does the task look like?

# %%
textures = torch.stack([photo(name) for name in ("brick", "grass", "gravel")])
textures = textures - textures.mean((1, 2), keepdim=True)
textures = textures / textures.std((1, 2), keepdim=True)


def mosaics(count, top, seed, side=48, noise=1.5):
    """Images (count, 1, side, side) and labels; upper halves of the photos or lower."""
    g = torch.Generator().manual_seed(seed)
    blobs = torch.randn(count, 3, 2, 2, generator=g)
    labels = F.interpolate(blobs, side, mode="bicubic", align_corners=True).argmax(1)
    cuts = torch.empty(count, 3, side, side)
    for i, c in np.ndindex(count, 3):
        row = int(torch.randint(0, 128 - side, (), generator=g)) + (0 if top else 128)
        column = int(torch.randint(0, 256 - side, (), generator=g))
        cuts[i, c] = textures[c, row : row + side, column : column + side]
    clean = cuts.gather(1, labels[:, None])
    return clean + noise * torch.randn(clean.shape, generator=g), labels


# %% mystnb={"image": {"alt": "A mosaic of brick, grass and gravel with soft irregular borders; the same in noise so strong that the parts are hard to see; the map of labels in black, grey and white."}}
net_input, labels = mosaics(320, True, seed=0)
test_input, test_labels = mosaics(64, False, seed=1)
clean, _ = mosaics(64, False, seed=1, noise=0.0)
shares = F.one_hot(test_labels).double().mean((1, 2))
example = int(shares.amin(1).argmax())  # where the rarest texture is least rare
noisy = test_input[example, 0] / 8 + 0.5
shown = {"textures": clean[example, 0] / 6 + 0.5, "input": noisy}
shown |= {"labels": test_labels[example] / 2}
fig = images(shown, columns=3, limits=(0, 1))
fig.set_size_inches(5.4, 2.0)
plt.show()
print(digest(labels=test_labels.double(), input=test_input.mean((0, 1))))


# %%
def centred(layer):
    """(2.17): the identity and a little of the layer's own random start."""
    with torch.no_grad():
        layer.weight *= 0.3
        layer.weight[:, :, 1, 1] += torch.eye(len(layer.weight))
        layer.bias.zero_()
    return layer


def context(dilations=(1, 1, 2, 4, 8, 16, 1), channels=12, start=centred):
    body = []
    for d in dilations:
        layer = nn.Conv2d(channels, channels, 3, padding=d, dilation=d)
        body += [start(layer), nn.ReLU()]
    head, last = nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(channels, 3, 1)
    return nn.Sequential(head, nn.ReLU(), *body, last)


# %%
torch.manual_seed(0)
flow = torch.rand(1, 12, 40, 40)
for name, start in (("torch's own start", nn.Identity()), ("identity start", centred)):
    z = context(start=start)[2:-1](flow)
    print(f"{name:17}: half of the contrast arrives:", bool(z.std() > flow.std() / 2))

# %% [markdown]
# From the usual start the signal fades on its way through seven layers, from the identity it arrives. The rival pools three times and comes back by repeating pixels, with as many layers and as many weights.


# %%
class PoolUnpool(nn.Module):
    """As many layers and weights: four going down by pooling, three up again."""

    def __init__(self, channels=12, shortcuts=False):
        super().__init__()
        self.shortcuts = shortcuts
        body = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(7)]
        self.layers = nn.ModuleList(map(centred, body))
        self.head = nn.Conv2d(1, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 3, 1)

    def forward(self, x):
        x, kept = F.relu(self.head(x)), []
        for layer in self.layers[:4]:
            kept.append(F.relu(layer(F.max_pool2d(kept[-1], 2) if kept else x)))
        x = kept.pop()
        for layer in self.layers[4:]:
            x, finer = F.interpolate(x, scale_factor=2), kept.pop()
            x = F.relu(layer((x + finer) / 2 if self.shortcuts else x))
        return self.last(x)


# %%
def reach(net, size=160):
    """How far one input pixel reaches: NaN goes wherever a value could go."""
    x = torch.zeros(1, 1, size, size)
    x[..., size // 2, size // 2] = torch.nan
    return int(net(x).isnan().any(1)[0].any(0).sum())


kinds = {
    "context": context,
    "plain": partial(context, (1,) * 7),
    "pool": PoolUnpool,
    "pool + shortcuts": partial(PoolUnpool, shortcuts=True),
}
print(f"{'':17} weights  output   products a pixel  one pixel reaches")
for name, make in kinds.items():
    net, whole = make(), 2 * (1 + 1 / 4 + 1 / 16) + 1 / 64 if "pool" in name else 7
    shape, products = tuple(net(test_input[:1]).shape[2:]), 144 + int(9 * 144 * whole)
    weights = sum(p.numel() for p in net.parameters())
    print(f"{name:17} {weights:7}  {shape} {products:16} {reach(net):18}")


# %%
def learn(make, seed):
    torch.manual_seed(seed)
    net, loss = make().to(device), nn.CrossEntropyLoss()
    settings = {"epochs": 4, "batch_size": 8, "learning_rate": 5e-3, "max_norm": 1.0}
    _ = fit(net, loss, net_input, labels, seed=seed, schedule=warm_up, **settings)
    with torch.no_grad():
        right = net(test_input.to(device)).argmax(1).cpu() == test_labels
    return net.cpu(), float(right.double().mean())


# %%
trained, marks = {}, {}
for name in ("context", "plain", "pool"):
    runs = [learn(kinds[name], seed) for seed in (0, 1)]
    trained[name], marks[name] = runs[0][0], np.mean([mark for _, mark in runs])
print("guessing is right at 1/3 of the pixels")
print("context: right at more than half of the pixels:", marks["context"] > 0.52)
print("pool: right at more than half of the pixels:", marks["pool"] > 0.52)
ahead, apart = marks["context"] - marks["plain"], marks["context"] - marks["pool"]
print("the context module is ahead of plain layers by 0.02:", ahead > 0.02)
print("context and pooling within 0.08 of each other:", abs(apart) < 0.08)

# %% [markdown]
# At equal weights the wide field wins over the narrow one, as promised, "without adding many parameters": without adding any. Pooling comes within 0.08 of it, a wider margin than the lead over plain layers, so this run does not rank the two; it takes 2.6 times fewer products, and for *labels* of regions its coarse middle is no handicap. What do the maps look like?

# %% mystnb={"image": {"alt": "One test mosaic, its labels, and the label maps of the plain stack, the context module and the pooling network. The plain stack's map is speckled, the other two are smoother."}}
maps = {"input": noisy, "labels": test_labels[example] / 2}
with torch.no_grad():
    for name, net in trained.items():
        maps[name] = net(test_input[example : example + 1]).argmax(1)[0] / 2
fig = images(maps, columns=5, limits=(0, 1))
plt.show()
print(digest(labels=maps["labels"]))

# %% [markdown]
# **Pixel accuracy and shortcuts.** Where the answer is one pixel thin, the coarse middle does matter. Second task: the edge map (gradient magnitude) of clean cut-outs of photographs, same networks with one output. The post says that shortcuts retain
# pixel-level accuracy.


# %%
def edges(names, count, seed, side=48):
    """Cut-outs of photographs, and the gradient magnitude in them."""
    g, scenes = torch.Generator().manual_seed(seed), []
    for i in range(count):
        grey = photo(names[i % len(names)]).reshape(-1, 256, 256).mean(0)
        row, column = torch.randint(0, 256 - side, (2,), generator=g).tolist()
        scenes.append(grey[row : row + side, column : column + side])
    scenes, down = torch.stack(scenes)[:, None] - 0.45, sobel.float()[None, None]
    slopes = [conv(scenes, kernel, padding="same") for kernel in (down, down.mT)]
    return scenes, (slopes[0] ** 2 + slopes[1] ** 2).sqrt()


def first_channel_error(z, target):
    return F.mse_loss(z[:, :1], target)


# %%
scenes, slopes = edges(("camera", "coffee", "brick"), 160, 0)
unseen, truth = edges(("astronaut", "chelsea"), 32, 1)
settings = {"epochs": 5, "batch_size": 8, "learning_rate": 3e-3, "max_norm": 1.0}
missed = {}
for name in ("pool", "pool + shortcuts", "context"):
    torch.manual_seed(0)
    net, falling = kinds[name]().to(device), lambda s: 1 - s
    _ = fit(net, first_channel_error, scenes, slopes, schedule=falling, **settings)
    with torch.no_grad():
        error = first_channel_error(net(unseen.to(device)).cpu(), truth)
    missed[name] = float(error / truth.var())  # share of the variance
won = missed["pool"] - missed["pool + shortcuts"]
ahead = missed["pool + shortcuts"] - missed["context"]
print("pooling misses half of the edge map's variance:", missed["pool"] > 0.5)
print("shortcuts win at least 0.15 of it back:", won > 0.15)
print("the context module, never coarse, is ahead by 0.05 more:", ahead > 0.05)

# %% [markdown]
# ## 2.11 Translation equivariance
#
# A map $f$ is equivariant if shifting the input shifts the output, $f(T_s x) = T_s f(x)$. On a torus, where shifts wrap round and so does the padding, a convolution with any dilation is equivariant by (2.2): the sum does not contain $t$ except in $t + dj$. Compositions and pointwise nonlinearities keep it. We measure the gap
#
# $$
# g(s) = \max_t \big| f(T_s x)_t - (T_s f(x))_t \big| \big/ \operatorname{std} f(x). \tag{2.18}
# $$
#
# ### Why is my convolution not translation equivariant?
#
# Asked in [pytorch#71154](https://github.com/pytorch/pytorch/issues/71154), [truly_shift_invariant_cnns#5](https://github.com/achaman2/truly_shift_invariant_cnns/issues/5), [udlbook#176](https://github.com/udlbook/udlbook/issues/176),
# [MLQuestions#10](https://github.com/andrewekhalel/MLQuestions/issues/10) and [d2l-en PR#2611](https://github.com/d2l-ai/d2l-en/pull/2611). The theorem is about the operation without an edge and without stride. In a program each of the two breaks it.


# %%
def gap(f, x, shift, inside=0):
    """(2.18) for one shift (rows, columns); `inside` drops a frame of the output."""
    error = (f(x.roll(shift, (-2, -1))) - f(x).roll(shift, (-2, -1))).abs()
    end = error.shape[-1] - inside
    return float(error[..., inside:end, inside:end].max() / f(x).std())


def strided(x):
    y = conv(x, weight, padding="circular", stride=2)
    return F.interpolate(y, scale_factor=2)


torus, weight = photo("camera").double()[None, None, ::8, ::8], draw(1, 1, 3, 3)
circular = lambda x: conv(x, weight, padding="circular")  # noqa: E731
zeros = lambda x: conv(x, weight, padding="same")  # noqa: E731

# %%
print("circular padding: no gap:", gap(circular, torus, (3, 5)) < 1e-12)
print("zero padding, all pixels: gap", round(gap(zeros, torus, (3, 5)), 1))
print(
    "zero padding, inside of the shift: no gap:", gap(zeros, torus, (3, 5), 6) < 1e-12
)
print("stride 2, shift (2, 4): no gap:", gap(strided, torus, (2, 4)) < 1e-12)
print("stride 2, shift (3, 5): gap", round(gap(strided, torus, (3, 5)), 1))

# %% [markdown]
# Now whole networks, over *all* 1,024 shifts of a 32 x 32 photograph: the trained context module with circular and with zero padding, and the trained pooling network with circular padding, so that only its pooling can break the symmetry. Which shifts survive pooling?


# %%
def with_padding(net, mode):
    """The same weights in float64, with another padding mode in each convolution."""
    net = copy.deepcopy(net).double()
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            part.padding_mode = mode
    return net


# %%
@torch.no_grad()
def all_gaps(f, x):
    """(2.18) at every shift of the image, as a map."""
    n, base, rows = x.shape[-1], f(x), []
    for i in range(n):
        moved = torch.cat([x.roll((i, j), (-2, -1)) for j in range(n)])
        want = torch.cat([base.roll((i, j), (-2, -1)) for j in range(n)])
        rows.append((f(moved) - want).abs().amax((1, 2, 3)) / base.std())
    return torch.stack(rows)


standard = (torus - torus.mean()) / torus.std()
maps = {}
for name, mode in (("context", "circular"), ("context", "zeros"), ("pool", "circular")):
    maps[f"{name}, {mode}"] = all_gaps(with_padding(trained[name], mode), standard)
print(len(maps), "maps of", tuple(maps["pool, circular"].shape), "shifts")

# %% mystnb={"image": {"alt": "Three heat maps of the equivariance gap over shifts 0 to 31 in both directions. Context module with circular padding: zero everywhere. With zero padding: positive for all shifts but none. Pooling network: zero only where both shifts are multiples of 8, growing between them."}}
fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.0))
for ax, (name, values) in zip(axes, maps.items(), strict=True):
    top = float(values.max().clamp(min=0.1))
    picture = heatmap(ax, values, limits=(0, top))
    _ = fig.colorbar(picture, ax=ax, shrink=0.62, label="gap (2.18)")
    _ = ax.set(title=name, xlabel="shift (columns)", ylabel="shift (rows)")
    _ = ax.set(xticks=[0, 8, 16, 24], yticks=[0, 8, 16, 24])
silent = {name.replace(", ", "_"): values < 1e-9 for name, values in maps.items()}
plt.show()
print(digest(**silent))

# %%
eighths = torch.zeros(32, 32, dtype=torch.bool)
eighths[::8, ::8] = True
print("context, circular: all shifts survive:", bool(silent["context_circular"].all()))
print("context, zeros: only (0, 0) survives:", int(silent["context_zeros"].sum()) == 1)
only_eighths = torch.equal(silent["pool_circular"], eighths)
print("pool: exactly the multiples of 8 survive:", only_eighths)
one_pixel = float(maps["pool, circular"][0, 1])
print("pool: one pixel moves the output by 0.1 of its spread:", one_pixel > 0.1)

# %% [markdown]
# So "fully equivariant" holds on the torus; with the zero padding of ordinary networks it holds only away from the border, and for the context module on a small image nothing is away from it. Pooling by 2, three times, keeps the shifts by multiples of $2^3 = 8$ and no others. Is it the pooling, or the subsampling? SegNet unpools to the remembered places of
# the maxima, which is better than repeating; pooling with stride 1 does not subsample at all.

# %%
w = [draw(4, 1, 3, 3), draw(4, 4, 3, 3, seed=1), draw(1, 4, 3, 3, seed=2)]
ring = partial(conv, padding="circular")


def segnet(x):
    pooled, places = F.max_pool2d(ring(x, w[0]), 2, return_indices=True)
    return ring(F.max_unpool2d(ring(pooled, w[1]), places, 2), w[2])


def stride_one(x):
    wrapped = F.pad(ring(x, w[0]), (0, 1, 0, 1), mode="circular")
    return ring(ring(F.max_pool2d(wrapped, 2, stride=1), w[1]), w[2])


# %%
print("shift survives: pooling with stride 1 | pooling by 2, unpooling by indices")
for s in (1, 2, 3, 4):
    flat, indexed = (gap(f, torus, (0, s)) < 1e-12 for f in (stride_one, segnet))
    print(f"{s:14}: {flat!s:22} | {indexed}")
print(
    "one pixel moves the index-unpooled output by its spread:",
    gap(segnet, torus, (0, 1)) > 1,
)

# %% [markdown]
# It is the subsampling. Remembering where the maxima were keeps edges sharp and does not bring the symmetry back.
#
# ## 2.12 Borders
#
# A layer with padding $p_l = d_l (k_l - 1)/2$ lets the invented values reach $p_l$ pixels further in. After $n$ layers an output of an $m \times m$ image is untouched only in the square that is left, so the fraction that sees padding is
#
# $$
# 1 - \Big( \max\big(0,\ 1 - \tfrac{2}{m} \textstyle\sum_{l} p_l \big) \Big)^2 . \tag{2.19}
# $$
#
# How fast does the border eat the image, for plain and for dilated layers?


# %%
def sees_padding(steps, size):
    """Measured: pad with NaN at each layer and count the outputs that become NaN."""
    x = torch.zeros(1, size, size)
    for d in steps:
        x = conv(
            F.pad(x, (d,) * 4, value=torch.nan), torch.ones(1, 1, 3, 3), dilation=d
        )
    return float(x.isnan().double().mean())


print("             48 x 48 image          256 x 256 image")
print("layers  context  (2.19)   plain     context   plain")
for n in range(1, 8):
    formula = 1 - max(0, 1 - 2 * sum(module[:n]) / 48) ** 2
    small, large = (
        [sees_padding(steps[:n], size) for steps in (module, [1] * 7)]
        for size in (48, 256)
    )
    print(f"{n:6} {small[0]:8.3f} {formula:7.3f} {small[1]:7.3f}", end="")
    print(f" {large[0]:11.3f} {large[1]:7.3f}")

# %% [markdown]
# At equal depth the dilated stack is far worse, because it sees further: the price of a field is its radius. At equal *field* the fraction is the same by (2.19). Is the influence then the same? Let each layer average, and sum the weight that falls outside the image. A plain stack needs 33 layers for
# the 67 pixels of the module.

# %% mystnb={"image": {"alt": "Weight that falls outside the image against distance from the border for seven plain layers, thirty-three plain layers and the context module. At the border all are near one half; the plain stacks fall quickly, the context module slowly."}}
stacks = {"plain_7": [1] * 7, "plain_33": [1] * 33, "context_7": module}
fig, ax = plt.subplots(figsize=(5.6, 2.6))
beyond = {}
for (name, steps), colour in zip(stacks.items(), (BLUE, GREEN, RED), strict=True):
    share = compose_kernels([ones(3) / 3] * len(steps), steps)
    half = len(share) // 2
    beyond[name] = torch.zeros(34, dtype=torch.double)
    beyond[name][:half] = share.cumsum(0)[:half].flip(0)
    label = "{}, {} layers".format(*name.split("_"))
    _ = ax.plot(beyond[name], color=colour, marker="o", ms=3, label=label)
_ = ax.set(xlabel="distance from the border (pixels)", ylabel="weight outside")
_ = ax.legend()
plt.show()
print(digest(**beyond))
for name, weight in beyond.items():
    mean = float(2 * weight[:32].sum() / 64)
    print(f"{name:9} mean weight outside in the rows of a 64 x 64 image: {mean:.3f}")

# %% [markdown]
# So the "even bigger problem" is real and has two parts: more outputs touched at equal depth, and more weight outside at equal field, since a plain stack hardly looks to the rim of its field. Now the trained networks. We cut a 48 x 48 window out of a larger mosaic and compare the output with that of the same network on the larger image,
# cropped. Three paddings; the network was trained with zeros. Where are the errors? (One colour scale, from blue for none to yellow.)

# %%
big, big_labels = mosaics(8, False, seed=5, side=120)
crop = big[:, :, 36:84, 36:84]


@torch.no_grad()
def border_error(name, mode):
    """Mean absolute difference of the class probabilities, (48, 48)."""
    net = with_padding(trained[name], mode)
    small, large = net(crop.double()).softmax(1), net(big.double()).softmax(1)
    return (small - large[:, :, 36:84, 36:84]).abs().mean((0, 1))


print("crop", tuple(crop.shape), "of", tuple(big.shape))

# %% mystnb={"image": {"alt": "Six maps of the difference between the output on a crop and on the larger image: context module and plain stack, each with zero, reflect and circular padding. The plain stack errs in a thin frame, the context module across the whole crop, most at the border."}}
pairs = [(n, m) for n in ("context", "plain") for m in ("zeros", "reflect", "circular")]
errors_at = {f"{name}, {mode}": border_error(name, mode) for name, mode in pairs}
top = float(max(error.max() for error in errors_at.values()))
fig = images(errors_at, columns=3, limits=(0, top), cmap="cividis")
fig.set_size_inches(6.8, 4.6)
bar = fig.colorbar(fig.axes[0].images[0], ax=fig.axes, shrink=0.8)
bar.set_label("mean error of a class probability")
plt.show()
print(digest(plain_inside=errors_at["plain, zeros"][10:-10, 10:-10] < 1e-9))

# %%
plain_maps = [error for name, error in errors_at.items() if "plain" in name]
inside = max(float(error[9:-9, 9:-9].max()) for error in plain_maps)
print("plain: nothing wrong more than 8 pixels inside:", inside < 1e-9)
print("context: wrong everywhere:", bool((errors_at["context, zeros"] > 1e-9).all()))
mean = {name: float(error.mean()) for name, error in errors_at.items()}
zeros = mean["context, zeros"]
print("zeros hurt context twice as much as plain:", zeros > 2 * mean["plain, zeros"])
print("reflection lowers context's error:", mean["context, reflect"] < 0.95 * zeros)
wrapped = mean["context, circular"] / zeros
print("wrapping changes it by less than a quarter:", 0.75 < wrapped < 1.25)
best = min(mean["plain, reflect"], mean["plain, circular"])
print("neither helps plain by a fifth:", best > 0.8 * mean["plain, zeros"])

# %% [markdown]
# Reflection helps the wide field a little, since it continues the texture at the border; wrapping round brings in the texture of the opposite side and does not. Neither restores what was outside. The only exact cure is to run on a larger image and crop.
#
# ### I merged two convolutions into one kernel: why is the centre right and the border wrong?
#
# The question of [DiverseBranchBlock#9](https://github.com/DingXiaoH/DiverseBranchBlock/issues/9), [TCN#76](https://github.com/locuslab/TCN/issues/76) and [TCN#51](https://github.com/locuslab/TCN/issues/51). Between the layers, the cascade replaces the first layer's values beyond the edge by zeros. The merged kernel computes them. So the outputs can
# differ only where a later layer looks beyond the edge: in a strip as wide as the later layers' padding, $p_1 + \dots + p_L$. (Inside it dilation may leave some rows right.)


# %%
def layered(x, kernels, steps, pad):
    for kernel, d in zip(kernels, steps, strict=True):
        x = conv(x, kernel, dilation=d, padding=pad * d)
    return x


kernels, steps = [draw(1, 1, 3, 3, seed=i) for i in range(3)], [1, 2, 3]
x, merged = draw(1, 30, 30, seed=9), compose_kernels(kernels, steps)
want = conv(x, merged, padding=sum(steps))
wrong = (layered(x, kernels, steps, pad=1) - want)[0].abs() > 1e-10
strip = torch.ones(30, 30, dtype=torch.bool)
strip[5:-5, 5:-5] = False  # p_1 + p_2 = 2 + 3
print("wrong somewhere:", bool(wrong.any()))
print("wrong only in the strip of 5:", not bool((wrong & ~strip).any()))
print("a strip of 4 would not do:", bool(wrong[4].any()))
once = layered(F.pad(x, (6,) * 4), kernels, steps, pad=0)
agree("cure: pad once, before the first layer", once, want, 1e-10)

# %% [markdown]
# With a bias there is a second cure, the one that re-parametrised networks use. If the first layer is 1 x 1, zeros beyond the edge would come out of it as its bias. Pad the middle with that bias response instead of zeros, and merging is exact.

# %%
point, bias, three_wide = draw(4, 2, 1, 1), draw(4, seed=1), draw(3, 4, 3, 3, seed=2)
x = draw(2, 20, 20, seed=3)
merged = compose_kernels([point, three_wide], [1, 1])
want = conv(x, merged, three_wide.sum((2, 3)) @ bias, padding=1)
middle = conv(x, point, bias)
error = (conv(middle, three_wide, padding=1) - want).abs()
print(
    "middle padded with zeros: right inside:", bool(error[:, 1:-1, 1:-1].max() < 1e-12)
)
print("middle padded with zeros: right at the border:", bool(error.max() < 1e-12))
level_off = bias[:, None, None]
response = F.pad(middle - level_off, (1,) * 4) + level_off
agree("middle padded with the bias response", conv(response, three_wide), want, 1e-12)

# %% [markdown]
# ## 2.13 Speed
#
# One 27 x 27 kernel takes 729 products an output, the cascade of three 3 x 3 kernels 27, a factor of 27. A clock sees less of it, because every layer writes and reads an image.

# %%
kernels = [draw(1, 1, 3, 3, seed=i).float() for i in range(3)]
large, scene = (
    product(*[k[0, 0] for k in kernels])[None, None],
    photo("camera")[None, None],
)


def three_layers(x, kernels):
    for kernel, d in zip(kernels, (1, 3, 9), strict=True):
        x = F.conv2d(x, kernel, dilation=d, groups=len(kernel))
    return x


once, layers = F.conv2d(scene, large), three_layers(scene, kernels)
agree("same output, relative", layers / once.abs().max(), once / once.abs().max(), 1e-5)
print("products an output:", large.numel(), "against", sum(k.numel() for k in kernels))

# %% tags=["nbval-ignore-output"]
for channels in (1, 8):  # each by itself
    several, repeats = scene.repeat(1, channels, 1, 1), (channels, 1, 1, 1)
    wide, small = large.repeat(repeats), [k.repeat(repeats) for k in kernels]
    whole = partial(F.conv2d, several, wide, groups=channels)
    one, three = race(whole, partial(three_layers, several, small), rounds=5)
    print(
        f"{channels} channel(s): 1/27 of the products, {one / three:.1f} times faster"
    )

# %% [markdown]
# ### Why is a dilated convolution slower than a dense one with as many taps, and does it lose resolution?
#
# Asked in [pytorch#15054](https://github.com/pytorch/pytorch/issues/15054), [pytorch#28777](https://github.com/pytorch/pytorch/issues/28777), [pytorch#967](https://github.com/pytorch/pytorch/issues/967),
# [tensorflow#24559](https://github.com/tensorflow/tensorflow/issues/24559), [chainer#1941](https://github.com/chainer/chainer/issues/1941), [caffe#6539](https://github.com/BVLC/caffe/issues/6539) and in [a Q&A](https://exchangetuts.com/why-do-dilated-convolutions-preserve-resolution-1640219884571490).
# It need not be slower (on the machine that built this page it was not), and it loses nothing. The outputs at positions $t \equiv \rho \pmod d$ read only inputs with the same remainder. So a dilated convolution is $d^2$ ordinary ones, one on each sub-image of every $d$-th pixel (its *polyphase components*), interleaved again:
#
# $$
# y_{d i + \rho} = \sum_j w_j\, x^{(\rho)}_{i + j}, \qquad x^{(\rho)}_i = x_{d i + \rho}, \quad 0 \le \rho < d . \tag{2.20}
# $$
#
# Three implementations follow: the library's, zeros stuffed into a dense kernel, and the $d^2$ sub-images as a batch. Equal values first.


# %%
def by_phases(x, weight, d):
    """(2.20) for sizes divisible by d: space to batch, a dense kernel, and back."""
    b, _, h, w = x.shape
    phases = x.reshape(b, -1, h // d, d, w // d, d).permute(3, 5, 0, 1, 2, 4)
    y = F.conv2d(phases.flatten(0, 2), weight)  # (d d b, c_out, h', w')
    y = y.unflatten(0, (d, d, b)).permute(2, 3, 4, 0, 5, 1)
    return y.reshape(b, weight.shape[0], y.shape[2] * d, y.shape[4] * d)


x, weight, d = draw(1, 8, 64, 64), draw(8, 8, 3, 3, seed=1), 4
native, stuffed = F.conv2d(x, weight, dilation=d), dilate_kernel(weight, d)
agree("zeros stuffed in", F.conv2d(x, stuffed), native, 1e-11)
agree("sixteen interleaved plain convolutions", by_phases(x, weight, d), native, 1e-11)
same = conv(x, weight, padding="same", dilation=d)
print("resolution with padding:", tuple(x.shape[2:]), "->", tuple(same.shape[2:]))

# %% tags=["nbval-ignore-output"]
x = torch.randn(1, 16, 128, 128, device=device)
weight = torch.randn(16, 16, 3, 3, device=device)
print("time relative to a dense 3 x 3:  library  phases  stuffed zeros")
for d in (2, 4, 8):
    library = partial(F.conv2d, x, weight, dilation=d)
    stuffed = partial(F.conv2d, x, dilate_kernel(weight, d))
    phases = partial(by_phases, x, weight, d)
    dense, *others = race(partial(F.conv2d, x, weight), library, phases, stuffed)
    ratios = [t / dense for t in others]
    print(f"dilation {d}: {ratios[0]:28.1f} {ratios[1]:7.1f} {ratios[2]:14.1f}")

# %% [markdown]
# (Read the ratios with the border in mind. Nothing is padded here, so at dilation 8 there are 112 x 112 outputs where the dense kernel has 126 x 126, 0.79 times as many; a ratio below 1 is mostly that.)
#
# An output takes the same products in each way but the stuffed one; what differs otherwise is the path through memory. Neighbouring outputs of a dilated kernel share no inputs, so a kernel that keeps a small tile of the image in fast memory reuses less of it, and the fastest dense algorithms (Winograd, small-tile) do not apply. Where a library has no good dilated kernel, stuffing zeros costs $\big((d(k-1)+1)/k\big)^2$ times the work, 9 times for $k = 3$ and $d = 4$, and the phases bring a dense
# kernel's speed for two rearrangements of the image.
#
# ## 2.14 On the GPU
#
# Everything in `ckutils.kronecker` is made of torch operations that run where their inputs are; the training cells above use a GPU if there is one, with the same claims. The timings of this chapter were taken on a CPU; **GPU timings of the dilated kernels are not measured**. The check that the two devices agree is part of the chapter:

# %%
kernels = [draw(4, 2, 3, 3).to(device), draw(3, 4, 3, 3, seed=1).to(device)]
x = draw(1, 2, 32, 32, seed=2).to(device)
two = F.conv2d(F.conv2d(x, kernels[0]), kernels[1], dilation=3)
composite = compose_kernels(kernels, [1, 3])
agree("cascade on this device", F.conv2d(x, composite), two, 1e-10)
left, right = nearest_kronecker(composite, (3, 3), rank=4)
print("factors live where the kernel does:", left.device == right.device == x.device)
print("left", tuple(left.shape), "right", tuple(right.shape))

# %% [markdown]
# ## 2.15 Exercises
#
# First six functions to write, from five minutes to an evening, then questions to think about. `check_...(f)` calls your function on a row of cases.
# At the first that does not agree it says which, what was expected, what came, and gives a hint. Copy a signature into a cell of your own and begin there;
# a solution is folded away below each, executed with the chapter. This is what a check says to a function that is only begun:

# %%
import math

from ckutils.exercises import (
    check_cascade_dilations,
    check_composite,
    check_kron_gradient,
    check_merge_layers,
    check_nearest_factors,
    check_span,
)

try:
    check_span(lambda kernel_sizes, dilations: (sum(kernel_sizes), True))
except AssertionError as told:
    print(told)

# %% [markdown]
# ### Functions to write
#
# **Exercise 2.1** (5 minutes). How wide is the composite kernel of a cascade on one axis, and is it free of holes? Section 2.5 has the rule; the dilations come in any order, and a layer may have a single tap.
#
# ```python
# def span(kernel_sizes, dilations):
#     # lists of ints, one entry a layer
#     return width, full  # an int, a bool
# ```


# %% tags=["hide-cell"]
def span(kernel_sizes, dilations):
    width, full = 1, True
    for d, k in sorted(zip(dilations, kernel_sizes, strict=True)):
        full = full and (k == 1 or d <= width)  # a layer of one tap leaves no gap
        width += d * (k - 1)
    return width, full


check_span(span)

# %% [markdown]
# **Exercise 2.2** (5 minutes). A 4-tap layer, then a 3-tap layer, then a 2-tap layer. Which dilations make the cascade a Kronecker product without holes? Write the rule (2.8) for any sizes.
#
# ```python
# def cascade_dilations(kernel_sizes):  # first layer first
#     return dilations  # a list of ints
# ```


# %% tags=["hide-cell"]
def cascade_dilations(kernel_sizes):
    return [math.prod(kernel_sizes[:i]) for i in range(len(kernel_sizes))]


check_cascade_dilations(cascade_dilations)

# %% [markdown]
# **Exercise 2.3** (20 minutes). Write the composition (2.7) on one axis, from nothing but sums and products: the one kernel that equals a cascade of correlations without padding.
#
# ```python
# def composite(kernels, dilations):
#     # float64 tensors (k,), first layer first; ints
#     return whole  # (1 + sum of d (k - 1),)
# ```


# %% tags=["hide-cell"]
def composite(kernels, dilations):
    whole = torch.ones(1, dtype=kernels[0].dtype)
    for kernel, d in zip(kernels, dilations, strict=True):
        longer = whole.new_zeros(len(whole) + d * (len(kernel) - 1))
        for j, tap in enumerate(kernel):
            longer[d * j : d * j + len(whole)] += tap * whole
        whole = longer
    return whole


check_composite(composite)

# %% [markdown]
# **Exercise 2.4** (20 minutes). A loss sees the product $A \otimes B$ of two matrices and sends the gradient $G$ to it. What reaches $A$, and what $B$? For $B = E_d$ it is (2.6). Without autograd.
#
# ```python
# def kron_gradient(gradient, left, right):
#     # (a c, b d), (a, b), (c, d), float64
#     return to_left, to_right  # (a, b), (c, d)
# ```


# %% tags=["hide-cell"]
def kron_gradient(gradient, left, right):
    (a, b), (c, d) = left.shape, right.shape
    blocks = gradient.reshape(a, c, b, d)  # row a c + i: which block, where in it
    to_left = torch.einsum("acbd,cd->ab", blocks, right)
    to_right = torch.einsum("acbd,ab->cd", blocks, left)
    return to_left, to_right


check_kron_gradient(kron_gradient)

# %% [markdown]
# **Exercise 2.5** (an hour). Merge a linear network with channels *and biases* into one layer: (2.7) with matrices for numbers, on one axis, without padding. The merged layer has dilation 1.
#
# ```python
# def merge_layers(weights, biases, dilations):
#     # (c_out, c_in, k) and (c_out,) a layer, float64
#     return weight, bias
# ```


# %% tags=["hide-cell"]
def merge_layers(weights, biases, dilations):
    channels = weights[0].shape[1]
    whole = torch.eye(channels, dtype=weights[0].dtype)[..., None]  # (c, c, 1)
    bias = whole.new_zeros(channels)
    for w, b, d in zip(weights, biases, dilations, strict=True):
        size = whole.shape[-1]
        longer = whole.new_zeros(len(w), channels, size + d * (w.shape[-1] - 1))
        for j in range(w.shape[-1]):
            tap = torch.einsum("oc,cit->oit", w[..., j], whole)
            longer[..., d * j : d * j + size] += tap
        # a bias is a constant signal: it meets the sum of the taps
        whole, bias = longer, w.sum(-1) @ bias + b
    return whole, bias


check_merge_layers(merge_layers)

# %% [markdown]
# **Exercise 2.6** (an evening). Section 2.8 finds the nearest product of *two* matrices by a singular value decomposition. For three and more there is no such formula. Alternate:
# fix all factors but one, solve for that one (a linear least-squares problem whose answer is a mean), go round. Two factors must reach the nearest product; more must find a product again that noise has covered.
#
# ```python
# def nearest_factors(matrix, shapes):
#     # float64; shapes: [(rows, columns), ...], from left to right
#     return factors  # one matrix a shape
# ```


# %% tags=["hide-cell"]
def nearest_factors(matrix, shapes, sweeps=100):
    n, (rows, columns) = len(shapes), zip(*shapes, strict=True)
    order = [axis for i in range(n) for axis in (i, n + i)]  # a factor's two axes
    tensor = matrix.reshape(*rows, *columns).permute(order)
    tensor = tensor.reshape([r * c for r, c in shapes])  # one axis a factor
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(k, generator=generator).to(tensor) for k in tensor.shape]
    for _ in range(sweeps):
        for i in range(n):
            rest = [(v, [j]) for j, v in enumerate(factors) if j != i]
            flat = [part for pair in rest for part in pair]
            best = torch.einsum(tensor, list(range(n)), *flat, [i])
            factors[i] = best / math.prod(float(v @ v) for v, _ in rest)
    return [v.reshape(s) for v, s in zip(factors, shapes, strict=True)]


check_nearest_factors(nearest_factors)

# %% [markdown]
# ### Questions to think about
#
# Each ends in a check that is executed with the solution.
#
# **A** (5 minutes). How many degrees of freedom have four 2 x 2 kernels as a Kronecker product? And a cascade of two 3 x 3 layers, dilations 1 and 3, with three hidden channels? (Think of what leaves (2.12) unchanged.)

# %% tags=["hide-cell"]
four = [draw(2, 2, seed=i) for i in range(4)]
agree("4 * 4 - 3 scales", freedom(product, *four)[1], 13, 0)
free = freedom(cascade, draw(3, 1, 3, 3), draw(1, 3, 3, 3, seed=1))[1]
agree("54 less a 3 x 3 change of basis between the layers", free, 54 - 9, 0)

# %% [markdown]
# **B** (5 minutes). A network pools by 2 four times, on a torus. Which shifts survive? And with pooling by 3 once and by 2 once?


# %% tags=["hide-cell"]
def pools(x, sizes):
    for s in sizes:
        x = F.max_pool2d(conv(x, draw(1, 1, 3, 3), padding="circular"), s)
    for s in sizes[::-1]:
        x = F.interpolate(x, scale_factor=s)
    return x


x = draw(1, 1, 48, 48, seed=3)
for sizes in ((2, 2, 2, 2), (3, 2)):
    shifts = range(1, 25)
    alive = [s for s in shifts if gap(partial(pools, sizes=sizes), x, (0, s)) < 1e-12]
    print(sizes, "survivors up to 24:", alive)

# %% [markdown]
# **C** (10 minutes). You are given the 9 x 9 kernel of a cascade with dilations 1 and 3. Find the two kernels. Why only up to one number?

# %% tags=["hide-cell"]
truth = draw(3, 3, seed=70)
given = product(truth, draw(3, 3, seed=71))
left, right = nearest_kronecker(given, (3, 3))
agree("second layer (x) first layer", torch.kron(left[0], right[0]), given, 1e-12)
factor = (right[0] * truth).sum() / truth.square().sum()
agree("the first layer, up to one factor", right[0], factor * truth, 1e-12)
print("(K1 (x) K0) = (c K1) (x) (K0 / c) for every c")

# %% [markdown]
# **D** (20 minutes). Turn the 9 x 9 Gabor kernel below into a two-layer network with as few hidden channels as an error of 5 % allows.

# %% tags=["hide-cell"]
goal = gabor(0.52)[9:18, 9:18]
for h in range(1, 10):
    left, right = nearest_kronecker(goal, (3, 3), rank=h)
    whole = compose_kernels([right[:, None], left[None]], [1, 3])[0, 0]
    if (whole - goal).norm() < 0.05 * goal.norm():
        break
print(f"{h} hidden channels, {18 * h} weights for 81 taps")

# %% [markdown]
# ## 2.16 What the sources say
#
# The statements of Huszár's note (KR) and four on dilation from the notes behind chapter 3 (CK), numbered as in this book's list of claims, and what this chapter found.
#
# | id | claim | verdict | finding | where |
# |---|---|---|---|---|
# | KR-01 | dilated layers join local and global context at little cost in parameters | holds | At equal depth and equal parameters the dilated stack reaches 69 instead of 17 pixels and labels textures better. A pooling network of equal size comes within 0.08 with fewer products; on thin edges the dilated stack is better. | 2.10 |
# | KR-02 | receptive field l(k-1)+k in layer l | holds if | Holds if the first layer has index l = 0; n plain layers see n(k-1)+1. | 2.2 |
# | KR-03 | definition of the dilated convolution | holds | Equals a product of Fourier transforms with a zero-stuffed kernel; libraries correlate, which does not flip the kernel. Extends to N dimensions. | 2.1 |
# | KR-04 | exponential dilation: linear parameters, exponential field | holds | With dilations d^l the field grows as d^n and the weights as n. | 2.2 |
# | KR-05 | the constraint across the field: no arbitrary behaviour | holds | Three 3 x 3 kernels give 25 degrees of freedom for 729 taps. | 2.7 |
# | KR-06 | dilated convolution = convolution with K (x) E | holds if | Holds if the d-1 trailing zeros are cut off; with them, valid loses d-1 outputs and same shifts the image. | 2.3 |
# | KR-07 | the printed matrix E | corrected | E is d x d with a single 1 at its first entry, whatever the kernel; the printed 5 x 5 matrix is the case d = 5. | 2.3 |
# | KR-08 | the cascade equals the Kronecker kernel | holds | Theorem 2.3, for equal and mixed sizes; the first layer is the right factor. Away from per-layer padding. | 2.4 |
# | KR-09 | assumptions: linear, a x a, dilation a^l, one channel, l = 1..L | corrected | The kernels run from K_0 to K_L, L+1 of them. No padding between layers is a further assumption; a bias adds only a constant. | 2.4 |
# | KR-10 | such cascades parametrise a large kernel as a Kronecker product | holds | With the dilations of (2.8), and only with these if there are to be no holes. | 2.4 |
# | KR-11 | cascades generalise the Kronecker layer | holds | A Kronecker sum over channels and space is a two-layer cascade with one hidden channel a pair of factor channels; the converse needs several products and, where a size has no factors, padding. | 2.6 |
# | KR-12 | 27 x 27 kernels with repeated patterns and hierarchy | holds | All blocks are multiples of one block, at both scales. | 2.7 |
# | KR-13 | self-products are fractal | holds | Block (i, j) of the n-fold self-product is K_ij times the (n-1)-fold one; the carpet has box dimension log 8 / log 3. | 2.7 |
# | KR-14 | channels make the kernels richer | holds | Each hidden channel adds one Kronecker product; nine reach every 9 x 9 kernel, at twice its number of weights. | 2.6 |
# | KR-15 | low rank = a horizontal and a vertical filter | holds | One pair a rank: R pairs for rank R. | 2.8 |
# | KR-16 | a rank-one 27 x 27 filter takes 27 parameters | corrected | It takes 27 + 27 = 54 numbers with 53 degrees of freedom; the Kronecker kernels of that size take 27 with 25. | 2.7 |
# | KR-17 | linear against logarithmic parameter count | holds if | 2n against (a^2 / log a) log n; the logarithm needs n to be a power of a or a product of small factors. | 2.7 |
# | KR-18 | Kronecker looks more natural than rank one | holds if | Decided by error at 270 of 729 numbers, not by looks: Kronecker is nearer to grass, gravel and most patches of chelsea; low rank is nearer to brick, Gabor filters, discs and Gaussians; camera and astronaut are even. | 2.8 |
# | KR-19 | a nonlinearity makes it differ from a Kronecker product | holds | With one ReLU the best single kernel leaves more than half of the output's spread unexplained. | 2.6 |
# | KR-20 | Kronecker only if kernel size and dilation coincide | corrected | One product where each dilation divides the next and is at least the size of the composite below it (with holes if larger); otherwise a sum of at most ceil(s/d)^N products: 4 for 3 x 3 and factor 2. | 2.5 |
# | KR-21 | the paper uses size 3, factor 2; its Equation 3 is the cascade | holds | The same construction with dilation 2^i, so not one product. The context module's 1, 1, 2, 4, 8, 16, 1 sees 67 pixels. | 2.5 |
# | KR-22 | convolution is equivariant to any shift | holds if | Holds on a torus and stride 1; zero padding breaks it near the border, stride s for shifts that s does not divide. | 2.11 |
# | KR-23 | pool and unpool with shortcuts keep pixel accuracy | holds | On an edge map shortcuts win back much of what pooling loses, and stay behind the dilated stack. | 2.10 |
# | KR-24 | pooling may break equivariance | holds | Three poolings by 2 keep exactly the shifts by multiples of 8. It is the subsampling: pooling with stride 1 keeps all. | 2.11 |
# | KR-25 | SegNet reacts to single-pixel shifts | holds | Index unpooling reacts to one pixel by more than the output's spread; shifts by the pooling size survive. Shown on a one-level network. | 2.11 |
# | KR-26 | dilated layers remain equivariant | holds if | All 1,024 shifts of an image survive with circular padding. | 2.11 |
# | KR-27 | dilated networks are fully equivariant | corrected | Only on a torus or without padding. With zero padding only the zero shift survives on all pixels. | 2.11 |
# | KR-28 | 3.6 times fewer parameters for 1 percent | not decidable here | Quoted rightly (the paper: less than 1 percent, on its tasks). On Fashion-MNIST more is reached, also by a narrower full layer, so the ratio alone decides nothing. | 2.9 |
# | KR-29 | padding is a problem at image edges | holds | The fraction of outputs that see padding is (2.19); trained networks differ in that strip from themselves on a larger image. | 2.12 |
# | KR-30 | dilated networks have a bigger edge problem | holds | More outputs touched at equal depth, and more weight outside at equal field; reflection lowers the error a little. Super-resolution itself was not tried. | 2.12 |
# | CK-15 | dilation interleaves zeros: wider, same parameters, blind in between | holds if | One layer is blind at the skipped inputs. A stack without holes is not: other layers reach them. | 2.3, 2.5 |
# | CK-16 | well-chosen dilations let every input be processed | holds if | Exactly when each rate, in rising order, is at most the size of the composite below it; rates 2, 2, 2 or 2, 4, 8 are blind. | 2.5 |
# | CK-17 | dilated networks are sparse; how many maps an input passes is hard to tell | corrected | The number of paths is an entry of the composed kernel of ones; in a plain stack each path passes every layer once. Without holes no input is left out. | 2.5 |
# | CK-18 | kernel size, depth and dilation are tied together | holds if | By two conditions, the sum of the sizes and the rule against holes; for 31 samples 22 schedules of five layers of size 3 satisfy both. | 2.5 |
#
# ## Further reading
#
# - F. Yu and V. Koltun, Multi-scale context aggregation by dilated convolutions, ICLR 2016, [arXiv:1511.07122](https://arxiv.org/abs/1511.07122): the schedule, the context module and its identity start.
# - F. Huszár, [Dilated convolutions and Kronecker factored convolutions](https://www.inference.vc/dilated-convolutions-and-kronecker-factorisation/), 2016: the remark behind this chapter.
# - S. Zhou, J.-N. Wu, Y. Wu and X. Zhou, Exploiting local structures with the Kronecker layer in convolutional networks, [arXiv:1512.09194](https://arxiv.org/abs/1512.09194), 2015.
# - C. Van Loan and N. Pitsianis, Approximation with Kronecker products, 1993, [doi:10.1007/978-94-015-8196-7_17](https://doi.org/10.1007/978-94-015-8196-7_17): the rearrangement.
# - V. Lebedev and others, Speeding-up convolutional neural networks using fine-tuned CP-decomposition, [arXiv:1412.6553](https://arxiv.org/abs/1412.6553): low rank over channels and space.
# - Y. Neuvo, C.-Y. Dong and S. K. Mitra, Interpolated finite impulse response filters, 1984, [doi:10.1109/TASSP.1984.1164348](https://doi.org/10.1109/TASSP.1984.1164348): cascades of sparse and short filters, in signal processing.
# - V. Badrinarayanan, A. Kendall and R. Cipolla, SegNet, [arXiv:1511.00561](https://arxiv.org/abs/1511.00561): pooling with remembered places.
# - P. Wang and others, Understanding convolution for semantic segmentation, [arXiv:1702.08502](https://arxiv.org/abs/1702.08502): gridding and hybrid rates.
# - A. Azulay and Y. Weiss, Why do deep convolutional networks generalize so poorly to small image transformations?, [arXiv:1805.12177](https://arxiv.org/abs/1805.12177): subsampling and shifts.
#
# **In the package.** Each function of this chapter, with its docstring and a way back to its section: [the reference](../book/api.md#chapter-2-dilation-and-kronecker-products).
