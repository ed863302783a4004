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
# # 3. CKConv: kernels that a network computes
#
# Chapter 1 learned every number of a kernel by itself. Here a small network computes them: ask it for a lag, and it answers with the kernel's value there.
# The kernel becomes a function. It may be as long as the signal, it may be sampled at any rate, and at any irregular set of times.
#
# **What you will find, in a few lines.**
#
# - A kernel network of 31,814 weights serves kernels of 10 or 100,000 lags for 30 × 30 channels; free weights would need 9,000 or 90,000,000. On irregular samples, free weights have no answer at all, a function has the right one.
# - Whether a small network can be the kernel depends on its sines. At equal size and budget, ReLU leaves most of a chirp unlearned; random Fourier features and SIREN fit it.
# - SIREN's initialisation is a fixed point: with phases spread over the circle, pre-activations keep a standard deviation of 1 in every layer. Weight normalisation, attached before the weights are drawn, silently replaces them by weights twelve times too large at $\omega_0 = 30$. The order of two lines decides.
# - An FFT convolution is right from $n = L + K - 1$ on, and `irfft` needs that $n$ again: without it every odd length is wrong.
# - The last layer of a kernel network is linear, so it commutes with the Fourier transform. A layer then transforms 33 signals instead of 900, and never holds its kernels: several times faster than the published formulation, in a tenth of its memory, equal to rounding.
# - A norm over channels *and time* makes a network of causal convolutions see the future. A norm per step does not.
# - At another sampling rate the sum is multiplied by the *step*, 1 over the rate. Notes and papers state the ratio of the raw sums, which is the inverse of the factor to apply.
#
# **What you need.** Chapter 1's convolution, complex numbers, a little torch. The chapter takes about a minute on two CPU cores.

# %%
import math
import statistics
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ckutils.checks import agree, digest, source
from ckutils.ckconv import CKCNN, CKBlock, CKConv
from ckutils.datasets import fashion_mnist_small, photo, spoken_digits, vital_signs
from ckutils.fftconv import causal_conv, causal_conv_depthwise, fft_length
from ckutils.kernel_nets import Mlp, RandomFourierNet, Siren
from ckutils.plotting import COLOURS, heatmap, images, use_style
from ckutils.training import count_weights, fit

use_style()
torch.set_num_threads(1)  # small tensors: a second thread waits more than it works
_ = torch.manual_seed(0)

# %% [markdown]
# ## 3.1 What free weights cannot do
#
# A discrete kernel is a list of numbers, one for each lag $0, 1, \dots, N_K$. That is $N_K + 1$ numbers for each pair of channels, and the output sees the present and $N_K$ past samples, no more.
# Both statements are quickly seen: put a gradient on one output and look where it arrives.

# %%
x = torch.randn(1, 1, 12, requires_grad=True)
weights = torch.tensor([[[4.0, 3.0, 2.0, 1.0]]])  # N_K + 1 = 4 lags, N_K = 3
causal_conv(x, weights, method="direct")[0, 0, 9].backward()
print("gradient of output 9:", [int(v) for v in x.grad[0, 0]])
print("inputs that it sees:", x.grad.nonzero()[:, 2].tolist())

# %% [markdown]
# So the memory is fixed before training, and it is paid for in weights. A network that computes kernel values from the lag has a number of weights that does not know the lag:

# %%
pairs = 30 * 30
net_size = count_weights(Siren(1, pairs)) + 30
print("lags    free weights    kernel network")
for lags in (10, 1000, 100_000):
    print(f"{lags:7,} {pairs * lags + 30:12,} {net_size:16,}")

# %% [markdown]
# The second failure is worse, because no number of weights helps. Samples of a heart rate, of a star, of a customer, do not come on a grid.
# Take a smooth signal $x$ and the kernel $\psi(\tau) = e^{-\tau}$, for which the answer is an integral,
#
# $$
# y(t) = \int_0^{t} \psi(\tau)\, x(t - \tau)\, d\tau. \tag{3.1}
# $$
#
# We sample $x$ at 200 times, once regularly and once at random, and let a list of weights (the kernel at regular lags) and a function (the kernel at the true lags) try.

# %%
def signal(t):
    return np.sin(2 * t) + 0.5 * np.cos(5 * t)


def reference(t, steps=20_000):
    tau = (np.arange(steps) + 0.5) / steps * t  # midpoints of (0, t)
    return np.mean(np.exp(-tau) * signal(t - tau)) * t


rng = np.random.default_rng(0)
regular, step = np.linspace(0, 10, 200, retstep=True)
uneven = np.sort(10 * rng.random(200) ** 1.5)  # denser early on
uneven[0] = 0
queries = np.linspace(2, 10, 60)
truth = np.array([reference(t) for t in queries])


# %%
def by_index(times):
    """Free weights: the kernel value that belongs to "so many samples ago"."""
    seen = [signal(times[times <= t])[::-1] for t in queries]
    taps = np.exp(-np.arange(200) * step)
    return np.array([step * taps[: len(s)] @ s for s in seen])


def by_time(times):
    """A function: the kernel at the true lags, and the trapezoid rule between them."""
    y = []
    for t in queries:
        seen = times[times <= t]
        values = np.exp(-(t - seen)) * signal(seen)
        y.append(np.trapezoid(np.append(values, values[-1]), np.append(seen, t)))
    return np.array(y)


results = {
    "weights, regular": by_index(regular), "weights, irregular": by_index(uneven),
    "function, irregular": by_time(uneven),
}  # fmt: skip
for name, y in results.items():
    rms = np.sqrt(np.mean((y - truth) ** 2))
    print(f"{name:20} rms error below 0.02: {bool(rms < 0.02)}")

# %% mystnb={"image": {"alt": "Two panels. Left: the exponential kernel as eight stems at whole lags and as a smooth curve. Right: the reference integral, on which the function's output lies, while the free weights on irregular samples swing far away."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.6), width_ratios=(2, 3))
_ = left.plot(np.linspace(0, 4, 100), np.exp(-np.linspace(0, 4, 100)), label="function")
_ = left.plot(np.arange(0, 4, 0.5), np.exp(-np.arange(0, 4, 0.5)), "o", label="weights")
_ = left.set(xlabel="lag τ (s)", ylabel="kernel ψ(τ)")
_ = right.plot(queries, truth, color=COLOURS["black"], lw=3, alpha=0.4, label="integral")
for name in ("weights, irregular", "function, irregular"):
    _ = right.plot(queries, results[name], label=name)
_ = right.set(xlabel="time t (s)", ylabel="output y(t)")
_ = (left.legend(), right.legend(loc="upper right"))
print(digest(truth=truth, weights=results["weights, irregular"]))

# %% [markdown]
# The list of weights is not merely inaccurate on irregular samples. "The kernel at lag index 3" has no meaning there.
# It is fair to add what the source notes leave out: one can resample to a grid first, and then weights work again, with the error of the resampling. Section 3.15 compares on real data.
#
# ## 3.2 The definition, and why t − τ and τ are swapped
#
# Write $x_c$ for channel $c$ of the signal, $c = 1, \dots, N_{in}$, and let a network compute from a lag $\tau$ the matrix $\psi(\tau) \in \mathbb{R}^{N_{out} \times N_{in}}$. We start from the continuous sum over all of time:
#
# $$
# (x * \psi)(t) = \sum_{c=1}^{N_{in}} \int_{\mathbb{R}} x_c(\tau)\, \psi_c(t - \tau)\, d\tau. \tag{3.2}
# $$
#
# A check against a closed form: two Gaussians of widths $a$ and $b$ convolve to one of width $\sqrt{a^2 + b^2}$, and channels add.

# %%
tau = torch.linspace(-30, 30, 6001, dtype=torch.float64)
width = torch.tensor([[1.0, 2.0], [1.5, 0.7]], dtype=torch.float64)  # (channel, x or psi)


def gauss(t, s):
    return torch.exp(-(t**2) / (2 * s**2)) / (s * math.sqrt(2 * math.pi))


points = torch.tensor([-1.0, 0.0, 2.5], dtype=torch.float64)
got = [
    sum((gauss(tau, a) * gauss(t - tau, b)).sum() * 0.01 for a, b in width)
    for t in points
]
want = sum(gauss(points, torch.hypot(a, b)) for a, b in width)
agree("quadrature of (3.2) = closed form", torch.stack(got), want, tol=1e-9)

