"""Spherical k-means, the CKN layer and the convolutional kernel network, in torch.

Chapter 5. Letters: b images, c channels, h w pixels; d = c k k numbers a patch, n
patches, p anchors. Anchors are unit rows (p, d), flattened in the order (c, k, k).
Kernels, inverse_sqrt and nystrom_features stand in nystrom.py.
"""

import math
import sys
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ckutils.checks import (
    check_choice,
    check_float,
    check_int,
    check_number,
    check_same,
    per_axis,
)
from ckutils.cuda import ckn_epilogue, spectral
from ckutils.nystrom import (
    SOLVERS,
    arc_cosine_kernel,
    exponential_kernel,
    guarded_sqrt,
    inverse_sqrt,
    nystrom_features,
    polar,
    polynomial_kernel,
)

__all__ = [
    "CKN",
    "KERNELS",
    "CKNLayer",
    "Exponential",
    "arc_cosine_kernel",
    "exponential_kernel",
    "gaussian_taps",
    "inverse_sqrt",
    "nystrom_features",
    "polynomial_kernel",
    "random_patches",
    "ridge_classifier",
    "spherical_kmeans",
    "spherical_kmeans_ref",
]

# Anchors --------------------------------------------------------------------------


def random_patches(
    maps: Tensor, kernel_size: int, count: int, *, generator: torch.Generator
) -> Tensor:
    """`count` patches from random places of random images, constant ones left out.

    Chapter 5, section 5.5. A patch is constant if each of its channels is.

    Args:
        maps: (b, c, h, w), float32 or float64.
        kernel_size: k or (k, k'), within (h, w).
        count: how many, >= 1; drawn with replacement.
        generator: on the CPU, so that every device draws the same places.
    Returns (count, c k k'), in the order (c, k, k').
    Raises ValueError if the kernel exceeds the map, or almost every patch is constant.

    >>> draw = torch.Generator().manual_seed(0)
    >>> random_patches(torch.eye(4)[None, None], 2, 3, generator=draw).shape
    torch.Size([3, 4])
    """
    check_float(maps=maps)
    check_int(1, count=count)
    (size,) = per_axis(1, 2, kernel_size=kernel_size)
    if maps.ndim != 4 or size[0] > maps.shape[2] or size[1] > maps.shape[3]:
        raise ValueError(
            f"maps must be (b, c, h, w) with room for {kernel_size=}, got shape "
            f"{tuple(maps.shape)}"
        )
    found, have = [], 0
    for _ in range(50):
        patches = _patches_at_random(maps, size, count, generator)
        spread = patches - patches.mean(-1, keepdim=True)
        # below sqrt(eps) of its size, a spread is rounding of the maps
        least = torch.finfo(maps.dtype).eps ** 0.5 * patches.norm(dim=(1, 2))
        varied = spread.norm(dim=(1, 2)) > least
        found.append(patches[varied].flatten(1))
        have += len(found[-1])
        if have >= count:
            return torch.cat(found)[:count]
    raise ValueError(f"maps must vary: only {have} of {50 * count} patches do")


def _patches_at_random(maps: Tensor, size, count: int, generator) -> Tensor:
    b, _, h, w = maps.shape
    high = (b, h - size[0] + 1, w - size[1] + 1)
    image, row, column = (
        torch.randint(most, (count, 1, 1), generator=generator).to(maps.device)
        for most in high
    )
    rows = row + torch.arange(size[0], device=maps.device)[:, None]
    columns = column + torch.arange(size[1], device=maps.device)
    patches = maps[image, :, rows, columns]  # (count, k, k', c)
    return patches.flatten(1, 2).mT.contiguous()  # (count, c, k k')


