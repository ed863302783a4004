"""The convolutional kernel network without a deep-learning framework, on NumPy or CuPy.

Chapter 5, section 5.8. Every operation is a function of arrays that returns its value
and its pullback: the function that carries the gradient of a loss with respect to the
value back to the arguments. An argument used twice receives two gradients, and the code
adds them by name. `xp` is the array module of the images, NumPy or CuPy; this file
imports neither torch nor, unless it is handed a CuPy array, CuPy.
"""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np

Array = np.ndarray  # or cupy.ndarray: nothing here asks which
Parameters = dict[str, Array]  # a layer: anchors (p, d), beta (); head: weight, bias


class DotKernel(NamedTuple):
    """kappa(u, beta) with its slopes in u and beta, given also the value k."""

    kappa: Callable
    slope: Callable
    slope_beta: Callable


KERNELS = {  # xp, u, beta, and k = kappa(u, beta)
    "exponential": DotKernel(
        lambda xp, u, beta: xp.exp(beta * (u - 1)),
        lambda xp, u, beta, k: beta * k,
        lambda xp, u, beta, k: (u - 1) * k,
    ),
    "arc_cosine": DotKernel(
        lambda xp, u, beta: (
            (
                xp.sqrt(1 - xp.clip(u, -1, 1) ** 2)
                + xp.clip(u, -1, 1) * (math.pi - xp.arccos(xp.clip(u, -1, 1)))
            )
            / math.pi
        ),
        lambda xp, u, beta, k: 1 - xp.arccos(xp.clip(u, -1, 1)) / math.pi,
        lambda xp, u, beta, k: xp.zeros_like(u),
    ),
    "polynomial": DotKernel(
        lambda xp, u, beta: ((u + 1) / 2) ** 2,
        lambda xp, u, beta, k: (u + 1) / 2,
        lambda xp, u, beta, k: xp.zeros_like(u),
    ),
}


class Layer(NamedTuple):
    """What a layer is, apart from what it learns; the same rules as ckn.CKNLayer."""

    kernel_size: int
    subsampling: int = 1
    padding: int = 0
    kernel: str = "exponential"
    eps: float = 1e-3


def array_module(x: Array):
    """NumPy, or CuPy for its arrays.

    >>> array_module(np.ones(3)).__name__
    'numpy'
    """
    if hasattr(x, "__cuda_array_interface__"):
        import cupy

        return cupy
    return np


# Operations: value and pullback -----------------------------------------------------


def patches(x: Array, size: int, padding: int):
    """(b, c, h, w) -> (b, h', w', c size size): every window as a row."""
    xp, (b, c, h, w) = array_module(x), x.shape
    padded = xp.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    high, wide = h + 2 * padding - size + 1, w + 2 * padding - size + 1
    taps = [(i, j) for i in range(size) for j in range(size)]
    views = [padded[:, :, i : i + high, j : j + wide] for i, j in taps]
    stack = xp.stack(views, axis=2).reshape(b, -1, high, wide)  # (b, c taps, h', w')

    def pull(grad: Array) -> Array:
        grad = xp.moveaxis(grad, -1, 1).reshape(b, c, len(taps), high, wide)
        total = xp.zeros_like(padded)
        for tap, (i, j) in enumerate(taps):
            total[:, :, i : i + high, j : j + wide] += grad[:, :, tap]
        return total[:, :, padding : padding + h, padding : padding + w]

    return xp.moveaxis(stack, 1, -1), pull


def polar(x: Array):
    """(..., d) -> norms (..., 1) and unit vectors (..., d); both 0 at 0, slopes too."""
    xp = array_module(x)
    square = (x * x).sum(axis=-1, keepdims=True)
    positive = square > np.finfo(x.dtype).tiny
    safe = xp.sqrt(xp.where(positive, square, 1))
    norm, unit = xp.where(positive, safe, 0), x / xp.where(positive, safe, 1)

    def pull(grad_norm: Array, grad_unit: Array) -> Array:
        along = (unit * grad_unit).sum(axis=-1, keepdims=True)
        # what turns the unit vector, and what lengthens it
        return (grad_unit - along * unit) / safe + grad_norm * unit

    return norm, unit, pull