# %% [markdown]
# Sampled, with $x$ taken as 0 outside its $N_X + 1$ samples (the notes write $[n]$ for $\{0, \dots, n\}$, so $[N_X]$ has $N_X + 1$ members), the causal form keeps what has already happened:
#
# $$
# y(t) = \sum_{c} \sum_{\tau = 0}^{t} x_c(\tau)\, \psi_c(t - \tau). \tag{3.3}
# $$
#
# Substituting $\tau \to t - \tau$ renames the terms of a finite sum and changes nothing:
#
# $$
# y(t) = \sum_{c} \sum_{\tau = 0}^{t} x_c(t - \tau)\, \psi_c(\tau). \tag{3.4}
# $$
#
# With a kernel as long as the signal the two are one. They part when the kernel has only $N_K + 1 \le t$ values and somebody shortens the sum to $\tau \le N_K$. Take $x = (1, 2, 3, 4)$ and $\psi = (1, 10)$, so $N_K = 1$:
#
# - shortened (3.4): $y(3) = x(3)\,\psi(0) + x(2)\,\psi(1) = 4 + 30 = 34$, the last two samples;
# - shortened (3.3): $x(0)\,\psi(3) + x(1)\,\psi(2)$: the *first* two samples, and a kernel at lags where it has no values.
#
# The notes observe the second half of this. With a continuous $\psi$ the values $\psi(3), \psi(2)$ do exist, so it runs without an error and answers a different question:

# %%
def psi(lag):
    return 10.0**lag * (lag <= 1)  # 1, 10, then 0


def psi_on(lag):
    return 10.0**lag  # a function goes on beyond N_K


x, n_k, t = np.array([1.0, 2.0, 3.0, 4.0]), 1, 3
lags = np.arange(min(t, n_k) + 1)
print("(3.4) shortened:", (x[t - lags] * psi(lags)).sum())
print("(3.3) shortened:", (x[lags] * psi(t - lags)).sum())
print("(3.3) shortened, psi goes on:", (x[lags] * psi_on(t - lags)).sum())
right = np.arange(t - n_k, t + 1)  # tau = t - N_K, ..., t
print("(3.3) over its last N_K + 1 terms:", (x[right] * psi(t - right)).sum())
print("numpy.convolve:", np.convolve(x, psi(np.arange(2)))[t])

# %% [markdown]
# So (3.3) is right with its *lower* limit raised to $\max(0, t - N_K)$, and (3.4) with its *upper* limit lowered to $\min(t, N_K)$. This book uses the second. For all output channels at once, with $k$ the kernel as a tensor whose entry $[\dots, 0]$ meets the present sample:
#
# $$
# y[b, o, t] = \sum_i \sum_{j = 0}^{\min(t, K - 1)} k[o, i, j]\, x[b, i, t - j]. \tag{3.5}
# $$
#
# A kernel a channel, without mixing, is $y[b, c, t] = \sum_j k[c, j]\, x[b, c, t - j]. \tag{3.6}$
#
# Each $x_c(t - \tau)\,\psi_c(\tau)$ is a vector of $N_{out}$ numbers; adding over time first or over channels first is the same finite sum. The naive loop, the package and torch's own convolution (kernel reversed, zeros on the left) agree:

# %%
x, kernel = torch.randn(2, 3, 20), torch.randn(4, 3, 7)
y = torch.zeros(2, 4, 20)
for t in range(20):
    for j in range(min(t, 6) + 1):
        y[..., t] += x[..., t - j] @ kernel[..., j].T  # eq. (3.5), letter by letter
agree("package", causal_conv(x, kernel), y, tol=1e-5)
agree("torch", F.conv1d(F.pad(x, (6, 0)), kernel.flip(-1)), y, tol=1e-5)
terms = torch.stack([
    F.pad(x, (j, 0))[..., None, :, :20] * kernel[..., j, None] for j in range(7)
])  # fmt: skip
agree("channels first", terms.sum(-2).sum(0), terms.sum(0).sum(-2), tol=1e-5)

# %% [markdown]
# The *centred* form looks both ways. As the notes print it, $\sum_{\tau = -N_X/2}^{N_X/2} x(\tau)\, \psi(t - \tau)$, the index of $x$ runs through negative values, while $x$ lives on $0, \dots, N_X$: it reads half of the signal.
# What is meant shifts the kernel, not the signal: $y(t) = \sum_{\tau} x(t - \tau)\, \psi(\tau)$ with $\tau$ from $-N_K/2$ to $N_K/2$.

# %%
x, half = np.arange(1.0, 9.0), 2
taps = np.array([1.0, 2.0, 4.0, 2.0, 1.0])  # psi(-2), ..., psi(2)


def at(array, i):
    return array[i] if 0 <= i < len(array) else 0.0


printed = [
    sum(at(x, s) * at(taps, t - s + half) for s in range(-4, 5)) for t in range(8)
]
meant = [
    sum(at(x, t - s) * taps[s + half] for s in range(-half, half + 1)) for t in range(8)
]
agree("over lags = numpy 'same'", meant, np.convolve(x, taps, "same"), tol=0)
print("as printed differs at t =", np.flatnonzero(np.array(printed) != meant).tolist())

# %% [markdown]
# ## 3.3 The same sum in attention
#
# Attention writes each output as a weighted sum of all values, too. For token $i$ of $n$, with queries $q_i$, keys $k_j$ and values $v_j$,
#
# $$
# \phi(x_i) = \sum_{j=1}^{n} \alpha_{ij}\, v_j, \qquad \alpha_{ij} = \frac{e^{q_i \cdot k_j}}{\sum_{j'} e^{q_i \cdot k_{j'}}}. \tag{3.7}
# $$
#
# The weights carry *two* indices. (The notes drop the $i$; then all tokens would get one and the same output.) Both layers multiply the signal by an $n \times n$ matrix. What differs is where its numbers come from:
# for a convolution from the lag $i - j$ alone, the same for every input; for attention from the content of both tokens, anew for every input.

# %%
tokens = torch.randn(2, 8, 4)  # two inputs of eight tokens
layer = CKConv(1, 1, horizon=8, omega_0=5.0, bias=False)
lag = torch.arange(8)[:, None] - torch.arange(8)
taps = layer.kernel(8)[0, 0].detach()
conv_matrix = torch.where(lag >= 0, taps[lag.clamp(min=0)], 0)
attention = torch.softmax(tokens @ tokens.mT, dim=-1)  # queries = keys = tokens
without_i = attention[0].mean(0).expand(8, 8) @ tokens[0]  # one row for all i

want = layer(tokens[:1].mT.reshape(4, 1, 8)).detach()[:, 0]
agree("CKConv is its matrix", (conv_matrix @ tokens[0]).T, want, tol=1e-5)
spread = (attention[0] @ tokens[0]).std(0).max()
print("outputs of different tokens differ, with i:", bool(spread > 0.5))
print("and without i:", bool(without_i.std(0).max() > 1e-5))
print("attention differs between inputs:", not torch.allclose(*attention))

# %% mystnb={"image": {"alt": "Three 8 by 8 matrices: the CKConv matrix with constant diagonals and zeros above the diagonal, and two different attention matrices without any pattern along diagonals."}}
fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.5))
panels = {"CKConv, every input": conv_matrix, "attention, input 1": attention[0]}
panels["attention, input 2"] = attention[1]
for ax, (title, matrix) in zip(axes, panels.items(), strict=True):
    _ = heatmap(ax, matrix.numpy(), label="weight")
    _ = ax.set(title=title, xlabel="read at step j", ylabel="written at step i")
print(digest(conv=conv_matrix, attention_1=attention[0], attention_2=attention[1]))

# %% [markdown]
# What follows for what each can express, executed: reorder the tokens and attention reorders its outputs (it does not know where a token stands, unless positions are added to the content); a convolution does not.
# Scale the input and the convolution's output scales; attention's does not. Neither contains the other.

# %%
order = torch.randperm(8)


def attend(x):
    return torch.softmax(x @ x.mT, dim=-1) @ x


