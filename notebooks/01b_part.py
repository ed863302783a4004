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
# # 1. Convolution arithmetic, second half
#
# Results of this half: an output sees $1 + \sum (k-1)\,d\,j$ inputs; one multiply-add is two
# floating-point operations, which is why two counters differ by exactly 2; a depthwise layer saves
# operations but hardly any memory traffic, so its time does not follow; convolution is *equivariant*
# to shifts and only a global pooling makes it invariant; a temporal convolutional network of fourteen thousand
# weights recognises spoken digits, and runs chunk by chunk with exactly the offline answer.

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
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

# %%
from ckutils.arithmetic import (
    count_cost,
    count_macs,
    count_parameters,
    network_cost,
    receptive_field,
    receptive_set,
)
from ckutils.checks import agree, digest, source
from ckutils.convolution import conv
from ckutils.datasets import fashion_mnist_small, photo, spoken_digits
from ckutils.plotting import COLOURS, DIVERGING, heatmap, use_style
from ckutils.training import accuracy, count_weights, fit, predict

use_style()

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
print(digest(seen_by_output_1=sorted(nodes)))

# %% [markdown]
# Counting in the picture: the field is 3 wide after the first layer, 5 after the second, 13 after the third;
# from output 0 to output 1 it moves by 2. Each layer adds $(k-1)\,d$ steps, and a step at that layer is as many
# inputs as all strides before it multiply to. With size $r$, jump $j$ and start $a$ (the index of the first
# input seen by output 0), padding $p$ in front, and $r_0 = 1$, $j_0 = 1$, $a_0 = 0$:
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
# The strongest evidence is a network itself: the gradient of one output is not zero exactly at the inputs that it
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

# %% mystnb={"image": {"alt": "Five horizontal strips show which of 64 inputs have a non-zero gradient; brackets drawn from the formula end exactly where each strip ends, and the last strip has a hole."}}
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
# With one convolution a level the factor 2 goes: for $k = 2$ that is $r = 2^n$, a popular rule of thumb, and about half of what a temporal block
# sees. A calculator that leaves the dilation out is right for $d = 1$ only. The last line shows why size alone may mislead: its field is 6 wide and misses two of the six.
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
# Most parameters stand in the last layer and nearly all the work in the first two: the two costs are different questions.
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
# ([pytorch-OpCounter#15](https://github.com/Lyken17/pytorch-OpCounter/issues/15),
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

# %% mystnb={"image": {"alt": "Stem plot of the number of matching letters along the stanza; it reaches 4 at the words bright and night only."}}
fig, ax = plt.subplots(figsize=(7.2, 2.0))
_ = ax.plot(scores, drawstyle="steps-mid", lw=1)
for t in (scores == 4).nonzero().flatten().tolist():
    found = stanza[stanza.rfind(" ", 0, t) + 1 : stanza.find(" ", t)]
    _ = ax.annotate(found, (t, 4), (t + 3, 3.6), color=COLOURS["vermilion"])
    print(f"4 of 4 letters at {t}: {found}")
_ = ax.set(
    xlabel="position of the first letter", ylabel="matching letters", yticks=range(5)
)
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
# so a kernel of rank $R$ is a sum of $R$ separable ones. Six real kernels: which would you dare to separate?

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
fig, axes = plt.subplots(3, 6, figsize=(7.2, 3.9))
missed = {}
for ax, (name, w) in zip(axes.T, kernels.items(), strict=True):
    product = torch.outer(*separate(w)[:2])
    both = [conv(face[None], k[None, None], padding="same")[0] for k in (w, product)]
    missed[name] = round(float((both[0] - both[1]).norm() / both[0].norm()), 2)
    for one, picture in zip(ax, (w, *both), strict=True):
        _ = one.imshow(picture, cmap="gray")
        one.set_axis_off()
    _ = ax[0].set_title(f"{name}, rank {ranks[name]}", fontsize=8)