def spherical_kmeans(
    x: Tensor,
    n_clusters: int,
    *,
    generator: torch.Generator,
    iterations: int = 20,
    tol: float = 1e-4,
) -> Tensor:
    """Unit rows z that make the mean over x of max_j <x/|x|, z_j> large.

    Chapter 5, eq. (5.16). Matrix products over blocks of x: no loop over clusters.
    An empty cluster restarts at the points that fit their own cluster worst.

    Args:
        x: (n, d), float32 or float64, finite; zero rows are left out.
        n_clusters: p >= 1, at most the number of non-zero rows.
        generator: on the CPU; draws the first centroids among the rows.
        iterations: at most so many; tol: stop when the objective gains less.
    Returns (p, d) of unit rows. On a GPU the order of summation, hence the last bits,
        may vary unless torch.use_deterministic_algorithms is on.
    Raises ValueError for other shapes or ranges. Cost: 2 n p d operations an iteration.

    >>> x = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    >>> z = spherical_kmeans(x, 2, generator=torch.Generator().manual_seed(0))
    >>> z.sum(0)
    tensor([1., 1.])
    """
    check_float(x=x)
    check_int(1, n_clusters=n_clusters, iterations=iterations)
    check_number(0, tol=tol)
    if x.ndim != 2:
        raise ValueError(f"x must be (n, d), got shape {tuple(x.shape)}")
    norm, unit = polar(x)
    # polar takes a row with NaN for 0; the sum shows it, and needs no array of its own
    if not (norm.isfinite().all() and x.sum().isfinite()):
        raise ValueError(f"x must be finite, its norms too, got {x.abs().max()} in it")
    unit = unit[norm[:, 0] > 0]
    if n_clusters > len(unit):
        raise ValueError(
            f"n_clusters must be at most the {len(unit)} non-zero rows of x, got "
            f"{n_clusters}"
        )
    first = torch.randperm(len(unit), generator=generator)[:n_clusters]
    centroids, last = unit[first.to(x.device)], -math.inf
    for _ in range(iterations):
        similarity, labels = _nearest(unit, centroids)
        now = float(similarity.mean())
        if now - last < tol:
            break
        last, centroids = now, _centroids(unit, similarity, labels, n_clusters)
    return centroids


def spherical_kmeans_ref(
    x: Tensor,
    n_clusters: int,
    *,
    generator: torch.Generator,
    iterations: int = 20,
    tol: float = 1e-4,
) -> Tensor:
    """spherical_kmeans cluster by cluster, as it is usually first written."""
    unit = torch.stack([row / row.norm() for row in x if row.norm() > 0])
    first = torch.randperm(len(unit), generator=generator)[:n_clusters]
    centroids, last = unit[first.to(x.device)], -math.inf
    for _ in range(iterations):
        similarity = torch.stack([unit @ centroid for centroid in centroids], dim=1)
        best, labels = similarity.max(dim=1)
        if float(best.mean()) - last < tol:
            break
        last, spare, rows = float(best.mean()), 0, []
        for cluster in range(n_clusters):
            total = unit[labels == cluster].sum(dim=0)
            if total.norm() == 0:
                total = unit[best.argsort(stable=True)[spare]]
                spare += 1
            rows.append(total / total.norm())
        centroids = torch.stack(rows)
    return centroids