x = tokens[0]
agree("attention follows any order", attend(x[order]), attend(x)[order], tol=1e-5)
moved = torch.allclose(conv_matrix @ x[order], (conv_matrix @ x)[order], atol=1e-3)
print("convolution follows any order:", moved)
agree("convolution is linear", conv_matrix @ (3 * x), 3 * (conv_matrix @ x), tol=1e-5)
print("attention is linear:", torch.allclose(attend(3 * x), 3 * attend(x), atol=1e-3))

# %% [markdown]
# ## 3.4 Which functions can a small network be?
#
# A kernel network is only as good as the functions that it can become. Three families, all with two hidden layers of 32:
#
# $$
# h \leftarrow \sigma(W h + b) \quad \text{with } \sigma \text{ ReLU, LeakyReLU or Swish}; \tag{3.13}
# $$
#
# $$
# h \leftarrow \sin\big(\omega_0\, (W h + b)\big), \quad \omega_0 \text{ fixed}; \tag{3.14}
# $$
#
# $$
# h \leftarrow (\cos 2\pi B x,\ \sin 2\pi B x) \quad \text{with a fixed random } B, \text{ then (3.13)}; \tag{3.15}
# $$
#
# each followed by a linear readout. Six targets on $[-1, 1]$, 256 points, the same number of steps of Adam. All networks of a family train at once, with `torch.func.vmap`: eighteen of them, six targets by three seeds.

# %%
from torch.func import functional_call, stack_module_state, vmap

t = torch.linspace(-1, 1, 256)
noise = torch.randn(256, generator=torch.Generator().manual_seed(0))
targets = {
    "smooth": torch.exp(-4 * t**2),
    "chirp": torch.sin(2 * math.pi * (2 * t + 4 * (t + 1) ** 2)),
    "saw": 2 * ((4 * t) % 1) - 1,
    "step": torch.sign(t + 0.2),
    "sines": sum(torch.sin(k * math.pi * t) for k in (6, 22, 50)),
    "noise": noise,
}
wanted = torch.stack(list(targets.values()))
wanted = (wanted - wanted.mean(1, keepdim=True)) / wanted.std(1, keepdim=True)
families = {
    "ReLU": (lambda: Mlp(1, 1, activation="relu", weight_norm=False), 1e-2),
    "LeakyReLU": (lambda: Mlp(1, 1, activation="leaky_relu", weight_norm=False), 1e-2),
    "Swish": (lambda: Mlp(1, 1, activation="swish", weight_norm=False), 1e-2),
    "Fourier": (lambda: RandomFourierNet(1, 1, weight_norm=False), 3e-3),
    "SIREN": (lambda: Siren(1, 1, weight_norm=False), 3e-3),
}


# %%
def train_together(make, rate, *, goals, seeds=3, steps=400, seed=0):
    """Fit one network a goal and seed, all in one vmap; -> their curves."""
    torch.manual_seed(seed)
    nets = [make() for _ in range(seeds * len(goals))]
    weights, buffers = stack_module_state(nets)
    weights = {k: v.detach().requires_grad_() for k, v in weights.items()}
    optimiser = torch.optim.Adam(weights.values(), rate)

    def curve(weights, buffers):
        return functional_call(nets[0], (weights, buffers), (t[:, None],))[..., 0]

    for _ in range(steps):
        curves = vmap(curve)(weights, buffers)
        loss = (curves - goals.repeat(seeds, 1)).square().mean(1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return curves.detach().unflatten(0, (seeds, -1))


# %%
curves = {}
for name, (make, rate) in families.items():
    curves[name] = train_together(make, rate, goals=wanted)
missed = {n: (c - wanted).square().mean(2) for n, c in curves.items()}  # (seed, goal)
print(f"{'weights':>17} " + " ".join(f"{goal:>7}" for goal in targets))
for name, (make, _) in families.items():
    fits = missed[name].amax(0) < 0.2  # in every seed
    row = " ".join(f"{'fits' if ok else '-':>7}" for ok in fits)
    print(f"{name:10}{count_weights(make()):7} {row}")

# %% [markdown]
# "Fits" means that less than 20 % of the target's variance is left, in each of three seeds. Where does a network fail? The spectra answer: at high frequencies.

# %% mystnb={"image": {"alt": "Two rows of panels for chirp and saw. Left: the target with the ReLU fit, which follows only the slow part, and the SIREN fit, which lies on it. Right: spectra of the residuals; that of ReLU equals the target's above 5 cycles, that of SIREN is far below."}}
fig, axes = plt.subplots(2, 2, figsize=(7.2, 4.2), width_ratios=(3, 2))
residual = {}
for row, goal in zip(axes, ("chirp", "saw"), strict=True):
    g = list(targets).index(goal)
    _ = row[0].plot(t, wanted[g], color=COLOURS["black"], alpha=0.4, lw=3, label=goal)
    for name in ("ReLU", "Fourier", "SIREN"):
        fit_curve = curves[name][0, g]
        _ = row[0].plot(t, fit_curve, label=name, lw=1)
        residual[name] = torch.fft.rfft(wanted[g] - fit_curve).abs() / 128
        _ = row[1].semilogy(torch.arange(129) / 2, residual[name] + 1e-6, label=name, lw=1)
    _ = row[0].set(ylabel=goal, xlabel="position")
    _ = row[1].set(xlabel="cycles a unit", ylabel="error", xlim=(0, 40), ylim=(1e-5, 2))
_ = axes[0, 0].legend(ncols=2, loc="lower left")
print("ReLU errs most at cycles a unit:", float(residual["ReLU"].argmax()) / 2)

# %% [markdown]
# The notes say that piece-wise activations, among which they count Swish, are *unable* to model high frequencies. Two corrections.
# Swish is smooth, and all its derivatives are; it fails alike, so kinks are not the cause. And *unable* is too strong: 127 ReLUs hold any piecewise linear function of 128 knots exactly. Training does not find it in this budget.

# %%
knots, chirp = t[::2], wanted[1][::2]
slopes = torch.diff(chirp) / torch.diff(knots)
bends = torch.cat([slopes[:1], torch.diff(slopes)])  # one ReLU a knot but the last


def hinges(x):
    return chirp[0] + (x[:, None] - knots[:-1]).clamp(min=0) @ bends


error = (hinges(t) - wanted[1]).square().mean()
agree("hinges meet every knot", hinges(knots), chirp, tol=1e-3)
print("127 ReLUs leave less than 5 % of the chirp:", bool(error < 0.05))

# %% [markdown]
# The same holds for time: with fixed waves at frequencies that the target does not have, random Fourier features fail too, and a SIREN at $\omega_0 = 1$ is as slow as a ReLU network. The prior has to fit. That is what Section 3.6 turns into a rule.

# %%
slow = {
    "Fourier, bandwidth 0.3": lambda: RandomFourierNet(1, 1, bandwidth=0.3, weight_norm=False),
    "SIREN, omega_0 = 1": lambda: Siren(1, 1, omega_0=1.0, weight_norm=False),
}
for name, make in slow.items():
    left = train_together(make, 3e-3, goals=wanted[1:2], seeds=2)
    share = (left - wanted[1]).square().mean(2).amin()
    print(f"{name:24} leaves more than half of the chirp: {bool(share > 0.5)}")

# %% [markdown]
# **An implicit representation, whose target nobody gives.** Fitting a network to a known function is what the literature calls an implicit neural representation. A CKConv does the same, but learns the function only through inputs and outputs of a convolution. Both routes, same network, same target kernel:

# %%
target = torch.exp(-3 * (1 - t)) * torch.cos(8 * math.pi * t)  # a decaying kernel
target = target.flip(0)[None, None]  # lag 0 at position +1
sound = torch.randn(16, 1, 256)
heard = causal_conv(sound, target)
found = {}
for route in ("regression", "input and output"):
    torch.manual_seed(0)
    layer = CKConv(1, 1, horizon=256, bias=False)
    optimiser = torch.optim.Adam(layer.parameters(), 3e-3)
    for _ in range(300):
        known = route == "regression"
        got, want = (layer.kernel(256), target) if known else (layer(sound), heard)
        loss = (got - want).square().mean() / want.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found[route] = layer.kernel(256).detach()
for route, kernel in found.items():
    share = (kernel - target).square().mean() / target.square().mean()
    print(f"{route:17} leaves less than 2 % of the kernel: {bool(share < 0.02)}")

# %% [markdown]
# ## 3.5 An image as a function
#
# Two positions in, a brightness out: a photograph becomes a network. It can be asked between pixels, and differentiated. We fit 256 × 256 pixels with a SIREN of three layers of 64.

# %%
picture = photo("camera")
axis = torch.linspace(-1, 1, 256)
grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)  # (256, 256, 2)
torch.manual_seed(0)
image_net = Siren(2, 1, hidden_features=64, hidden_layers=3)
history = fit(
    image_net, F.mse_loss, grid.flatten(0, 1), picture.flatten()[:, None],
    epochs=14, batch_size=4096, learning_rate=2e-3, schedule=lambda done: 1 - done,
)  # fmt: skip
with torch.no_grad():
    drawn = image_net(grid)[..., 0]