print(missed)
print(digest(missed=list(missed.values())))

# %% [markdown]
# Top: kernel; middle: photograph through it; bottom: through its best product, and the printed numbers are the relative
# differences. A round Gaussian and an upright Gabor separate exactly. The oblique Gabor has rank 2, because $\cos(a+b) = \cos a
# \cos b - \sin a \sin b$: two separable filters give it exactly. A diagonal motion blur has full rank and no good product. The defocus misses 0.35 of the kernel but little of the photograph,
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
fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.5))
ticks = range(0, 12, 4)
for ax, (name, model) in zip(axes, stages.items(), strict=True):
    _ = heatmap(ax, depends(model).float(), limits=(0, 1))
    _ = ax.set(title=name, xlabel="input channel", ylabel="output channel")
    _ = ax.set(xticks=ticks, yticks=ticks)
    print(digest(**{name.split(",")[0].replace(" ", "_"): depends(model)}))

# %% [markdown]
# One shuffle suffices if each group has at least as many channels as there are groups; with 12 channels in 4 groups of 3 it does not
# (exercise 2).
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
_ = ax.set(ylabel="attained (Gflop/s)")
print(digest(intensity=[flops[name] / traffic[name] for name in flops]))
_ = ax.tick_params(axis="y", which="minor", labelleft=False)
_ = ax.legend(loc="lower right")

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
print(digest(change=list(curves.values())))
agree("convolution is equivariant", curves["moved back"], [0] * 9, tol=1e-6)

# %% [markdown]
# Raw features change by more than half: convolution is **not** invariant. Moved back they are equal, to the last digit:
# it is equivariant. Local pooling is neither: with stride 4 its output can only follow shifts by multiples of 4, and between
# them up to a quarter of it is different, whichever alignment one tries. Only the global pooling is invariant, and only while the face stays
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
# input $s$ not zero, for a whole block?


# %%
def slopes(model, x):
    """(t, s): size of the gradient of output t to input s."""
    x = x.clone().requires_grad_()
    mix = torch.randn(1, 8, 1, generator=torch.Generator().manual_seed(1))
    outputs = (model(x) * mix).sum((0, 1))
    rows = [torch.autograd.grad(y, x, retain_graph=True)[0] for y in outputs]
    return torch.stack(rows).norm(dim=(1, 2))


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
print("gradient to a later input:", leaks)
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
# ## 1.31 Where it breaks: costs and blocks
#
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
# ## 1.32 Exercises, second half
#
# Each ends in a check; a solution is folded below it.
#
# **1.** A network begins with a 7 x 7 convolution of stride 2, a 3 x 3 pooling of stride 2, and then $n$ residual blocks (two 3 x 3 each, stride 1).
# How many blocks are needed until one output sees 100 pixels? Derive it from (1.30), then check it with `receptive_field`.

# %% tags=["hide-cell"]
# after the stem r = 7 + 2 * 2 = 11 and j = 4; a block adds 2 * 2 * 4 = 16
needed = math.ceil((100 - 11) / 16)  # 11 + 16 n >= 100
stem = [(7, 2, 1), (3, 2, 1)]
sizes = [receptive_field(stem + [(3, 1, 1)] * 2 * n).size for n in (needed - 1, needed)]
print(needed, "blocks; one fewer and these see", sizes)
assert sizes[0] < 100 <= sizes[1]

# %% [markdown]
# **2.** How many grouped 1 x 1 layers with shuffles between them are needed until each of 12 outputs depends on all 12 inputs, for 2, 3, 4 and 6 groups?
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
# **3.** Write the oblique Gabor kernel of section 1.20 as the sum of two separable kernels, from $\cos(a + b) = \cos a \cos b - \sin a \sin b$.