def dot_kernel(u: Array, beta: Array, kernel: DotKernel):
    """kappa(u, beta), entry by entry."""
    xp = array_module(u)
    value = kernel.kappa(xp, u, beta)

    def pull(grad: Array) -> tuple[Array, Array]:
        slope = kernel.slope(xp, u, beta, value)
        slope_beta = kernel.slope_beta(xp, u, beta, value)
        return grad * slope, (grad * slope_beta).sum()

    return value, pull


def inverse_sqrt(gram: Array, eps: float):
    """(gram + eps I)^(-1/2) in float64, eqs. (5.13) and (5.21); gram is symmetric."""
    xp, dtype = array_module(gram), gram.dtype
    ridged = gram.astype(np.float64) + eps * xp.eye(len(gram))
    values, vectors = xp.linalg.eigh(ridged)
    root = xp.sqrt(values)
    # (1/r_i - 1/r_j) / (r_i^2 - r_j^2), divided out: nothing is lost at r_i = r_j
    slopes = -1 / (root[:, None] * root * (root[:, None] + root))

    def pull(grad: Array) -> Array:
        inner = vectors.T @ ((grad + grad.T) / 2) @ vectors
        return (vectors @ (slopes * inner) @ vectors.T).astype(dtype)

    return ((vectors / root) @ vectors.T).astype(dtype), pull


def pool(x: Array, s: int):
    """Gaussian average over h and w with stride s: (b, h, w, p) -> (b, ., ., p)."""
    if s == 1:
        return x, lambda grad: grad
    xp, (_, h, w, _) = array_module(x), x.shape
    taps = np.exp(-((np.arange(-s, s + 1) / s) ** 2))
    taps = [float(tap) for tap in taps / taps.sum()]
    high, wide = (h - 1) // s + 1, (w - 1) // s + 1
    padded = xp.pad(x, ((0, 0), (s, s), (s, s), (0, 0)))
    rows = [slice(i, i + s * (high - 1) + 1, s) for i in range(2 * s + 1)]
    columns = [slice(j, j + s * (wide - 1) + 1, s) for j in range(2 * s + 1)]
    tall = sum(tap * padded[:, rows[i]] for i, tap in enumerate(taps))
    value = sum(tap * tall[:, :, columns[j]] for j, tap in enumerate(taps))

    def pull(grad: Array) -> Array:
        grad_tall, total = xp.zeros_like(tall), xp.zeros_like(padded)
        for j, tap in enumerate(taps):
            grad_tall[:, :, columns[j]] += tap * grad
        for i, tap in enumerate(taps):
            total[:, rows[i]] += tap * grad_tall
        return total[:, s : s + h, s : s + w]

    return value, pull


def product(x: Array, matrix: Array):
    """x @ matrix over the last axis: (..., p) and (p, q)."""

    def pull(grad: Array) -> tuple[Array, Array]:
        flat, flat_grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
        return grad @ matrix.T, flat.T @ flat_grad

    return x @ matrix, pull


# The layer and the network ----------------------------------------------------------