psnr = -10 * torch.log10((drawn - picture).square().mean())
print("weights:", count_weights(image_net), " pixels:", picture.numel())
print("PSNR above 21 dB:", bool(psnr > 21))

# %% [markdown]
# Its gradient comes from autograd, exact up to rounding. We compare with a central difference of the network itself, and look at the picture's edges without having subtracted any pixels:

# %%
at = grid[::2, ::2].reshape(-1, 2).double().requires_grad_()
double = Siren(2, 1, hidden_features=64, hidden_layers=3).double()
double.load_state_dict(image_net.state_dict())
(slope,) = torch.autograd.grad(double(at).sum(), at)
h = 1e-5
shift = torch.tensor([[0.0, h]], dtype=torch.float64)
with torch.no_grad():
    difference = (double(at + shift) - double(at - shift))[:, 0] / (2 * h)
size = float(slope.abs().max())
agree("autograd = central difference", slope[:, 1], difference, tol=1e-5 * size)

# %% mystnb={"image": {"alt": "Three square pictures: the photograph of a cameraman, the slightly smoother network's picture of it, and the magnitude of the network's gradient, bright along the outlines."}}
edges = slope.norm(dim=1).view(128, 128).float()
pictures = {"photograph": picture[::2, ::2], "network": drawn[::2, ::2].clamp(0, 1)}
figure = images({**pictures, "network, |gradient|": edges / edges.max()}, columns=3)
print(digest(photograph=picture))

# %% [markdown]
# **Super-resolution and compression** are the promises made for such representations. We hold them to numbers: fit the photograph at 64 × 64, ask at 256 × 256, and compare with bicubic interpolation of the same 64 × 64 pixels.

# %%
small = F.avg_pool2d(picture[None], 4)[0]  # (64, 64), pixel centres inside
centre = (torch.arange(64) + 0.5) / 32 - 1
fine = (torch.arange(256) + 0.5) / 128 - 1
coarse_grid = torch.stack(torch.meshgrid(centre, centre, indexing="ij"), -1)
fine_grid = torch.stack(torch.meshgrid(fine, fine, indexing="ij"), -1)
torch.manual_seed(0)
small_net = Siren(2, 1, hidden_features=64, hidden_layers=3, omega_0=15.0)
_ = fit(
    small_net, F.mse_loss, coarse_grid.flatten(0, 1), small.flatten()[:, None],
    epochs=150, batch_size=4096, learning_rate=2e-3, schedule=lambda done: 1 - done,
)  # fmt: skip
with torch.no_grad():
    larger = {"network": small_net(fine_grid)[..., 0]}
shape = dict(size=(256, 256), mode="bicubic", align_corners=False)
larger["bicubic"] = F.interpolate(small[None, None], **shape)[0, 0]
error = {name: (p - picture).square().mean().sqrt() for name, p in larger.items()}
print("network at 256 x 256 beats bicubic:", bool(error["network"] < error["bicubic"]))
print("bytes of the 256 x 256 network, and of the image as 8-bit pixels:")
print(4 * count_weights(image_net), picture.numel())

# %% [markdown]
# So the continuous picture exists and is differentiable. It is not automatically a better picture than bicubic interpolation: between pixels nothing but the prior decides. And with 32-bit weights it takes less room than raw pixels here, with a visible loss; that is not yet a comparison with JPEG.

# %% [markdown]
# ## 3.6 SIREN: where it starts, what omega_0 does, and what weight normalisation undoes
#
# **Which initialisation is right, the paper's or the code's, and what of the biases?** ([siren#57](https://github.com/vsitzmann/siren/issues/57), [siren#49](https://github.com/vsitzmann/siren/issues/49), [siren-pytorch#1](https://github.com/lucidrains/siren-pytorch/issues/1))
#
# Let a layer receive $h = \sin(\cdot)$ with phases spread evenly over the circle. Then $E[h^2] = \tfrac12$, whatever the argument was. With weights drawn evenly from $(-c, c)$, whose variance is $c^2/3$, the pre-activation $z = \omega_0 W h$ of $n$ inputs has
#
# $$
# \operatorname{Var}(z) = \omega_0^2 \cdot n \cdot \frac{c^2}{3} \cdot \frac12 = 1 \quad\Longleftrightarrow\quad c = \frac{1}{\omega_0}\sqrt{\frac{6}{n}}. \tag{3.16}
# $$
#
# By hand, for $n = 32$ and $\omega_0 = 30$: $c = \sqrt{6/32}/30 = 0.433/30 = 0.0144$. The first layer is different: its input is the position, and $(-1/d, 1/d)$ lets $\omega_0$ alone decide how often the sines turn.
#
# The phases are where paper, code and descendants differ. In (3.14) $\omega_0$ multiplies the bias too, so a bias from $(-\pi/\omega_0, \pi/\omega_0)$ is a phase anywhere on the circle, and (3.16) holds in *every* layer, exactly in expectation. Without phases, $E[\sin^2 z]$ of a Gaussian $z$ is $(1 - e^{-2})/2 = 0.43$, and each layer loses a little:

# %%
def spreads(net, biases=True):
    """Standard deviation of the pre-activations omega_0 W h, biases apart, by layer."""
    h, out = torch.linspace(-1, 1, 1000)[:, None], []
    for layer in net.hidden:
        z = net.omega_0 * h @ layer.weight.detach().T
        out.append(float(z.std()))
        h = torch.sin(z + biases * net.omega_0 * layer.bias.detach())
    return out


deep = dict(hidden_layers=6, hidden_features=32)
starts = {
    "ours": (lambda: Siren(1, 1, **deep), True),
    "ours, no biases": (lambda: Siren(1, 1, **deep), False),
    "as published": (lambda: Siren(1, 1, init="as-published", **deep), True),
    "published, no weight norm": (
        lambda: Siren(1, 1, init="as-published", weight_norm=False, **deep), True),
}  # fmt: skip
depth = {}
for name, (make, biases) in starts.items():
    rows = []
    for seed in range(20):
        torch.manual_seed(seed)
        rows.append(spreads(make(), biases))
    depth[name] = torch.tensor(rows).mean(0)
    print(f"{name:26}", [f"{v:.1f}" for v in depth[name].tolist()])

# %% mystnb={"image": {"alt": "Standard deviation of pre-activations against layer number, logarithmic. Ours stays at 1 from the second layer on; without biases it falls slowly below 0.9; as published it stays at 12."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.7))
for name, values in depth.items():
    _ = left.semilogy(range(1, 7), values, "o-", label=name, ms=4)
_ = left.axhline(1, color=COLOURS["black"], lw=0.8)
_ = left.set(xlabel="layer", ylabel="std of pre-activations")
_ = left.legend(loc="center right", fontsize=7)
for name, init in (("ours", "siren"), ("as published", "as-published")):
    torch.manual_seed(1)
    net = Siren(1, 1, init=init)
    value = net(t[:, None])[:, 0].detach()
    _ = right.plot(t, (value - value.mean()) / value.std(), label=name, lw=1)
_ = right.set(xlabel="position", ylabel="kernel at the start")
_ = right.legend(loc="upper right")
in_band = (depth["ours"][1:] - 1).abs().max() < 0.1
print("ours within 10 % of 1 in layers 2 to 6:", bool(in_band))