# %% tags=["hide-cell"]
side = torch.exp(-(u**2) / 18)
c, s = side * torch.cos(0.85 * u), side * torch.sin(0.85 * u)
two = torch.outer(c, c) - torch.outer(s, s)
agree(
    "two products = the oblique Gabor",
    two / two.abs().sum(),
    kernels["Gabor 45°"],
    tol=1e-6,
)

# %% [markdown]
# **4.** A depthwise separable layer and a dense layer of the same $C_\text{out}$ and $k$: for which $C_\text{out}$ does the first save less than
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
# ## 1.33 What the sources say, second half
#
# | id | claim | verdict | shown in |
# |---|---|---|---|
# | CP-26 | a temporal block is (conv, ReLU, dropout) twice, sum, ReLU | holds: so the listing; published blocks also carry weight normalisation | 1.28, `test_tcn_flax.py` |
# | CP-28 | 1 x 1 on the shortcut only where channels differ | holds | 1.28, `test_temporal.py` |
# | CP-29 | dilation $2^i$ in level $i$, one level a width | holds: field $1 + 2(k-1)(2^n-1)$ | 1.15, 1.28 |
# | CP-30 | the last 1 x 1 maps to $(B, T, 1)$ | holds if `out_features` is 1, else it is $(B, T, \text{out\_features})$ | `test_tcn_flax.py` |
# | CP-31 | the listed TCN is causal and keeps the length | holds | 1.28, `test_temporal.py` |
# | CP-32 | the listing works with its defaults | does not hold: `rngs=None` builds no layer; with `rngs` it works, and the one dropout object draws a new mask at each use | `test_tcn_flax.py` |
# | GD-01 | different filters extract different things, by backpropagation | holds if they start different; equal filters stay equal | 1.26 |
# | GD-02 | local fields, sharing and pooling give translation invariance | corrected: equivariance; invariance by global pooling only | 1.26, 1.27 |
# | GD-03 | channel = feature map; a filter is a stack of kernels and gives one channel | holds | 1.26 |
# | GD-04 | the same features wherever the patch lies | corrected: the same values, at places that move along | 1.27 |
# | GD-09 | parameters $F^2 D_1 K + K$ | holds: divide the weights by the groups | 1.16 |
# | GD-10 | work $M^2 K^2 C_\text{in} C_\text{out}$, summed over layers | holds: divide by the groups; products with padded zeros are counted | 1.16, 1.17 |
# | GD-11 | memory is weights and feature maps | holds if only the result is wanted; training also keeps the input | 1.16 |
# | GD-14 | discarding pooling matters for generative models | not decidable here: a recommendation, without a measurement; text below | text below |
# | GD-16 | a text kernel is as wide as the input is long | does not hold: it would slide nowhere | 1.19 |
# | GD-17 | its width is the embedding size | holds | 1.19 |
# | GD-19 | 1 x 1 reduces depth cheaply, allows a further non-linearity | holds if a non-linearity stands between; two without are one | 1.18 |
# | GD-29 | separable kernels are two vectors; not all kernels are; training may suffer | holds if one channel stands between; with $\min(h, w)$ nothing is lost | 1.20 |
# | GD-30 | depthwise separable = depthwise, then 1 x 1; MobileNet, Xception | holds if one takes Xception as implemented; it is described the other way round | 1.22 |
# | GD-31 | depthwise separable is efficient | holds if operations are meant, $1/C_\text{out} + 1/k^2$; time falls far less | 1.22, 1.23 |
# | GD-32 | groups come from AlexNet; each is an ordinary convolution | holds | 1.21 |
# | GD-33 | flattened convolution | holds: three vectors a filter | 1.22 |
# | GD-34 | shuffled groups | holds: without the shuffle groups never mix | 1.21 |
# | GD-35 | pointwise groups | holds: weights and work fall by $g$ | 1.21 |
# | GD-36 | Inception widens at constant cost | corrected: a fixed budget, by choice of widths; the cost grows with the widths as everywhere | 1.24 |
# | GD-37 | 1 x 1 before 3 x 3 and 5 x 5 avoids a blow-up | holds: 128 M instead of 303 M | 1.24 |
# | GD-38 | residual: $F(x) + x$ | holds if the ReLU after the sum is left out or meets no negative value; else $F = 0$ is not the identity | 1.25, `test_blocks.py` |
# | GD-39 | the identity is easier as a zero residual | holds: in the experiment, for every seed | 1.25 |
# | GD-40 | + adds neither parameters nor complexity | corrected: no parameters, but one addition a value; projections cost both | 1.25 |
# | GD-41 | highway: data-dependent, trained gates | holds: the gate doubles the parameters | 1.25 |
# | GD-42 | gate closed: not residual at all | corrected: true of the carry gate $1 - T$; with $T = 0$ the layer is the identity | 1.25 |
# | GD-43 | attributions | corrected: text below | text below |
#
# **Attributions (GD-43).** The sentence on uneven overlap is from A. Odena, V. Dumoulin, C. Olah, *Deconvolution and checkerboard artifacts*, Distill 2016,
# not from the guide to convolution arithmetic. Dilated convolution is older than DeepLab: the *algorithme à trous* of M. Holschneider et al. (1989); for
# dense prediction with growing rates, F. Yu and V. Koltun (2015). The 1 x 1 convolution is rightly credited to Network in Network, the residual and Inception statements
# to their papers, though "keeping the computational budget constant" is there a design goal. **Generative models (GD-14):** the sentence stands in the CS231n notes; the DCGAN paper recommends strided convolutions instead of pooling, as a guideline
# found by exploration. We did not test it.
#
# ## 1.34 Further reading, second half
#
# - A. Araujo, W. Norris, J. Sim, *Computing receptive fields of convolutional neural networks*, Distill 2019, [doi:10.23915/distill.00021](https://doi.org/10.23915/distill.00021).
# - W. Luo et al., *Understanding the effective receptive field*, [arXiv:1701.04128](https://arxiv.org/abs/1701.04128).
# - M. Lin, Q. Chen, S. Yan, *Network in network*, [arXiv:1312.4400](https://arxiv.org/abs/1312.4400); C. Szegedy et al., *Going deeper with convolutions*, [arXiv:1409.4842](https://arxiv.org/abs/1409.4842).
# - A. Howard et al., *MobileNets*, [arXiv:1704.04861](https://arxiv.org/abs/1704.04861); F. Chollet, *Xception*, [arXiv:1610.02357](https://arxiv.org/abs/1610.02357); X. Zhang et al., *ShuffleNet*, [arXiv:1707.01083](https://arxiv.org/abs/1707.01083); J. Jin et al., *Flattened convolutional neural networks*, [arXiv:1412.5474](https://arxiv.org/abs/1412.5474).
# - K. He et al., *Deep residual learning*, [arXiv:1512.03385](https://arxiv.org/abs/1512.03385), and *Identity mappings*, [arXiv:1603.05027](https://arxiv.org/abs/1603.05027); R. Srivastava et al., *Highway networks*, [arXiv:1505.00387](https://arxiv.org/abs/1505.00387).
# - Y. Kim, *Convolutional neural networks for sentence classification* (TextCNN), [arXiv:1408.5882](https://arxiv.org/abs/1408.5882).
# - S. Bai, J. Z. Kolter, V. Koltun, *An empirical evaluation of generic convolutional and recurrent networks for sequence modeling* (TCN), [arXiv:1803.01271](https://arxiv.org/abs/1803.01271).
# - F. Yu, V. Koltun, *Multi-scale context aggregation by dilated convolutions*, [arXiv:1511.07122](https://arxiv.org/abs/1511.07122); A. Radford et al. (DCGAN), [arXiv:1511.06434](https://arxiv.org/abs/1511.06434).
# - S. Williams, A. Waterman, D. Patterson, *Roofline*, [doi:10.1145/1498765.1498785](https://doi.org/10.1145/1498765.1498785).