def layer_forward(layer: Layer, parameters: Parameters, x: Array):
    """Maps (b, c, h, w) -> (b, p, ., .), eq. (5.14), and its pullback.

    The graph is no chain: the norms are divided out and multiplied back, the anchors
    meet the patches and each other, and beta shapes both kernels. Each of the three
    receives the sum of two gradients.
    """
    xp, kernel, beta = array_module(x), KERNELS[layer.kernel], parameters["beta"]
    rows, pull_rows = patches(x, layer.kernel_size, layer.padding)
    norms, units, pull_units = polar(rows)
    _, anchors, pull_anchors = polar(parameters["anchors"])  # (p, d)
    u, pull_u = product(units, anchors.T)  # (b, h', w', p)
    k, pull_k = dot_kernel(u, beta, kernel)
    gram_u, pull_gram_u = product(anchors, anchors.T)
    gram, pull_gram = dot_kernel(gram_u, beta, kernel)
    whitening, pull_whitening = inverse_sqrt(gram, layer.eps)  # (p, p)
    pooled, pull_pool = pool(norms * k, layer.subsampling)
    white, pull_white = product(pooled, whitening)  # (b, ., ., p)

    def pull(grad: Array) -> tuple[Array, Parameters]:
        grad_pooled, grad_whitening = pull_white(xp.moveaxis(grad, 1, -1))
        grad_weighted = pull_pool(grad_pooled)
        grad_u, beta_1 = pull_k(grad_weighted * norms)
        grad_units, anchors_1 = pull_u(grad_u)
        grad_gram_u, beta_2 = pull_gram(pull_whitening(grad_whitening))
        anchors_2, anchors_3 = pull_gram_u(grad_gram_u)
        grad_norms = (grad_weighted * k).sum(axis=-1, keepdims=True)
        grad_x = pull_rows(pull_units(grad_norms, grad_units))
        on_sphere = anchors_1.T + anchors_2 + anchors_3.T
        grad_anchors = pull_anchors(xp.zeros_like(anchors[:, :1]), on_sphere)
        return grad_x, {"anchors": grad_anchors, "beta": beta_1 + beta_2}

    return xp.moveaxis(white, -1, 1), pull


def forward(layers: list[Layer], parameters: list[Parameters], images: Array):
    """Scores (b, classes) of images (b, c, h, w), and the pullback of the network.

    Chapter 5, eq. (5.17).

    Args:
        layers: one Layer a layer.
        parameters: one dict a layer, {"anchors": (p, c k k), "beta": ()}, then the
            classifier's {"weight": (classes, p h w), "bias": (classes,)}.
        images: float32 or float64, NumPy or CuPy; the parameters must match.
    Returns scores and a function: gradient of the scores (b, classes) -> gradient of
        the images and a list of dicts like `parameters`.
    Raises ValueError if counts, axes or dtypes do not match.

    >>> start = initial([Layer(3, 2), Layer(2)], [4, 6], 3, (2, 1, 9, 9), seed=0)
    >>> forward([Layer(3, 2), Layer(2)], start, np.ones((2, 1, 9, 9)))[0].shape
    (2, 3)
    """
    _check(layers, parameters, images)
    maps, pulls = images, []
    for layer, learned in zip(layers, parameters, strict=False):
        maps, pull_layer = layer_forward(layer, learned, maps)
        pulls.append(pull_layer)
    head, shape = parameters[-1], maps.shape
    scores, pull_scores = product(maps.reshape(len(images), -1), head["weight"].T)

    def pull(grad: Array) -> tuple[Array, list[Parameters]]:
        grad_maps, grad_weight = pull_scores(grad)
        grad_maps = grad_maps.reshape(shape)
        gradients = [{"weight": grad_weight.T, "bias": grad.sum(axis=0)}]
        for pull_layer in reversed(pulls):
            grad_maps, learned = pull_layer(grad_maps)
            gradients.insert(0, learned)
        return grad_maps, gradients

    return scores + head["bias"], pull


def loss_and_gradients(
    layers: list[Layer],
    parameters: list[Parameters],
    images: Array,
    labels: Array,
    penalty: float = 0.0,
):
    """Mean cross-entropy + penalty/2 |W|^2, eq. (5.19), and all its gradients.

    Args:
        layers, parameters, images: of forward.
        labels: (b,), integers from 0 to classes - 1.
        penalty: lambda >= 0.
    Returns the loss (0 axes) and a list of dicts like `parameters`.
    Raises ValueError as forward does, and for other labels or penalties.
    """
    if not isinstance(penalty, Real) or not penalty >= 0:
        raise ValueError(f"penalty must be a number >= 0, got {penalty!r}")
    _check(layers, parameters, images)
    _check_labels(labels, len(images), len(parameters[-1]["weight"]))
    scores, pull = forward(layers, parameters, images)
    weight = parameters[-1]["weight"]
    loss, grad_scores = _cross_entropy(scores, labels)
    _, gradients = pull(grad_scores)
    gradients[-1]["weight"] = gradients[-1]["weight"] + penalty * weight
    return loss + penalty / 2 * (weight * weight).sum(), gradients