# %% [markdown]
# The first layer's own spread, about 10 radians at $\omega_0 = 30$, is no accident: it is the bandwidth. What the biases add is a phase: it shifts each sine and leaves the spread of $z$ over positions alone. Drawn from $(-1, 1)$ as published, times 30, it turns each phase many times round: evenly spread as well.
#
# **Does weight_norm silently discard the initialisation I set?** ([TCN#1](https://github.com/locuslab/TCN/issues/1), [hifi-gan#145](https://github.com/jik876/hifi-gan/issues/145))
# Weight normalisation learns a row $w$ of weights as length times direction,
#
# $$
# w = g\, \frac{v}{\lVert v \rVert}. \tag{3.17}
# $$
#
# From then on `weight` is computed from $g$ and $v$, and whatever is written into the computed tensor is gone at the next forward. The released CKConv code attaches the norm first and draws the SIREN weights second:

# %%
from torch.nn.utils.parametrizations import weight_norm

bound = math.sqrt(6 / 32) / 30
wrong, right_order = nn.Linear(32, 32), nn.Linear(32, 32)
wrong = weight_norm(wrong)
_ = nn.init.uniform_(wrong.weight.detach(), -bound, bound)  # into a computed tensor
_ = nn.init.uniform_(right_order.weight.detach(), -bound, bound)
right_order = weight_norm(right_order)  # g and v are taken from the weights drawn
for name, layer in {"norm, then draw": wrong, "draw, then norm": right_order}.items():
    _ = layer(torch.zeros(1, 32))  # the first forward
    print(f"{name}: largest weight {float(layer.weight.detach().abs().max()):.4f}")
print(f"sqrt(6/32)/30 = {bound:.4f}, torch's own start 1/sqrt(32) = {32**-0.5:.4f}")

# %% [markdown]
# Twelve times larger weights are an $\omega_0$ twelve times larger in all layers but the first. So the published values of $\omega_0$ belong to *that* start. `Siren(init="siren")` draws first, `init="as-published"` starts as the released code does. How do they train? Fit two targets on every second of their points, and look also at the points between, in three seeds, with weight normalisation and without it:

# %%
modes = {
    "ours, weight norm": lambda: Siren(1, 1),
    "ours, without": lambda: Siren(1, 1, weight_norm=False),
    "as published": lambda: Siren(1, 1, init="as-published"),
}
early, between = {}, {}
for name, make in modes.items():
    for goal, row in zip(("smooth", "chirp"), wanted[:2], strict=True):
        results = []
        for seed in range(3):
            torch.manual_seed(seed)
            net = make()
            run = fit(net, F.mse_loss, t[::2, None], row[::2, None], seed=seed,
                      epochs=200, batch_size=128, learning_rate=3e-3)  # fmt: skip
            curve = net(t[:, None])[:, 0].detach()
            miss = float((curve - row)[1::2].square().mean())
            results.append((run.losses[50], run.losses[-1], miss))
        early[name, goal], last, between[name, goal] = map(max, zip(*results, strict=True))
        print(f"{name:18} {goal:7} fits: {last < 0.05!s:6} "
              f"and in between: {between[name, goal] < 0.05}")  # fmt: skip

# %% [markdown]
# As published, the network meets every point that it has seen, and swings freely between them: its kernel is noise that happens to pass through the data. On one fixed grid nobody notices, and as a start for a kernel it may even help. A kernel that shall be sampled at another rate needs the other start.
#
# The notes recommend weight normalisation because it converges faster. At one learning rate and on these fits it is slower: after 50 steps the normalised network has the larger loss on both targets, in the worst of three seeds. (Its steps move lengths and directions of rows that have size 0.05, not their entries.)

# %%
for goal in ("smooth", "chirp"):
    with_norm, without = early["ours, weight norm", goal], early["ours, without", goal]
    print(f"{goal}: slower with weight norm by more than 10: {with_norm > 10 * without}")

# %% [markdown]
# **How do I choose omega_0, and is it only a rescaling of the input?** ([siren#4](https://github.com/vsitzmann/siren/issues/4), [ckconv#8](https://github.com/dwromero/ckconv/issues/8), [ccnn#4](https://github.com/david-knigge/ccnn/issues/4))
# At the start, yes. Multiply the first layer's argument by $\omega_0$: that scales the position. In later layers $\omega_0$ meets weights that were divided by it. Only the readout, divided as well, is smaller:
#
# $$
# f_{\omega_0}(x) = \tfrac{1}{\omega_0} f_1(\omega_0 x) \quad \text{at the start, for the same random draw.} \tag{3.18}
# $$
#
# In training, no: a step of size $\eta$ on a hidden weight moves its product with $\omega_0$ by $\omega_0 \eta$. Same function, other dynamics.

# %%
def started(omega_0):
    torch.manual_seed(3)
    return Siren(1, 1, omega_0=omega_0, weight_norm=False).double()


one, thirty = started(1.0), started(30.0)
x = torch.linspace(-1, 1, 101, dtype=torch.float64)[:, None]
agree("(3.18)", 30 * thirty(x).detach(), one(30 * x).detach(), tol=1e-5)
for net, scale in ((one, 1.0), (thirty, 30.0)):
    (scale * net(x * 30 / net.omega_0)).square().sum().backward()
grads = [n.hidden[1].weight.grad.norm() for n in (one, thirty)]
print("gradient in the hidden weights, ratio:", round(float(grads[1] / grads[0]), 1))

# %% [markdown]
# And what does it do to the spectrum? A sine of the first layer, $\sin(\omega_0 w x)$ with $|w| \le 1$, turns at most $\omega_0/2\pi$ times a unit of position. The second layer is $\sin(z)$ with $z$ of spread one, which adds combinations, mainly of third order: about three times that band holds nearly everything. On a grid of $L$ lags the finest wave that can be told apart has $L/4$ cycles a unit, so
#
# $$
# \text{band} \approx \frac{\omega_0}{2\pi}, \qquad \omega_0 \lesssim \frac{\pi}{2} \cdot \frac{L}{3} \quad\text{to stay below the grid.} \tag{3.19}
# $$

# %% mystnb={"image": {"alt": "Left: mean spectra of random SIREN kernels for four values of omega_0; each falls off beyond omega_0 over 2 pi. Right: the frequency below which 90 percent of the power lies grows in proportion to omega_0, until the grid ends it."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.6))
dense = torch.linspace(-1, 1, 2048)[:, None]
omegas, edges_90 = [3.0, 10.0, 30.0, 100.0, 300.0], []
for omega_0 in omegas:
    torch.manual_seed(0)
    value = Siren(1, 200, omega_0=omega_0)(dense).detach()
    power = torch.fft.rfft(value - value.mean(0), dim=0).abs().square().mean(1)
    share = power.cumsum(0) / power.sum()
    edges_90.append(float((share < 0.9).sum()) / 2)  # cycles a unit: length 2
    _ = left.loglog(torch.arange(1, 1025) / 2, power[1:] / power.sum(), lw=1,
                    label=f"$\\omega_0$ = {omega_0:.0f}")  # fmt: skip
_ = left.set(xlabel="cycles a unit of position", ylabel="share of power", ylim=(1e-7, 1))
_ = left.legend(loc="lower left", fontsize=7)
_ = right.loglog(omegas, edges_90, "o-", label="90 % of the power")
_ = right.loglog(omegas, [w / 2 / math.pi for w in omegas], "--", label="$\\omega_0/2\\pi$")
_ = (right.set(xlabel="$\\omega_0$", ylabel="cycles a unit"), right.legend())
ratio = [e / (w / 2 / math.pi) for e, w in zip(edges_90, omegas, strict=True)]
print("90 % lies below a multiple of omega_0 / 2 pi:", all(0.5 < r < 3 for r in ratio[1:]))

# %% [markdown]
# The fit error follows: too small an $\omega_0$ cannot reach the target's frequencies, too large a one fills the space between the samples with waves of its own. The chirp has up to 18 cycles a unit, so (3.19) asks for an $\omega_0$ near $2\pi \cdot 18/3 \approx 38$. We train on every second point and test on the others:

# %%
share = {}
for omega_0 in (3.0, 30.0, 200.0):
    torch.manual_seed(0)
    net = Siren(1, 1, omega_0=omega_0, weight_norm=False)
    _ = fit(net, F.mse_loss, t[::2, None], wanted[1][::2, None], epochs=400,
            batch_size=128, learning_rate=1e-3)  # fmt: skip
    curve = net(t[:, None])[:, 0].detach()
    share[omega_0] = [float((curve - wanted[1])[k::2].square().mean()) for k in (0, 1)]