def _nearest(unit: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Largest inner product of each row with a centroid, and which: (n,), (n,)."""
    blocks = [(rows @ centroids.mT).max(1) for rows in unit.split(4096)]
    return torch.cat([b.values for b in blocks]), torch.cat([b.indices for b in blocks])


def _centroids(unit: Tensor, similarity: Tensor, labels: Tensor, p: int) -> Tensor:
    """The normalised sum of each cluster; an empty one takes a badly fitting row."""
    sums = unit.new_zeros(p, unit.shape[1]).index_add_(0, labels, unit)
    norm, centroids = polar(sums)
    empty = norm[:, 0] == 0
    worst = similarity.topk(p, largest=False).indices  # (p,)
    spare = unit[worst[(empty.cumsum(0) - 1).clamp_min(0)]]  # a row for each empty one
    return torch.where(empty[:, None], spare, centroids)


# The layer ------------------------------------------------------------------------


class Exponential(nn.Module):
    """exponential_kernel with a beta that is learned through its logarithm."""

    def __init__(self, beta: float = 4.0):
        super().__init__()
        if not isinstance(beta, int | float) or not 0 < beta < math.inf:
            raise ValueError(f"beta must be a number > 0, got {beta!r}")
        self.log_beta = nn.Parameter(torch.tensor(float(beta)).log())

    def forward(self, u: Tensor) -> Tensor:
        return exponential_kernel(u, self.log_beta.exp())


KERNELS = {
    "exponential": Exponential,
    "arc_cosine": lambda: arc_cosine_kernel,
    "polynomial": lambda: partial(polynomial_kernel, degree=2, offset=1.0),
}


def _row(kernel) -> tuple[str, Tensor | None] | None:
    """The name that ckn_layer.cu has for a kappa, and its beta; None for another."""
    if isinstance(kernel, Exponential):
        return "exponential", kernel.log_beta.exp()
    if kernel is arc_cosine_kernel:
        return "arc_cosine", None
    quadratic = {"degree": 2, "offset": 1.0}
    if isinstance(kernel, partial) and kernel.func is polynomial_kernel:
        return ("polynomial", None) if kernel.keywords == quadratic else None
    return None


class CKNLayer(nn.Module):
    """Nystrom features of all patches, pooled: (b, c, h, w) to (b, p, h/s, w/s).

    Chapter 5, eq. (5.14). For every patch P of the maps,
    |P| kappa(Z P / |P|), averaged by a Gaussian with stride `subsampling`, times
    (kappa(Z Z^T) + eps I)^(-1/2). The last two commute; in this order the matrix
    product touches subsampling^2 fewer pixels. Source: Mairal 2016.

    Args:
        in_channels, out_channels: c and p, the number of anchors.
        kernel_size: k or (k, k').
        kernel: kappa, a callable of the inner product, or a name in KERNELS; a Module's
            parameters (beta) are learned. None is Exponential(4).
        subsampling: s >= 1, stride of the pooling; 1 means none. The Gaussian has
            2 s + 1 taps exp(-t^2 / s^2) of sum 1, over zeros beyond the border.
        padding: zeros around the maps, an int or one an axis.
        eps, method: of inverse_sqrt.
    Raises ValueError outside of these ranges; when called, for maps that have other
        channels, no room for the kernel, or not the dtype and device of the anchors.
    On a GPU with CuPy, ckn_layer.cu does what follows the matrix product, for a kappa
        of KERNELS; `route` says so.

    >>> layer = CKNLayer(1, 4, 3, subsampling=2, padding=1)
    >>> layer(torch.ones(5, 1, 28, 28)).shape
    torch.Size([5, 4, 14, 14])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        kernel: str | Callable[[Tensor], Tensor] | None = None,
        subsampling: int = 1,
        padding: int | tuple[int, int] = 0,
        eps: float = 1e-3,
        method: str = "eigh",
    ):
        super().__init__()
        check_int(1, in_channels=in_channels, out_channels=out_channels)
        check_int(1, subsampling=subsampling)
        check_number(0, eps=eps)
        check_choice(SOLVERS, method=method)
        (self.kernel_size,) = per_axis(1, 2, kernel_size=kernel_size)
        (self.padding,) = per_axis(0, 2, padding=padding)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.subsampling, self.eps, self.method = subsampling, eps, method
        self.kernel = _kernel(kernel)
        numbers = in_channels * self.kernel_size[0] * self.kernel_size[1]
        self.anchors = nn.Parameter(F.normalize(torch.randn(out_channels, numbers)))
        self.register_buffer("taps", gaussian_taps(subsampling), persistent=False)
        self.register_forward_pre_hook(_check_maps, with_kwargs=True)

    def unit_anchors(self) -> Tensor:
        """The anchors (p, d) as the layer uses them: of norm 1 wherever descent led."""
        return polar(self.anchors)[1]

    def whitening(self) -> Tensor:
        """(kappa(Z Z^T) + eps I)^(-1/2), (p, p)."""
        anchors = self.unit_anchors()
        gram = self.kernel(anchors @ anchors.mT)
        return inverse_sqrt(gram, self.eps, method=self.method)

    def patch_norms(self, maps: Tensor) -> Tensor:
        """|P| of every patch, (b, 1, h', w'): a box filter over summed squares."""
        box = maps.new_ones(1, 1, *self.kernel_size)
        squares = maps.square().sum(1, keepdim=True)
        return guarded_sqrt(F.conv2d(squares, box, padding=self.padding))

    def kernel_map(self, maps: Tensor) -> Tensor:
        """|P| kappa(Z P / |P|) of every patch P, (b, p, h', w')."""
        filters = self.unit_anchors().unflatten(1, (-1, *self.kernel_size))
        products = F.conv2d(maps, filters, padding=self.padding)
        row = _row(self.kernel)
        if row is not None and spectral.has_kernels(maps):
            kappa, beta = row[0], maps.new_ones(()) if row[1] is None else row[1]
            given = products, maps, beta.to(maps.dtype), self.kernel_size, self.padding
            return ckn_epilogue.ckn_layer(*given, kappa)[0]
        norms = self.patch_norms(maps)
        values = self.kernel(products.div_(torch.where(norms > 0, norms, 1)))
        # a fresh array costs more than the product; autograd, though, needs `values`
        return norms * values if torch.is_grad_enabled() else values.mul_(norms)

    def route(self, maps: Tensor) -> str:
        """What computes kernel_map behind its product: "torch" or "ckn_layer.cu".

        The kernel needs a GPU, CuPy, and a kappa of KERNELS; its beta may be learned.
        """
        known = _row(self.kernel) is not None and spectral.has_kernels(maps)
        return "ckn_layer.cu" if known else "torch"

    def pool(self, maps: Tensor) -> Tensor:
        """Gaussian average, stride s: (b, p, h, w) -> (b, p, ceil(h/s), ceil(w/s))."""
        s, p = self.subsampling, maps.shape[1]
        if s == 1:
            return maps
        window = (self.taps[:, None] * self.taps).to(maps.dtype)
        window = window.expand(p, 1, -1, -1)
        return F.conv2d(maps, window, stride=s, padding=s, groups=p)

    def forward(self, maps: Tensor, whitening: Tensor | None = None) -> Tensor:
        """Maps (b, c, h, w) to (b, p, ., .); a given `whitening` is not recomputed."""
        if maps.ndim != 4 or maps.shape[1] != self.in_channels:
            raise ValueError(
                f"maps must be (b, {self.in_channels}, h, w), got shape "
                f"{tuple(maps.shape)}"
            )
        whitening = self.whitening() if whitening is None else whitening
        pooled = self.pool(self.kernel_map(maps))
        # a plain product, up to seven times faster on a CPU than the 1x1 convolution
        return (whitening @ pooled.flatten(2)).unflatten(2, pooled.shape[2:])


def _check_maps(layer: CKNLayer, args: tuple, named: dict) -> None:
    """What `forward` leaves open: the type of the maps and room for the kernel."""
    maps = args[0] if args else named.get("maps")
    check_float(maps=maps)
    check_same(anchors=layer.anchors, maps=maps)
    sizes = zip(maps.shape[2:], layer.padding, layer.kernel_size, strict=False)
    if any(size + 2 * padding < kernel for size, padding, kernel in sizes):
        raise ValueError(
            f"maps must have room for kernel_size={layer.kernel_size} with "
            f"padding={layer.padding}, got shape {tuple(maps.shape)}"
        )


def _kernel(kernel) -> Callable[[Tensor], Tensor]:
    kernel = "exponential" if kernel is None else kernel
    if isinstance(kernel, str):
        check_choice(KERNELS, kernel=kernel)
        return KERNELS[kernel]()
    if not callable(kernel):
        raise ValueError(f"kernel must be a callable or a name, got {kernel!r}")
    return kernel


def gaussian_taps(subsampling: int) -> Tensor:
    """exp(-t^2 / s^2) for t = -s..s, divided by its sum, in float64.

    Chapter 5, eq. (5.15): a Gaussian of standard deviation s / sqrt(2).

    >>> gaussian_taps(1).sum().round()
    tensor(1., dtype=torch.float64)
    """
    check_int(1, subsampling=subsampling)
    t = torch.arange(-subsampling, subsampling + 1, dtype=torch.float64)
    taps = torch.exp(-((t / subsampling) ** 2))
    return taps / taps.sum()


# The network ----------------------------------------------------------------------


class CKN(nn.Module):
    """CKN layers one after the other, with a linear classifier once `fit` has made one.

    Chapter 5, eqs. (5.17) to (5.19). The state dict holds anchors, kernel parameters
    and classifier; loading one into a network of the same layers restores all three.

    Args:
        layers: CKNLayers; each takes as many channels as the one before it gives.
        num_classes: with `image_size`, the classifier exists from the start, drawn at
            random as by nn.Linear, ready to be trained with the anchors.
        image_size: (h, w) of the images, or one number for both.
    Raises ValueError if channels do not chain or one of the last two is missing.

    >>> net = CKN([CKNLayer(1, 4, 3, subsampling=2), CKNLayer(4, 6, 2)])
    >>> net.encode(torch.ones(2, 1, 9, 9)).shape
    torch.Size([2, 54])
    """

    def __init__(
        self,
        layers: Iterable[CKNLayer],
        *,
        num_classes: int | None = None,
        image_size: int | tuple[int, int] | None = None,
    ):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        _check_chain(self.layers)
        if (num_classes is None) != (image_size is None):
            raise ValueError(
                "num_classes and image_size must be given together, got "
                f"{num_classes!r} and {image_size!r}"
            )
        self.classifier: nn.Linear | None = None
        if num_classes is not None:
            check_int(1, num_classes=num_classes)
            (size,) = per_axis(1, 2, image_size=image_size)
            blank = torch.zeros(1, self.layers[0].in_channels, *size)
            with torch.no_grad():
                self.classifier = nn.Linear(self.encode(blank).shape[1], num_classes)
        self.register_load_state_dict_pre_hook(_room_for_classifier)

    def maps(self, images: Tensor) -> list[Tensor]:
        """What each layer makes of images (b, c, h, w): one (b, p, ., .) a layer."""
        maps = [images]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        return maps[1:]

    def encode(self, images: Tensor, *, batch_size: int = 50) -> Tensor:
        """The last map of each image as a vector, (b, p h w), batch by batch."""
        check_int(1, batch_size=batch_size)
        whitenings = [layer.whitening() for layer in self.layers]
        parts = []
        for maps in images.split(batch_size):
            for layer, whitening in zip(self.layers, whitenings, strict=True):
                maps = layer(maps, whitening)
            parts.append(maps.flatten(1))
        return torch.cat(parts)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (b, classes); without a classifier the encoding (b, p h w)."""
        encoding = self.encode(images)
        return encoding if self.classifier is None else self.classifier(encoding)

    def objective(self, images: Tensor, labels: Tensor, penalty: float) -> Tensor:
        """Mean cross-entropy + penalty/2 |W|^2, eq. (5.19)."""
        weight = self._fitted().weight
        loss = F.cross_entropy(self.classifier(self.encode(images)), labels)
        return loss + penalty / 2 * weight.square().sum()

    @torch.no_grad()
    def fit_unsupervised(
        self,
        images: Tensor,
        *,
        patches: int = 30_000,
        sample: int = 1000,
        iterations: int = 20,
        seed: int = 0,
        progress: bool = False,
    ) -> "CKN":
        """Anchors of every layer by spherical k-means, no labels; eq. (5.16).

        Args:
            images: (b, c, h, w). sample: images looked at, drawn without replacement.
            patches: how many a layer are clustered. iterations: of k-means, at most.
            seed: decides all draws. progress: draw a bar on stderr.
        Returns the network itself. Raises ValueError as random_patches does.
        """
        check_int(1, patches=patches, sample=sample, iterations=iterations)
        draw = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(images), generator=draw)[:sample]
        maps = images[chosen.to(images.device)]
        for layer in _bar(self.layers, "layers", progress):
            x = random_patches(maps, layer.kernel_size, patches, generator=draw)
            layer.anchors.copy_(
                spherical_kmeans(
                    x, layer.out_channels, generator=draw, iterations=iterations
                )
            )
            whitening = layer.whitening()
            maps = torch.cat([layer(part, whitening) for part in maps.split(50)])
        return self

    def fit(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        penalty: float = 1e-3,
        seed: int = 0,
        progress: bool = False,
        **unsupervised,
    ) -> "CKN":
        """Unsupervised anchors, then the linear classifier in closed form.

        Args:
            images: (b, c, h, w). labels: (b,), int64, 0 to classes - 1.
            penalty: of ridge_classifier.
            seed, progress, unsupervised: of fit_unsupervised.
        Returns the network itself. Raises ValueError as ridge_classifier and
            fit_unsupervised do, for labels and penalty before any work.
        """
        _check_ridge(images, labels, penalty)
        self.fit_unsupervised(images, seed=seed, progress=progress, **unsupervised)
        with torch.no_grad():
            self.classifier = ridge_classifier(self.encode(images), labels, penalty)
        return self

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """The class (b,) of the largest score."""
        self._fitted()
        return self(images).argmax(1)

    def score(self, images: Tensor, labels: Tensor) -> float:
        """The fraction of images whose predicted class is their label, (b,)."""
        self._fitted()
        _check_one_each(images, labels)
        return (self.predict(images) == labels).double().mean().item()

    def _fitted(self) -> nn.Linear:
        if self.classifier is None:
            raise ValueError("the network must be fitted first: it has no classifier")
        return self.classifier


def _check_chain(layers: nn.ModuleList) -> None:
    if len(layers) == 0:
        raise ValueError("layers must hold at least one CKNLayer, got none")
    for i, (before, after) in enumerate(pairwise(layers), start=1):
        if after.in_channels != before.out_channels:
            raise ValueError(
                f"layers[{i}] must take {before.out_channels} channels, got "
                f"{after.in_channels}"
            )


def _room_for_classifier(net: CKN, state: dict, prefix: str, *unused) -> None:
    """Before a state dict is loaded: a classifier of the size that it holds."""
    weight = state.get(f"{prefix}classifier.weight")
    if weight is not None and net.classifier is None:
        like = net.layers[0].anchors
        shape = weight.shape[1], weight.shape[0]
        net.classifier = nn.utils.skip_init(nn.Linear, *shape).to(like)


def ridge_classifier(x: Tensor, labels: Tensor, penalty: float = 1e-3) -> nn.Linear:
    """The linear map W x + b nearest to +1 at the label and -1 elsewhere, ridged.

    Chapter 5, eq. (5.18): least squares in closed form, so a deterministic classifier.
    It minimises the sum of |t - W x - b|^2 plus penalty m |W|^2 with m the mean
    squared norm of the centred x, which makes `penalty` free of the scale of x. From
    one sample, or equal ones, W is 0.

    Args:
        x: (n, d), float32 or float64. labels: (n,), int64, 0 to classes - 1.
        penalty: > 0.
    Returns an nn.Linear(d, classes). Raises ValueError for other shapes or ranges.
    Cost: the smaller of n and d decides: 2 n d min(n, d) for products, min(n, d)^3 / 3.

    >>> x = torch.tensor([[1.0], [2.0], [8.0], [9.0]])
    >>> ridge_classifier(x, torch.tensor([0, 0, 1, 1]))(x).argmax(1)
    tensor([0, 0, 1, 1])
    """
    check_float(x=x)
    if x.ndim != 2:
        raise ValueError(f"x must be (n, d), got shape {tuple(x.shape)}")
    _check_ridge(x, labels, penalty)
    targets = 2 * F.one_hot(labels).to(x.dtype) - 1
    centre, bias = x.mean(0), targets.mean(0)
    weight = _ridge(x - centre, targets - bias, penalty)  # (d, classes)
    linear = nn.utils.skip_init(nn.Linear, *weight.shape).to(x)
    with torch.no_grad():
        linear.weight.copy_(weight.mT)
        linear.bias.copy_(bias - centre @ weight)
    return linear


def _check_ridge(samples: Tensor, labels: Tensor, penalty: float) -> None:
    check_number(0, penalty=penalty)
    if penalty == 0:
        raise ValueError(f"penalty must be > 0, got {penalty!r}")
    _check_one_each(samples, labels)
    if labels.dtype != torch.int64 or labels.min() < 0:
        raise ValueError(
            f"labels must be int64 and >= 0, got {labels.dtype}, from {labels.min()}"
        )


def _check_one_each(samples: Tensor, labels: Tensor) -> None:
    if len(samples) == 0 or labels.shape != samples.shape[:1]:
        raise ValueError(
            f"labels must be one a sample, ({len(samples)},), at least one, got shape "
            f"{tuple(labels.shape)}"
        )


def _ridge(x: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """(x^T x + r I)^-1 x^T t = x^T (x x^T + r I)^-1 t: whichever matrix is smaller."""
    ridge = penalty * x.square().sum(1).mean()
    ridge = torch.where(ridge > 0, ridge, 1)  # at x = 0 any one gives the solution 0
    narrow = x.shape[1] <= x.shape[0]
    gram = x.mT @ x if narrow else x @ x.mT
    gram.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(gram)
    if narrow:
        return torch.cholesky_solve(x.mT @ targets, factor)
    return x.mT @ torch.cholesky_solve(targets, factor)


def _bar(items, label: str, shown: bool):
    """Yield items; if shown, draw how far on stderr."""
    for done, item in enumerate(items):
        if shown:
            sys.stderr.write(f"\r{label} [{'#' * done:<{len(items)}}] ")
        yield item
    if shown:
        sys.stderr.write(f"\r{label} [{'#' * len(items)}] {len(items)}/{len(items)}\n")