def _cross_entropy(scores: Array, labels: Array):
    """Mean of log sum exp(s) - s[label], and its gradient (softmax - one-hot) / b."""
    xp = array_module(scores)
    shifted = scores - scores.max(axis=1, keepdims=True)
    sums = xp.exp(shifted).sum(axis=1, keepdims=True)
    hot = (labels[:, None] == xp.arange(scores.shape[1])).astype(scores.dtype)
    loss = (xp.log(sums)[:, 0] - (hot * shifted).sum(axis=1)).mean()
    return loss, (xp.exp(shifted) / sums - hot) / len(scores)


def descend(
    parameters: list[Parameters], gradients: list[Parameters], rate: float
) -> list[Parameters]:
    """One step of gradient descent: parameters - rate * gradients, as new arrays.

    Chapter 5, section 5.8.

    >>> descend([{"beta": 4.0}], [{"beta": 2.0}], 0.5)
    [{'beta': 3.0}]
    """
    return [
        {name: value - rate * slopes[name] for name, value in learned.items()}
        for learned, slopes in zip(parameters, gradients, strict=True)
    ]


def initial(
    layers: list[Layer],
    widths: list[int],
    classes: int,
    shape: tuple[int, int, int, int],
    *,
    beta: float = 4.0,
    seed: int = 0,
) -> list[Parameters]:
    """Random unit anchors and a small random classifier, as NumPy float64 arrays.

    Args:
        layers: of forward. widths: p of each. classes: of the classifier.
        shape: (b, c, h, w) of the images. beta: of every exponential kernel.
        seed: decides the draw.
    Returns the `parameters` of forward. Raises ValueError for unequal counts.
    """
    if len(widths) != len(layers):
        raise ValueError(f"widths must be {len(layers)} numbers, got {widths!r}")
    draw, parameters, (_, c, *space) = np.random.default_rng(seed), [], shape
    for layer, p in zip(layers, widths, strict=True):
        anchors = draw.standard_normal((p, c * layer.kernel_size**2))
        anchors /= np.linalg.norm(anchors, axis=1, keepdims=True)
        parameters.append({"anchors": anchors, "beta": np.array(float(beta))})
        c, space = p, [_out(layer, n) for n in space]
    features = c * space[0] * space[1]
    weight = draw.standard_normal((classes, features)) / features
    return [*parameters, {"weight": weight, "bias": np.zeros(classes)}]


def _out(layer: Layer, n: int) -> int:
    return (n + 2 * layer.padding - layer.kernel_size) // layer.subsampling + 1


def _check(layers: list[Layer], parameters: list[Parameters], images: Array) -> None:
    if len(parameters) != len(layers) + 1:
        raise ValueError(
            f"parameters must be {len(layers)} layers and a classifier, got "
            f"{len(parameters)} entries"
        )
    if images.ndim != 4 or images.dtype not in (np.float32, np.float64):
        raise ValueError(
            "images must be (b, c, h, w), float32 or float64, got shape "
            f"{images.shape}, dtype {images.dtype}"
        )
    for i, layer in enumerate(layers):
        _check_layer(f"layers[{i}]", layer)
    for i, learned in enumerate(parameters):  # the classifier's too
        for name, value in learned.items():
            if value.dtype != images.dtype:
                raise ValueError(
                    f"parameters[{i}][{name!r}] must be {images.dtype} as the images, "
                    f"got {value.dtype}"
                )


def _check_labels(labels: Array, count: int, classes: int) -> None:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be ({count},) integers, got shape {labels.shape}, dtype "
            f"{labels.dtype}"
        )
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise ValueError(f"labels must be from 0 to {classes - 1}, got {wrong[0]}")


def _check_layer(name: str, layer: Layer) -> None:
    least = {"kernel_size": 1, "subsampling": 1, "padding": 0}
    for field, low in least.items():
        value = getattr(layer, field)
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or value < low:
            raise ValueError(f"{name}.{field} must be an integer >= {low}, got {value}")
    if layer.kernel not in KERNELS:
        raise ValueError(
            f"{name}.kernel must be one of {', '.join(KERNELS)}, got {layer.kernel!r}"
        )
    if not layer.eps > 0:
        raise ValueError(f"{name}.eps must be > 0, got {layer.eps!r}")