for omega_0, (seen, unseen) in share.items():
    print(f"omega_0 {omega_0:3.0f}: fits {seen < 0.1!s:5}  fits in between {unseen < 0.1}")

# %% [markdown]
# ## 3.7 Positions in [-1, 1], and how far a kernel reaches
#
# A network dislikes inputs of 0 to 16,000. Lag $\tau$ of a kernel that reaches over $H$ samples (its *horizon*) is put at
#
# $$
# p(\tau) = 1 - \frac{2 \tau}{H - 1}, \qquad \tau = 0, \dots, H - 1, \tag{3.20}
# $$
#
# so the present stands at $+1$ and the farthest past at $-1$, as in the released code. Worked out for $H = 5$: lags 0 to 4 stand at 1, 1/2, 0, −1/2, −1. What must never happen is that $H$ follows the length of the *test* signal: then every lag moves, and the kernel is stretched.

# %%
layer = CKConv(2, 3)
_ = layer(torch.randn(1, 2, 50))
print("horizon, set by the first signal:", layer.horizon)
short = layer.kernel(50).detach()
_ = layer(torch.randn(1, 2, 80))
agree("a longer signal moves no lag", layer.kernel(80)[..., :50].detach(), short, tol=0)
stretched = CKConv(2, 3, kernel_net=layer.kernel_net, horizon=80).kernel(80).detach()
moved = (stretched[..., :50] - short).abs().max() / short.abs().max()
print("had the horizon followed, lags would change by more than half:", bool(moved > 0.5))

# %% [markdown]
# One network, kernels of any length, and the last output reaches back to the first input with a gradient that is just another kernel value; depth multiplies such values, so *vanishing* is a question of the kernel and not ruled out:

# %%
net_a, reach = Siren(1, 1), {}
for length in (10, 1000, 100_000):
    layer = CKConv(1, 1, kernel_net=net_a, horizon=length, bias=False)
    kernel = layer.kernel(length).detach()
    reach[length] = float(kernel[0, 0, -1].abs() / kernel.abs().max())
print("weights at every length:", count_weights(net_a))
print("the farthest lag weighs above 1e-3 of the largest:", min(reach.values()) > 1e-3)
decay = 0.9 ** torch.arange(1000.0)  # a linear recurrence's kernel, for comparison
print("0.9^1000 in a recurrence below 1e-40:", bool(decay.double()[-1] < 1e-40))

# %% [markdown]
# ## 3.8 Long kernels by Fourier transform, and where the padding is
#
# A kernel as long as the signal makes (3.5) cost $L^2$ products for each pair of channels. The discrete Fourier transform turns a *circular* convolution of length $n$ into $n$ products,
#
# $$
# \operatorname{DFT}(u \circledast v)[f] = \operatorname{DFT}(u)[f] \cdot \operatorname{DFT}(v)[f], \qquad (u \circledast v)[t] = \sum_{j=0}^{n-1} u[(t - j) \bmod n]\, v[j], \tag{3.9}
# $$
#
# and costs about $n \log_2 n$. Circular means that what leaves at the end comes in again at the beginning. A signal of $L$ samples and a kernel of $K \le L$ fill $L + K - 1$ places, so nothing wraps onto anything if
#
# $$
# n \ge L + K - 1. \tag{3.10}
# $$
#
# By hand: $x = (1, 0, 2)$, $k = (3, 2, 1)$. The full convolution is $(3, 2, 7, 4, 2)$. With $n = 4$ the last entry, 2, wraps onto the first: $(5, 2, 7, 4)$. With $n = 5$ it fits.
#
# **Why pad to twice the length, is one sample less enough, and where is the padding in the code?** ([safari#4](https://github.com/HazyResearch/safari/issues/4), [safari#47](https://github.com/HazyResearch/safari/issues/47), [s4#103](https://github.com/state-spaces/s4/issues/103), [ThinkDSP#11](https://github.com/AllenDowney/ThinkDSP/issues/11))
# The padding is the argument `n` of `rfft`: zeros are appended up to it. $2L$ is enough, $2L - 1$ is, and for $K < L$ so is less. Every length, measured:

# %% mystnb={"image": {"alt": "Largest error of a circular convolution against its FFT length from 100 to 130 on a logarithmic axis: order one up to 118, and from 119, which is L plus K minus 1, rounding error only."}}
x = torch.randn(100, dtype=torch.float64)
taps = torch.randn(20, dtype=torch.float64)
exact = torch.from_numpy(np.convolve(x, taps))[:100]
lengths, wrap = range(100, 131), []
for n in lengths:
    y = torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(taps, n), n)[:100]
    wrap.append(float((y - exact).abs().max()))
fig, ax = plt.subplots(figsize=(7.2, 2.3))
_ = ax.semilogy(lengths, wrap, "o-", ms=3)
_ = ax.axvline(119, color=COLOURS["vermilion"], lw=1, label="L + K − 1 = 119")
_ = (ax.set(xlabel="FFT length n (samples)", ylabel="largest error"), ax.legend())
print("first right length:", next(n for n, e in zip(lengths, wrap) if e < 1e-12))
print("right from there on:", max(wrap[19:]) < 1e-12)

# %% [markdown]
# One more sentence on 118: for a causal output only the first $L$ entries count, and the wrap reaches $L + K - 1 - n$ of *those*; the other outputs are right. `causal_conv` takes the smallest even $n$ without a prime factor above 7,
#
# $$
# n = \min\{\, m \ge L + K - 1 :\ m \text{ even},\ m = 2^a 3^b 5^c 7^d \,\}, \tag{3.8}
# $$
#
# because FFTs split along prime factors.

# %%
source(fft_length)
print([fft_length(length) for length in (5, 11, 1567, 1999, 31_999)])

# %% [markdown]
# ## 3.9 ★ Why does rfft then irfft lose a sample, and give other values, at odd length?
#
# ([numpy#13357](https://github.com/numpy/numpy/issues/13357), [numpy#8800](https://github.com/numpy/numpy/issues/8800), [scipy#10251](https://github.com/scipy/scipy/issues/10251), [pytorch#63943](https://github.com/pytorch/pytorch/issues/63943), [Autoformer#133](https://github.com/thuml/Autoformer/issues/133), [owl#539](https://github.com/owlbarn/owl/issues/539))
#
# A real signal of length 6 has the frequencies 0, 1, 2, 3; one of length 7 has them too. `rfft` returns four numbers in both cases, so `irfft` cannot know, and assumes the even one. It returns 6 samples, and reads frequency 3 as the one that stands alone in the middle, which it is not: it drops that number's imaginary part and halves its weight. All other samples change as well.

# %%
x = torch.tensor([1.0, 2, 3, 4, 5, 6, 7])
print("frequencies of lengths 6 and 7:", len(torch.fft.rfft(x[:6])), len(torch.fft.rfft(x)))
print("without n:", [round(v, 2) for v in torch.fft.irfft(torch.fft.rfft(x)).tolist()])
print("with n = 7:", [round(v, 2) for v in torch.fft.irfft(torch.fft.rfft(x), 7).tolist()])

# %% [markdown]
# All lengths from 1 to 64, with and without $n$. And a causal convolution in the form in which a released model has it: signal and kernel padded to a common length, and an inverse without $n$.

# %%
without, with_n = {}, {}
for n in range(1, 65):
    x = torch.randn(n, dtype=torch.float64)
    spectrum = torch.fft.rfft(x)
    with_n[n] = float((torch.fft.irfft(spectrum, n) - x).norm() / x.norm())
    # length 1: the assumed even length is 0, which irfft refuses
    back = torch.fft.irfft(spectrum) if n > 1 else torch.zeros(0, dtype=torch.float64)
    short = F.pad(back, (0, n - len(back)))
    without[n] = float((short - x).norm() / x.norm())
wrong = [n for n in without if without[n] > 1e-12]
print("wrong without n: exactly the odd lengths:", wrong == list(range(1, 65, 2)))
print("right with n, every length:", max(with_n.values()) < 1e-12)


# %%
def as_released(x, kernel, *, length_given):
    """Left padding by K - 1, product of spectra, inverse with or without a length."""
    k, t = kernel.shape[-1], x.shape[-1]
    x, kernel = F.pad(x, (k - 1, 0)), F.pad(kernel, (0, t - 1))
    product = torch.fft.rfft(x)[:, None] * torch.fft.rfft(kernel)
    n = {"n": t + k - 1} if length_given else {}
    return torch.fft.irfft(product.sum(2), **n)[..., k - 1 : k - 1 + t]


relative = {True: {}, False: {}}
for t_len in range(8, 41):
    for k in (t_len, t_len - 1):  # t + k - 1 is odd, then even
        x = torch.randn(2, 3, t_len, dtype=torch.float64)
        kernel = torch.randn(4, 3, k, dtype=torch.float64)
        want = causal_conv(x, kernel, method="direct")
        for given in (True, False):
            y = as_released(x, kernel, length_given=given)
            y = F.pad(y, (0, t_len - y.shape[-1]))
            relative[given][t_len + k - 1] = float((y - want).norm() / want.norm())
for given, errors in relative.items():
    right = {n % 2 == 0 for n, e in errors.items() if e < 1e-10}
    print(f"n given {given!s:5}: right at even lengths {True in right}, odd {False in right}")
odd = [e for n, e in relative[False].items() if n % 2]
print("relative error at odd lengths above 0.3:", min(odd) > 0.3)

# %% mystnb={"image": {"alt": "Relative errors for lengths up to 64. Left, round trip: even lengths lie at rounding level, odd lengths between 0.2 and 1.5. Right, the released form of the convolution: the same split between even and odd lengths, and rounding level throughout once the length is given."}}
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.5), sharey=True)
_ = left.semilogy(without.keys(), without.values(), "o", ms=3, label="irfft(rfft(x))")
_ = left.semilogy(with_n.keys(), with_n.values(), ".", label="irfft(rfft(x), n)")
for given, marker in ((False, "o"), (True, ".")):
    name = "length given" if given else "as released"
    _ = right.semilogy(*zip(*relative[given].items(), strict=True), marker, ms=3, label=name)
_ = left.set(xlabel="length n", ylabel="relative error", title="round trip")
_ = right.set(xlabel="FFT length t + k − 1", title="causal convolution")
_ = (left.legend(loc="center right"), right.legend(loc="center right"))
print(digest(without=[without[n] > 1e-12 for n in sorted(without)]))

# %% [markdown]
# The [released CKConv code](https://github.com/dwromero/ckconv) inverts without the length; its even lengths are right and its odd ones are not. The remedy is one argument. Two independent ones make sure here: `n` is always passed, and $n$ is always even.
#
# ## 3.10 What float32 costs, and what overlap-add gives back
#
# **Why does FFT convolution return small negatives, or garbage beside large values?** ([pytorch#52983](https://github.com/pytorch/pytorch/issues/52983), [scipy#22390](https://github.com/scipy/scipy/issues/22390), [scipy#7217](https://github.com/scipy/scipy/issues/7217))
# Every output of an FFT is a sum over *all* samples, so its rounding error belongs to all of them:
#
# $$
# |\hat y[t] - y[t]| \lesssim \varepsilon \log_2(n)\, \lVert x \rVert\, \lVert k \rVert \quad \text{at every } t, \tag{3.11}
# $$
#
# however small $y[t]$ is. A sound that begins with a bang, 10,000 times louder than the rest, loses its tail. A direct sum does not: each output has its own terms. Overlap-add cuts the signal into blocks and adds their convolutions, so the bound (3.11) holds with the norm of a *block*.

# %%
clip = torch.cat(spoken_digits().waveforms[:3])[:4000].double()  # half a second
x = (clip / clip.std())[None, None]
x[..., :20] = 1e4  # a click, ten thousand times louder than the voice
echo = torch.exp(-torch.arange(200.0, dtype=torch.float64) / 40)[None, None]
exact = causal_conv(x, echo, method="direct")
errors = {
    m: (causal_conv(x.float(), echo.float(), method=m) - exact)[0, 0].abs()
    for m in ("direct", "fft", "overlap_add")
}
errors["fft, float64"] = (causal_conv(x, echo, method="fft") - exact)[0, 0].abs()
n, eps = fft_length(4199), torch.finfo(torch.float32).eps
bound = eps * math.log2(n) * float(x.norm() * echo.norm())
print("fft within (3.11):", bool(errors["fft"].max() <= bound))
tail = {name: float(e[2000:].max()) for name, e in errors.items()}
print("tail: fft errs 100 times more than overlap-add:",
      tail["fft"] > 100 * tail["overlap_add"])  # fmt: skip
print("overlap-add within 30 times the direct sum:", tail["overlap_add"] < 30 * tail["direct"])

# %% mystnb={"image": {"alt": "Error against time for a loud start: by FFT in float32 it stays on one high level to the end, overlap-add and direct sum fall by several orders of magnitude after the loud block, float64 lies far below."}}
fig, ax = plt.subplots(figsize=(7.2, 2.5))
for name, e in errors.items():
    peak = F.max_pool1d(e.float()[None, None], 50)[0, 0]
    _ = ax.semilogy(torch.arange(80) * 50 / 8, peak + 1e-14, label=name, lw=1)
_ = ax.axhline(bound, color=COLOURS["black"], lw=0.8, ls="--", label="bound (3.11)")
_ = ax.set(xlabel="time (ms)", ylabel="largest error in 50 samples", ylim=(1e-13, 1e2))
_ = ax.legend(ncols=3, loc="upper right", fontsize=7)
print(digest(exact=exact[0, 0].abs().log10()))

# %% [markdown]
# Small negatives are the same error next to a true zero. A non-negative signal and kernel have a non-negative convolution, and the FFT's is one up to (3.11); clip it, or use the direct sum.
#
# **Why do half-precision FFTs fail unless the length is a power of two?** ([pytorch#117844](https://github.com/pytorch/pytorch/issues/117844), [pytorch#70664](https://github.com/pytorch/pytorch/issues/70664), [neuraloperator#322](https://github.com/neuraloperator/neuraloperator/issues/322))
# On a GPU, cuFFT has float16 for powers of two only and bfloat16 not at all; on this CPU, neither exists:

# %%
print("dtype       length 1024  length 1000")
for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    row = []
    for length in (1024, 1000):
        try:
            _ = torch.fft.rfft(torch.ones(length, dtype=dtype))
            row.append("works")
        except RuntimeError:
            row.append("refused")
    print(f"{str(dtype)[6:]:10}  {row[0]:11}  {row[1]}")

# %% [markdown]
# (A GPU prints "works" for float16 at 1024. The table above is this CPU's; the GPU's was not measured.) So under autocast, cast before the transform; the inputs' own rounding is then the error that remains:

# %%
x, kernel = torch.randn(1, 1, 1000), torch.randn(1, 1, 1000)
exact = causal_conv(x.double(), kernel.double(), method="direct")
size = float(x.norm() * kernel.norm())
for dtype in (torch.float16, torch.bfloat16):
    y = causal_conv(x.to(dtype).float(), kernel.to(dtype).float(), method="fft")
    error = float((y - exact).abs().max()) / size
    print(f"{str(dtype)[6:]}: relative error below its eps: {error < torch.finfo(dtype).eps}")
try:
    _ = causal_conv(x.half(), kernel.half())
except ValueError as refusal:
    print(refusal)

# %% [markdown]
# ## 3.11 From which size is the FFT faster?
#
# ([pytorch#21462](https://github.com/pytorch/pytorch/issues/21462), [fft-conv-pytorch#25](https://github.com/fkodom/fft-conv-pytorch/issues/25), [kornia#1731](https://github.com/kornia/kornia/issues/1731), [scipy#12232](https://github.com/scipy/scipy/issues/12232))
#
# Count. A direct sum needs $B\, C_{out} C_{in} L K$ products. By FFT there are $C_{out} C_{in} + B (C_{in} + C_{out})$ transforms of about $n \log_2 n$, and $B\, C_{out} C_{in}\, n/2$ complex products.
# Many channels share transforms: a dense layer amortises $B + B$ transforms a channel over $C$ products. A *depthwise* layer has as many transforms as products, and a kernel of 3 has next to nothing to save. `method="auto"` compares these counts, with prices fitted once (`benchmarks/fftconv.py` measures them again on your machine).

# %%
from ckutils import fftconv


def choice(b, c, t, k, depthwise=False):
    block = fftconv._plan(b, c, 1 if depthwise else c, t, k, "auto", depthwise=depthwise)
    return "direct" if block is None else "fft" if block == t else "blocks"


print("  K:      " + "".join(f"{k:>8}" for k in (3, 20, 100, 500, 4000)))
for c, t in ((1, 4000), (30, 1000), (30, 4000)):
    row = [choice(8, c, t, min(k, t)) for k in (3, 20, 100, 500, 4000)]
    print(f"C {c:2} L {t}" + "".join(f"{r:>8}" for r in row))
row = [choice(8, 30, 4000, k, depthwise=True) for k in (3, 20, 100, 500, 4000)]
print("depthwise " + "".join(f"{r:>8}" for r in row))

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Time of the direct sum over time of the FFT against kernel length for three layers, both axes logarithmic. Each curve crosses one between 10 and 200 lags."}}
fig, ax = plt.subplots(figsize=(7.2, 2.5))
lengths = [4, 16, 64, 256, 1000]
for c in (1, 8, 30):
    x, ratios = torch.randn(4, c, 1000), []
    for k in lengths:
        kernel, spent = torch.randn(c, c, k), {"direct": [], "fft": []}
        for _ in range(5):
            for method, values in spent.items():
                start = time.perf_counter()
                _ = causal_conv(x, kernel, method=method)
                values.append(time.perf_counter() - start)
        ratios.append(statistics.median(spent["direct"]) / statistics.median(spent["fft"]))
    _ = ax.loglog(lengths, ratios, "o-", ms=4, label=f"{c} channels")
_ = ax.axhline(1, color=COLOURS["black"], lw=0.8)
_ = ax.set(xlabel="kernel length K (samples)", ylabel="time direct / FFT")
_ = ax.legend()

# %% [markdown]
# The backward pass needs no new formula. All three quantities meet in one sum of products,
#
# $$
# T(g, k, x) = \sum_{b, o, i, t, j} g[b, o, t]\, k[o, i, j]\, x[b, i, t - j], \tag{3.12}
# $$
#
# whose derivative in $g$ is the convolution. Its derivative in $x$ is a convolution in reversed time with the channels exchanged, and that in $k$ correlates $g$ with $x$. Each of the three is a derivative of the same $T$, so each one's backward pass is the other two, to any order.

# %%
x = torch.randn(1, 2, 9, dtype=torch.float64, requires_grad=True)
kernel = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
by_fft = lambda x, k: causal_conv(x, k, method="fft")  # noqa: E731
print("gradients:", torch.autograd.gradcheck(by_fft, (x, kernel)))
print("their gradients:", torch.autograd.gradgradcheck(by_fft, (x, kernel)))

# %% [markdown]
# ## 3.12 A layer that never forms its kernels
#
# A CKConv layer is (3.5) with kernel values from a network, and a bias:
#
# $$
# y[o, t] = b_o + \sum_i \sum_{\tau = 0}^{t} \psi_{oi}(\tau)\, x[i, t - \tau], \qquad \psi_{oi}(\tau) = \sum_{h=1}^{32} W_{oi,h}\, s_h(\tau) + \beta_{oi}. \tag{3.21}
# $$
#
# The $s_h$ are the network's last hidden units, sines of the lag, and 900 kernels (30 × 30 channels) are 900 linear mixtures of the same 32 functions and the constant. The Fourier transform is linear. So, with $s_{33} = 1$ and $W_{oi,33} = \beta_{oi}$,
#
# $$
# \hat\psi_{oi}[f] = \sum_{h=1}^{33} W_{oi,h}\, \hat s_h[f]. \tag{3.22}
# $$
#
# That is the whole derivation. 33 transforms instead of 900, and the spectra of all kernels are *one real matrix product*. We form it for a tile of frequencies at a time, while it is in the cache, multiply it with the signals' spectra at once, and forget it. By hand, for two hidden units, one pair of channels and one frequency: $\hat s = (2 + i,\ 1 - i)$ and $W = (3, 10)$ give $\hat\psi = 6 + 3i + 10 - 10i = 16 - 7i$.

# %%
from ckutils import factorised

source(factorised.kernel_spectrum)
source(factorised.multiply_spectra)
hand = factorised.kernel_spectrum(
    torch.tensor([[[2.0, 1.0], [1.0, -1.0]]]), torch.tensor([[[3.0, 10.0]]])
)
print("by hand:", hand.flatten().tolist())

# %% [markdown]
# Against the layer with its kernels formed, values and gradients, in both precisions:

# %%
for dtype, tol in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
    torch.manual_seed(0)
    layer = CKConv(30, 30).to(dtype)
    x, results = torch.randn(2, 30, 301, dtype=dtype), []
    for method in ("factorised", "fft"):
        layer.method = method
        layer.zero_grad()
        y = layer(x)
        y.square().mean().backward()
        results.append((y.detach(), layer.kernel_net.readout.bias.grad.clone()))
    for name, got, want in zip(("values", "gradient"), *results, strict=True):
        agree(f"{name} {dtype}", got, want, tol=tol * float(want.abs().max()))

# %% [markdown]
# What each formulation does and holds, counted for $B$ signals of $C$ channels. The published code multiplies $(B, 1, C, C_{in}, F)$ shapes by broadcasting, so its product holds $B\, C^2 F$ complex numbers, and sums them afterwards:
#
# $$
# \text{transforms: } C^2 + 2BC \ \to\ 33 + 2BC, \qquad \text{held: } B\, C^2 F \ \to\ B\, C\, F. \tag{3.23}
# $$

# %%
print("(B, C, L)        transforms         complex numbers held, in millions")
for b, c, length in ((8, 30, 784), (4, 30, 16_000), (8, 100, 784)):
    f = fft_length(2 * length - 1) // 2 + 1
    old, new = c * c + 2 * b * c, 33 + 2 * b * c
    held = (b * c * c * f + c * c * f) / 1e6, (3 * b * c + 33) * f / 1e6
    print(f"{(b, c, length)!s:15} {old:6,} -> {new:5,}      {held[0]:6.1f} -> {held[1]:.1f}")


# %%
def published(x, layer):
    """All kernels in time, all spectra, a broadcast product: the published route."""
    length, n = x.shape[-1], 2 * x.shape[-1]
    values = layer.kernel_net(torch.linspace(1, -1, length)[:, None])
    kernel = values.T.reshape(layer.out_channels, layer.in_channels, length)
    product = torch.fft.rfft(x, n)[:, None] * torch.fft.rfft(kernel, n)[None]
    return torch.fft.irfft(product.sum(2), n)[..., :length] + layer.bias[:, None]


layer, x = CKConv(30, 30), torch.randn(8, 30, 784)
with torch.no_grad():
    want = published(x, layer)
    agree("same layer", layer(x), want, tol=1e-5 * float(want.abs().max()))

# %% tags=["nbval-ignore-output"]
def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(old, new, rounds=5):
    """Median times of two functions called in turn; how many times faster the second."""
    pairs = [(seconds(old), seconds(new)) for _ in range(rounds + 1)][1:]
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    return slow / fast


def train_step(function):
    layer.zero_grad()
    function(x).square().mean().backward()


for b, c, length in ((8, 30, 784), (4, 30, 4000), (8, 100, 784)):
    layer, x = CKConv(c, c), torch.randn(b, c, length)
    with torch.no_grad():
        once = ratio(lambda: published(x, layer), lambda: layer(x), 3)
    step = ratio(lambda: train_step(lambda x: published(x, layer)),
                 lambda: train_step(layer), 2)  # fmt: skip
    print(f"{(b, c, length)}: layer {once:.1f}, training step {step:.1f} times faster")

# %% [markdown]
# Most of what is saved is memory traffic, not arithmetic: on this kind of machine the published product spends most of its time on being stored. The backward pass tiles in the same way: the kernels' gradient exists for one tile, and is multiplied with $\hat s$ and $W$ there. Where (3.22) does not hold, because kernel values are dropped at random or multiplied by a learned window, the layer forms its kernels and convolves by `causal_conv`. In evaluation mode the kernels' spectrum is kept from call to call.
#
# **On the GPU** the same code runs with tiles of 256 MB instead of 1 MB, so a few large matrix products do all the work. No GPU was at hand when this chapter was written: not measured.
