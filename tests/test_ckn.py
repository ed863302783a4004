"""Convolutional kernel networks in torch: definitions, numbers by hand, identities."""

import math
import pickle
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from ckutils.checks import agree
from ckutils.ckn import (
    CKN,
    KERNELS,
    CKNLayer,
    Exponential,
    _centroids,
    arc_cosine_kernel,
    exponential_kernel,
    gaussian_taps,
    inverse_sqrt,
    nystrom_features,
    polynomial_kernel,
    random_patches,
    ridge_classifier,
    spherical_kmeans,
    spherical_kmeans_ref,
)
from ckutils.datasets import fashion_mnist_small

FLOAT64 = torch.float64
EPS32 = torch.finfo(torch.float32).eps
quick = settings(deadline=None, max_examples=25, derandomize=True)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=FLOAT64):
    return torch.randn(*shape, generator=seeded(seed), dtype=FLOAT64).to(dtype)


def unit(*shape, seed=0):
    return F.normalize(normal(*shape, seed=seed), dim=-1)


def kappa(u):
    return exponential_kernel(u, 4.0)


# Kernels


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_is_one_at_one_and_its_slope_is_finite_at_both_ends(name):
    u = torch.tensor([-1.0, 0.0, 1.0], dtype=FLOAT64, requires_grad=True)
    k = KERNELS[name]().double() if name == "exponential" else KERNELS[name]()
    value = k(u)
    agree(f"{name} at 1", value[2], torch.tensor(1.0), tol=1e-15)
    (slope,) = torch.autograd.grad(value.sum(), u)
    assert torch.isfinite(slope).all(), f"{name}: {slope}"
    inside = torch.linspace(-0.9, 0.9, 7, dtype=FLOAT64, requires_grad=True)
    assert gradcheck(k, (inside,))


def test_exponential_kernel_is_the_gaussian_of_unit_vectors_and_only_of_those():
    x = unit(20, 5)
    square = torch.cdist(x, x).square()
    agree("unit", kappa(x @ x.T), torch.exp(-2 * square), tol=1e-12)
    y = 2 * x
    gap = kappa(y @ y.T) - torch.exp(-2 * torch.cdist(y, y).square())
    assert gap.abs().max() > 1


def test_arc_cosine_kernel_by_hand_and_as_the_mean_of_random_relus():
    got = arc_cosine_kernel(torch.tensor([-1.0, 0.0, 0.5, 1.0], dtype=FLOAT64))
    half = (math.sqrt(3) / 2 + 0.5 * (math.pi - math.pi / 3)) / math.pi
    agree("by hand", got, torch.tensor([0, 1 / math.pi, half, 1.0]), tol=1e-7)
    w, x = normal(400_000, 3), unit(2, 3, seed=1)
    relu = (w @ x.T).clamp_min(0)
    mean = 2 * (relu[:, 0] * relu[:, 1]).mean()
    spread = 2 * (relu[:, 0] * relu[:, 1]).std() / len(w) ** 0.5
    agree("random ReLUs", mean, arc_cosine_kernel(x[0] @ x[1]), tol=5 * float(spread))


def test_arc_cosine_slope_at_the_ends_where_autograd_is_nan():
    u = torch.tensor([-1.0, 1.0], dtype=FLOAT64, requires_grad=True)
    arc_cosine_kernel(u).sum().backward()
    agree("slopes", u.grad, torch.tensor([0.0, 1.0]), tol=0)
    naive = ((1 - u * u).sqrt() + u * (math.pi - u.acos())) / math.pi
    (slope,) = torch.autograd.grad(naive.sum(), u)
    assert not torch.isfinite(slope).any()


def test_arc_cosine_kernel_puts_back_what_rounding_carried_beyond_one():
    agree("1 + eps", arc_cosine_kernel(torch.tensor(1 + EPS32)), 1.0, tol=0)


def test_polynomial_kernel_is_its_feature_map():
    x = normal(6, 3)
    square = (x[:, :, None] * x[:, None]).flatten(1)  # all products of two entries
    agree("degree 2", polynomial_kernel(x @ x.T, 2), square @ square.T, tol=1e-12)
    one = torch.ones(6, 1, dtype=FLOAT64)
    lifted = torch.cat([x, one], 1) / 2**0.5
    want = (lifted @ lifted.T) ** 3
    agree("offset", polynomial_kernel(x @ x.T, 3, offset=1.0), want, tol=1e-12)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf])
def test_exponential_kernel_refuses_a_beta_that_is_not_positive(beta):
    with pytest.raises(ValueError, match="beta must be"):
        exponential_kernel(torch.ones(1), beta)
    with pytest.raises(ValueError, match="beta must be a number > 0"):
        Exponential(beta)


def test_exponential_kernel_stretches_beta_and_never_u():
    u, beta = torch.tensor([[0.0, 0.5], [1.0, -1.0]]), torch.tensor([[1.0], [2.0]])
    want = [[math.exp(-1), math.exp(-0.5)], [1, math.exp(-4)]]
    agree("a beta a row", exponential_kernel(u, beta), want, tol=EPS32)
    agree("one beta", exponential_kernel(u, torch.tensor(0.0)), torch.ones(2, 2), tol=0)
    for size, shape in [((3,), (2, 3)), ((1,), (3,)), ((2, 3), (2,)), ((), (1,))]:
        with pytest.raises(ValueError, match=r"beta must fit the shape of u, .* got"):
            exponential_kernel(torch.zeros(size), torch.ones(shape))


def test_kernels_refuse_what_they_cannot_take():
    with pytest.raises(ValueError, match="u must be float32 or float64"):
        exponential_kernel(torch.ones(1, dtype=torch.int64), 1.0)
    with pytest.raises(ValueError, match="u must be a torch tensor"):
        arc_cosine_kernel(0.5)
    with pytest.raises(ValueError, match="degree must be an integer >= 1, got 0"):
        polynomial_kernel(torch.ones(1), 0)
    with pytest.raises(ValueError, match="offset must be a number >= 0, got -1"):
        polynomial_kernel(torch.ones(1), 2, offset=-1)


def test_a_negative_taylor_coefficient_gives_a_negative_eigenvalue():
    """CN-08: u^2 - u/4 is smooth and kappa(1) > 0, but no kernel on the sphere."""
    x = unit(200, 5)
    u = x @ x.T
    assert torch.linalg.eigvalsh(u**2 - u / 4)[0] < -1
    for kernel in (kappa, arc_cosine_kernel, lambda u: u**2):
        assert torch.linalg.eigvalsh(kernel(u))[0] > -1e-12 * len(x)


# The inverse square root


def grams():
    x = unit(6, 4)
    repeated = x[[0, 1, 2, 0, 0, 5]]
    return {
        "random": kappa(x @ x.T),
        "identity": torch.eye(5, dtype=FLOAT64),
        "duplicates": kappa(repeated @ repeated.T),
        "zero": torch.zeros(3, 3, dtype=FLOAT64),
    }


@pytest.mark.parametrize("method", ["eigh", "newton_schulz"])
@pytest.mark.parametrize("name", ["random", "identity", "duplicates"])
def test_inverse_sqrt_gradcheck(name, method):
    gram = grams()[name].requires_grad_()
    assert gradcheck(lambda a: inverse_sqrt(a, 1e-3, method=method), (gram,))
    # second differences need a ridge that their step does not touch
    assert gradgradcheck(lambda a: inverse_sqrt(a, 1e-1, method=method), (gram,))


@pytest.mark.parametrize("method", ["eigh", "newton_schulz"])
@pytest.mark.parametrize("name", ["random", "identity", "duplicates", "zero"])
def test_inverse_sqrt_is_defined_by_its_square(name, method):
    gram = grams()[name]
    s = inverse_sqrt(gram, 1e-2, method=method)
    eye = torch.eye(len(gram), dtype=FLOAT64)
    agree(name, s @ (gram + 1e-2 * eye) @ s, eye, tol=1e-11)
    agree(f"{name} symmetric", s, s.T, tol=1e-13)


def test_inverse_sqrt_gradient_is_daleckii_krein_from_finite_differences_of_scalars():
    """Eq. (5.21) with diagonal gram: divided differences of 1/sqrt, equal ones too."""
    values = torch.tensor([1.0, 4.0, 4.0], dtype=FLOAT64)
    gram = torch.diag(values).requires_grad_()
    want = torch.tensor([[-1 / 2, -1 / 6, -1 / 6], [-1 / 6, -1 / 16, -1 / 16]])
    for i in range(2):
        for j in range(3):
            (grad,) = torch.autograd.grad(inverse_sqrt(gram, 0.0)[i, j], gram)
            got = grad[i, j] if i == j else grad[i, j] + grad[j, i]
            agree(f"entry {i}{j}", got, want[i, j], tol=1e-7)


def test_inverse_sqrt_gradient_of_the_two_methods_agrees_in_batches():
    x = unit(2, 7, 5)
    gram = kappa(x @ x.mT).requires_grad_()
    weight = normal(2, 7, 7, seed=3)
    grads = [
        torch.autograd.grad((inverse_sqrt(gram, 1e-3, method=m) * weight).sum(), gram)
        for m in ("eigh", "newton_schulz")
    ]
    scale = float(grads[0][0].abs().max())
    agree("gradients", grads[1][0], grads[0][0], tol=1e-9 * scale)


def test_autograd_through_eigh_is_nan_where_ours_is_finite():
    gram = torch.eye(4, dtype=FLOAT64, requires_grad=True)
    weight = normal(4, 4)

    def naive(a):
        values, vectors = torch.linalg.eigh(a)
        return (vectors * values.rsqrt()) @ vectors.mT

    (bad,) = torch.autograd.grad((naive(gram) * weight).sum(), gram)
    (good,) = torch.autograd.grad((inverse_sqrt(gram, 0.0) * weight).sum(), gram)
    assert not torch.isfinite(bad).all()
    agree("-1/2 of the symmetric part", good, -(weight + weight.T) / 4, tol=1e-14)


@pytest.mark.parametrize("condition", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("p", [1, 5, 64, 200])
def test_newton_schulz_in_float32_is_within_1e5_of_float64_eigh(p, condition):
    vectors = torch.linalg.qr(normal(p, p, seed=p))[0]
    values = torch.logspace(0, -math.log10(condition), p, dtype=FLOAT64)
    gram = ((vectors * values) @ vectors.T).float()
    got = inverse_sqrt(gram, 1e-12, method="newton_schulz")
    assert got.dtype == torch.float32
    want = inverse_sqrt(gram.double(), 1e-12)
    agree(f"{p=} {condition=}", got, want, tol=1e-5)


def test_inverse_sqrt_without_ridge_takes_the_root_on_the_range():
    gram = torch.tensor([[2.0, 2.0], [2.0, 2.0]], dtype=FLOAT64)  # eigenvalues 4 and 0
    agree("range", inverse_sqrt(gram, 0.0), torch.full((2, 2), 0.25), tol=1e-15)


@pytest.mark.parametrize("method", ["eigh", "newton_schulz"])
@pytest.mark.parametrize("shape", [(0, 3, 3), (0, 0), (2, 0, 0)])
def test_inverse_sqrt_of_no_numbers(shape, method):
    gram = torch.zeros(shape, requires_grad=True)
    root = inverse_sqrt(gram, method=method)
    (grad,) = torch.autograd.grad(root.sum(), gram)
    assert root.shape == grad.shape == shape


def test_inverse_sqrt_says_what_it_refuses():
    square = torch.eye(2)
    with pytest.raises(ValueError, match=r"gram must be square, got shape \(2, 3\)"):
        inverse_sqrt(torch.ones(2, 3))
    with pytest.raises(ValueError, match="eps must be a number >= 0, got -1"):
        inverse_sqrt(square, -1)
    with pytest.raises(ValueError, match="method must be one of 'eigh', 'newton_sch"):
        inverse_sqrt(square, method="svd")
    with pytest.raises(ValueError, match="eps must be > 0 for newton_schulz, got 0"):
        inverse_sqrt(square, 0, method="newton_schulz")
    with pytest.raises(ValueError, match="gram must be float32 or float64"):
        inverse_sqrt(torch.eye(2, dtype=torch.float16))


# Nystrom features


def gram_ref(x, kernel):
    """|x| |x'| kappa(cos), pair by pair, float64."""
    x = x.double()
    rows = [[_pair(a, b, kernel) for b in x] for a in x]
    return torch.stack([torch.stack(row) for row in rows])


def _pair(a, b, kernel):
    if a.norm() == 0 or b.norm() == 0:
        return torch.zeros((), dtype=FLOAT64)
    return a.norm() * b.norm() * kernel(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("kernel", [kappa, arc_cosine_kernel, lambda u: u**2])
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("dtype, tol", [(torch.float32, 1e-6), (FLOAT64, 1e-10)])
def test_nystrom_features_of_the_anchors_reproduce_the_gram_matrix(
    dtype, tol, copies, kernel
):
    x = normal(40, 9, dtype=dtype)
    psi = nystrom_features(x, x.repeat(copies, 1), kernel)
    assert psi.dtype == dtype
    scale = x.double().norm(dim=1)
    scale = scale[:, None] * scale
    want = gram_ref(x, kernel)
    agree("Gram", (psi @ psi.T) / scale, want / scale, tol=tol)


def test_nystrom_features_are_a_projection():
    """<psi(x), psi(z)> = K(x, z) at an anchor z; the residual Gram matrix is >= 0."""
    x, z = normal(30, 4), unit(6, 4, seed=1)
    psi, at_anchors = nystrom_features(x, z, kappa), nystrom_features(z, z, kappa)
    both = gram_ref(torch.cat([x, z]), kappa)
    agree("at anchors", psi @ at_anchors.T, both[:30, 30:], tol=1e-10)
    residual = both[:30, :30] - psi @ psi.T
    assert torch.linalg.eigvalsh(residual)[0] > -1e-10


@quick
@given(d=st.integers(1, 12), p=st.integers(1, 15), seed=st.integers(0, 2**31))
@example(d=1, p=15, seed=0)  # many anchors, two directions: a Gram matrix of rank 2
def test_encoding_norms(d, p, seed):
    x, z = normal(7, d, seed=seed), unit(p, d, seed=seed + 1)
    psi = nystrom_features(x, z, kappa)
    slack = 1e-9 * x.norm(dim=1)
    assert (psi.norm(dim=1) <= x.norm(dim=1) + slack).all()
    at_anchors = nystrom_features(3 * z, z, kappa).norm(dim=1)
    agree("equality at anchors", at_anchors, torch.full((p,), 3.0), tol=1e-9)
    scaled = nystrom_features(2.5 * x, z, kappa)
    agree("phi(c p) = c phi(p)", scaled, 2.5 * psi, tol=1e-10 * float(x.norm()) * p)


def test_nystrom_features_with_a_ridge_stay_below_and_move_little():
    x, z = normal(20, 5), unit(8, 5, seed=1)
    exact, ridged = (nystrom_features(x, z, kappa, eps) for eps in (0.0, 1e-3))
    assert (ridged.norm(dim=1) < exact.norm(dim=1)).all()


def test_nystrom_features_of_zero_rows_and_zero_anchors():
    x = torch.cat([normal(3, 4), torch.zeros(1, 4)])
    psi = nystrom_features(x, x, kappa)
    agree("zero patch", psi[3], torch.zeros(4), tol=0)
    agree("Gram", psi @ psi.T, gram_ref(x, kappa), tol=1e-10)


def test_nystrom_features_gradients_are_finite_at_a_zero_patch_and_right_elsewhere():
    z = unit(3, 4, seed=1).requires_grad_()
    x = normal(5, 4).requires_grad_()

    def features(x, z):
        return nystrom_features(x, z, kappa, 1e-3)

    assert gradcheck(features, (x, z))
    zero = torch.zeros(1, 4, dtype=FLOAT64, requires_grad=True)
    features(zero, z).sum().backward()
    agree("gradient at 0", zero.grad, torch.zeros(1, 4), tol=0)


def test_nystrom_features_gradient_is_finite_with_repeated_anchors_and_no_ridge():
    z = unit(3, 4).repeat(2, 1).requires_grad_()
    nystrom_features(normal(5, 4), z, kappa).sum().backward()
    assert torch.isfinite(z.grad).all()


def test_nystrom_features_say_what_they_refuse():
    with pytest.raises(ValueError, match=r"must be \(n, d\) and \(p, d\), got shapes"):
        nystrom_features(torch.ones(2, 3), torch.ones(2, 4), kappa)
    with pytest.raises(ValueError, match="anchors must have the dtype"):
        nystrom_features(torch.ones(2, 3), torch.ones(2, 3, dtype=FLOAT64), kappa)
    with pytest.raises(ValueError, match="eps must be a number >= 0"):
        nystrom_features(torch.ones(2, 3), torch.ones(2, 3), kappa, -1.0)


# Patches and k-means


def test_random_patches_are_windows_of_the_images_and_never_constant():
    maps = torch.zeros(3, 2, 6, 5, dtype=FLOAT64)
    maps[1] = normal(2, 6, 5)
    maps[2] = 7.0  # constant, not zero
    got = random_patches(maps, (2, 3), 40, generator=seeded())
    assert got.shape == (40, 12)
    windows = maps.unfold(2, 2, 1).unfold(3, 3, 1)  # (b, c, h', w', 2, 3)
    windows = windows[1].permute(1, 2, 0, 3, 4).reshape(-1, 12)
    nearest = torch.cdist(got, windows).min(1)
    agree("is a window", nearest.values, torch.zeros(40), tol=1e-7)
    assert len(nearest.indices.unique()) > 10  # of the 15 places of one image


def test_random_patches_are_spread_over_images_and_places():
    images = torch.arange(20.0)[:, None, None, None] + torch.rand(20, 1, 5, 5) / 2
    got = random_patches(images, 2, 4000, generator=seeded())
    counts = got.mean(1).floor().long().bincount(minlength=20)
    assert ((counts - 200).abs() < 5 * 14).all()  # binomial: sigma 13.8


def test_random_patches_say_what_they_refuse():
    draw = seeded()
    with pytest.raises(ValueError, match=r"maps must be \(b, c, h, w\) with room for"):
        random_patches(torch.ones(1, 1, 2, 9), 3, 1, generator=draw)
    with pytest.raises(ValueError, match="maps must vary: only 0 of 50 patches do"):
        random_patches(torch.ones(1, 1, 4, 4), 3, 1, generator=draw)
    with pytest.raises(ValueError, match="count must be an integer >= 1, got 0"):
        random_patches(torch.ones(1, 1, 4, 4), 3, 0, generator=draw)


@quick
@given(
    n=st.integers(1, 300),
    p=st.integers(1, 12),
    d=st.integers(2, 6),
    seed=st.integers(0),
)
@example(n=12, p=12, d=2, seed=0)
def test_spherical_kmeans_is_its_loop(n, p, d, seed):
    # two axes at least: on a line all rows of a side tie, and ties are nobody's rule
    x, p = normal(n, d, seed=seed % 2**31), min(n, p)
    got = spherical_kmeans(x, p, generator=seeded(1))
    want = spherical_kmeans_ref(x, p, generator=seeded(1))
    agree(f"{n=} {p=} {d=} {seed=}", got, want, tol=1e-9)
    agree("unit rows", got.norm(dim=1), torch.ones(p), tol=1e-12)


def test_spherical_kmeans_finds_planted_directions():
    centres = torch.eye(4, dtype=FLOAT64)
    x = centres.repeat(50, 1) * (1 + torch.arange(200)[:, None]) + 0.01 * normal(200, 4)
    got = spherical_kmeans(x, 4, generator=seeded(2), iterations=50, tol=0)
    found = (got @ centres.T).max(0).values
    # a start may hold two rows of one direction; then two others share a centroid
    assert (found > 0.7).all() and (got.norm(dim=1) - 1).abs().max() < 1e-12


def test_spherical_kmeans_never_loses_ground():
    x = normal(500, 3)
    now = -1.0
    for iterations in range(1, 12):
        z = spherical_kmeans(x, 9, generator=seeded(), iterations=iterations, tol=0)
        last, now = now, (F.normalize(x, dim=1) @ z.T).max(1).values.mean()
        assert now >= last - 1e-12, f"{iterations=}: {now} < {last}"


def test_spherical_kmeans_reseeds_an_empty_cluster():
    """Two equal starts leave one empty: it moves to the row that fits worst."""
    x = torch.tensor([[1.0, 0.0]] * 6 + [[0.0, 1.0]], dtype=FLOAT64)
    for seed in range(8):
        z = spherical_kmeans(x, 2, generator=seeded(seed))
        agree(f"{seed=}", z.sum(0), torch.ones(2), tol=1e-12)


def test_empty_clusters_take_the_worst_rows_one_each():
    x = torch.eye(5, dtype=FLOAT64)
    similarity = torch.tensor([0.9, 0.2, 0.8, 0.7, 0.1], dtype=FLOAT64)
    labels = torch.tensor([0, 0, 2, 2, 2])
    got = _centroids(x, similarity, labels, 4)  # clusters 1 and 3 are empty
    half, third = 2**-0.5, 3**-0.5
    want = [
        [half, half, 0, 0, 0],
        [0, 0, 0, 0, 1.0],
        [0, 0] + 3 * [third],
        x[1].tolist(),
    ]
    agree("by hand", got, torch.tensor(want, dtype=FLOAT64), tol=1e-15)


def test_spherical_kmeans_says_what_it_refuses():
    with pytest.raises(ValueError, match=r"at most the 2 non-zero rows of x, got 3"):
        x = torch.tensor([[1.0, 2.0], [0.0, 0.0], [2.0, 1.0]])
        spherical_kmeans(x, 3, generator=seeded())
    with pytest.raises(ValueError, match=r"x must be \(n, d\), got shape \(3,\)"):
        spherical_kmeans(torch.ones(3), 1, generator=seeded())
    for wrong in (math.inf, math.nan, 2.0**100):  # the last one's square is infinite
        x = torch.ones(3, 2)
        x[1, 0] = wrong
        with pytest.raises(ValueError, match="x must be finite, its norms too, got "):
            spherical_kmeans(x, 2, generator=seeded())
    with pytest.raises(ValueError, match="iterations must be an integer >= 1"):
        spherical_kmeans(torch.ones(3, 1), 1, generator=seeded(), iterations=0)
    with pytest.raises(ValueError, match="tol must be a number >= 0"):
        spherical_kmeans(torch.ones(3, 1), 1, generator=seeded(), tol=-1.0)


# The layer


def layer_ref(layer, maps):
    """Eq. (5.14) patch by patch and tap by tap, whitening before pooling."""
    (kh, kw), (ph, pw) = layer.kernel_size, layer.padding
    padded = F.pad(maps, (pw, pw, ph, ph))
    high, wide = padded.shape[2] - kh + 1, padded.shape[3] - kw + 1
    white = maps.new_zeros(len(maps), layer.out_channels, high, wide)
    for i in range(high):
        for j in range(wide):
            patches = padded[:, :, i : i + kh, j : j + kw].flatten(1)
            white[:, :, i, j] = nystrom_features(
                patches, layer.anchors, layer.kernel, layer.eps
            )
    s = layer.subsampling
    if s == 1:
        return white
    rows = []
    for i in range(0, high, s):
        for j in range(0, wide, s):
            total = maps.new_zeros(white.shape[:2])
            for di, dj in product(range(-s, s + 1), repeat=2):
                if 0 <= i + di < high and 0 <= j + dj < wide:
                    weight = layer.taps[di + s] * layer.taps[dj + s]
                    total = total + weight * white[:, :, i + di, j + dj]
            rows.append(total)
    shape = (len(range(0, high, s)), len(range(0, wide, s)))
    return torch.stack(rows, -1).unflatten(-1, shape)


@quick
@given(
    c=st.integers(1, 3),
    p=st.integers(1, 6),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    s=st.integers(1, 3),
    padding=st.integers(0, 2),
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    name=st.sampled_from(sorted(KERNELS)),
    seed=st.integers(0, 2**31),
)
@example(2, 4, (2, 3), 2, 1, (7, 5), "arc_cosine", 0)
def test_layer_is_its_definition(c, p, kernel, s, padding, size, name, seed):
    torch.manual_seed(seed)
    layer = CKNLayer(c, p, kernel, kernel=name, subsampling=s, padding=padding)
    layer = layer.double()
    maps = torch.randn(2, c, *size, dtype=FLOAT64)
    maps[0, :, :3, :3] = 0
    with torch.no_grad():
        agree(f"{seed=}", layer(maps), layer_ref(layer, maps), tol=1e-8)


def test_pooling_and_whitening_commute():
    layer = CKNLayer(3, 8, 3, subsampling=2, padding=1).double()
    maps = normal(2, 3, 9, 8)
    whitening, features = layer.whitening(), layer.kernel_map(maps)

    def white(x):
        return torch.einsum("qp,bphw->bqhw", whitening, x)

    first, last = white(layer.pool(features)), layer.pool(white(features))
    agree("pool, whiten", first, last, tol=1e-12 * whitening.abs().sum().item())


def test_layer_scales_with_its_input_and_is_zero_on_zero():
    layer = CKNLayer(2, 5, 3, subsampling=2).double()
    maps = normal(1, 2, 8, 8)
    out = layer(maps)
    agree("phi(c p) = c phi(p)", layer(1e-3 * maps), 1e-3 * out, tol=1e-15)
    agree("zero", layer(0 * maps), 0 * out, tol=0)


def test_layer_keeps_patch_norms_where_anchors_are_the_patches():
    layer = CKNLayer(1, 4, 2, eps=1e-10).double()
    maps = normal(1, 1, 3, 3)
    with torch.no_grad():
        layer.anchors.copy_(F.unfold(maps, 2)[0].T)
        got = layer(maps).norm(dim=1, keepdim=True)
    agree("norms", got, layer.patch_norms(maps), tol=1e-8)


def test_layer_gradcheck_and_a_zero_patch():
    layer = CKNLayer(2, 3, 2, subsampling=2).double()
    maps = normal(1, 2, 5, 4).requires_grad_()
    assert gradcheck(layer, (maps,))
    learned = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())
    names = [name for name, _ in layer.named_parameters()]

    def run(*values):
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, given, (maps.detach(),))

    assert gradcheck(run, learned)
    zero = torch.zeros(1, 2, 5, 4, dtype=FLOAT64, requires_grad=True)
    layer(zero).sum().backward()
    agree("gradient at 0", zero.grad, torch.zeros(1, 2, 5, 4), tol=0)


def test_float32_layer_is_the_float64_layer():
    layer = CKNLayer(3, 16, 3, subsampling=2, padding=1)
    maps = normal(2, 3, 12, 12, dtype=torch.float32)
    got = layer(maps)
    whitening = layer.whitening().abs().sum(1).max().item()
    bound = 30 * EPS32 * whitening * float(layer.patch_norms(maps).max())
    agree("float32", got, layer.double()(maps.double()), tol=bound)


def test_gaussian_taps_are_the_sampled_gaussian():
    taps = gaussian_taps(2)
    agree("ratio", taps[4] / taps[2], math.exp(-1), tol=1e-15)
    agree("sum", taps.sum(), 1.0, tol=1e-15)
    with pytest.raises(ValueError, match="subsampling must be an integer >= 1"):
        gaussian_taps(0)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kernel": "gauss"}, "kernel must be one of 'exponential', 'arc_cosine'"),
        ({"kernel": 0.5}, "kernel must be a callable or a name, got 0.5"),
        ({"subsampling": 0}, "subsampling must be an integer >= 1, got 0"),
        ({"padding": -1}, "padding must be an integer >= 0, got -1"),
        ({"eps": -1.0}, "eps must be a number >= 0, got -1"),
        ({"method": "qr"}, "method must be one of 'eigh'"),
    ],
)
def test_layer_says_what_it_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        CKNLayer(1, 2, 3, **options)
    with pytest.raises(ValueError, match=r"maps must be \(b, 2, h, w\), got shape"):
        CKNLayer(2, 2, 3)(torch.ones(1, 1, 5, 5))


@pytest.mark.parametrize(
    "maps, message",
    [
        (
            torch.ones(1, 1, 5, 5, dtype=FLOAT64),
            "maps must have the dtype and device of",
        ),
        (torch.ones(1, 1, 5, 5, dtype=torch.int64), "maps must be float32 or float64"),
        ([[1.0]], "maps must be a torch tensor, got <class 'list'>"),
        (
            torch.ones(1, 1, 5, 2),
            r"maps must have room for kernel_size=\(3, 5\) with pad",
        ),
        (torch.ones(1, 1, 2, 5), r"padding=\(0, 1\), got shape \(1, 1, 2, 5\)"),
        (torch.ones(1, 5, 5), r"maps must be \(b, 1, h, w\), got shape \(1, 5, 5\)"),
    ],
)
def test_layer_says_which_maps_it_refuses(maps, message):
    layer = CKNLayer(1, 2, (3, 5), padding=(0, 1))
    for call in (lambda: layer(maps), lambda: layer(maps=maps)):
        with pytest.raises(ValueError, match=message):
            call()
    assert layer(torch.ones(1, 1, 3, 3)).shape == (1, 2, 1, 1)  # just room
    copied = pickle.loads(pickle.dumps(layer))
    with pytest.raises(ValueError, match=message):
        copied(maps)


# The network


def small_network(**options):
    layers = [CKNLayer(1, 5, 3, subsampling=2, padding=1), CKNLayer(5, 6, 2)]
    return CKN(layers, **options)


def test_network_encodes_in_batches_and_stacks_its_layers():
    net = small_network().double()
    images = normal(7, 1, 9, 8)
    maps = net.maps(images)
    assert [tuple(m.shape) for m in maps] == [(7, 5, 5, 4), (7, 6, 4, 3)]
    agree("batches", net.encode(images, batch_size=3), maps[1].flatten(1), tol=1e-12)
    agree("forward", net(images), net.encode(images), tol=0)


def test_network_learns_every_parameter_and_its_objective_is_written_out():
    net = small_network(num_classes=3, image_size=(9, 8)).double()
    images, labels = normal(6, 1, 9, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    loss = net.objective(images, labels, 0.5)
    scores = net.encode(images) @ net.classifier.weight.T + net.classifier.bias
    picked = scores.log_softmax(1)[torch.arange(6), labels]
    square = net.classifier.weight.square().sum()
    agree("objective", loss, -picked.mean() + 0.25 * square, tol=1e-12)
    loss.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_unsupervised_anchors_are_unit_reproducible_and_need_no_global_seed(capsys):
    images, labels = normal(20, 1, 9, 8, dtype=torch.float32), torch.arange(20) % 3
    states = []
    for seed, progress in ((3, False), (3, True), (4, False)):
        torch.manual_seed(7)
        net = small_network()
        before = torch.get_rng_state()
        net.fit(images, labels, patches=200, seed=seed, progress=progress)
        assert torch.equal(before, torch.get_rng_state())
        states.append(torch.cat([layer.anchors.flatten() for layer in net.layers]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    for layer in net.layers:
        agree("unit", layer.anchors.norm(dim=1), torch.ones(len(layer.anchors)), 1e-5)
    assert "layers [##] 2/2" in capsys.readouterr().err


def test_state_dict_round_trip_with_anchors_beta_and_classifier(tmp_path):
    images, labels = normal(30, 1, 9, 8, dtype=torch.float32), torch.arange(30) % 3
    net = small_network().fit(images, labels, patches=200)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    other = small_network()
    other.load_state_dict(torch.load(tmp_path / "net.pt"))
    assert torch.equal(other(images), net(images))
    assert other.score(images, labels) == net.score(images, labels)
    keys = {"layers.0.anchors", "layers.1.kernel.log_beta", "classifier.weight"}
    assert keys <= set(net.state_dict())


def test_network_says_what_it_refuses():
    with pytest.raises(ValueError, match="layers must hold at least one CKNLayer"):
        CKN([])
    with pytest.raises(ValueError, match=r"layers\[1\] must take 5 channels, got 4"):
        CKN([CKNLayer(1, 5, 3), CKNLayer(4, 6, 2)])
    with pytest.raises(ValueError, match="num_classes and image_size must be given"):
        small_network(num_classes=3)
    with pytest.raises(ValueError, match="the network must be fitted first"):
        small_network().predict(torch.ones(1, 1, 9, 8))
    with pytest.raises(ValueError, match="maps must have room for kernel_size"):
        small_network(num_classes=3, image_size=1)
    with pytest.raises(ValueError, match="image_size must be an int or a tuple of 2"):
        small_network(num_classes=3, image_size=(9, 8, 7))


def test_the_size_of_square_images_is_one_number():
    net = small_network(num_classes=3, image_size=9)
    assert net(torch.ones(2, 1, 9, 9)).shape == (2, 3)


@pytest.mark.parametrize(
    "labels, penalty, message",
    [
        (
            [0],
            1.0,
            r"labels must be one a sample, \(2,\), at least one, got shape \(1,\)",
        ),
        ([[0], [1]], 1.0, r"labels must be one a sample, .* got shape \(2, 1\)"),
        ([0.0, 1.0], 1.0, "labels must be int64 and >= 0, got torch.float32"),
        (torch.tensor([0, 1]).int(), 1.0, "labels must be int64 .* got torch.int32"),
        ([0, -1], 1.0, "labels must be int64 and >= 0, got torch.int64, from -1"),
        ([0, 1], 0.0, "penalty must be > 0, got 0.0"),
        ([0, 1], -1.0, "penalty must be a number >= 0, got -1.0"),
    ],
)
def test_fit_looks_at_labels_and_penalty_before_any_work(labels, penalty, message):
    net, labels = small_network(), torch.as_tensor(labels)
    before = net.layers[0].anchors.detach().clone()
    with pytest.raises(ValueError, match=message):
        net.fit(normal(2, 1, 9, 8, dtype=torch.float32), labels, penalty=penalty)
    assert torch.equal(net.layers[0].anchors, before)
    with pytest.raises(ValueError, match=message):
        ridge_classifier(normal(2, 3), labels, penalty)


def test_no_samples_are_refused():
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\(0,\), at least one, got shape \(0,\)"):
        small_network().fit(torch.zeros(0, 1, 9, 8), none)
    with pytest.raises(ValueError, match=r"\(0,\), at least one, got shape \(0,\)"):
        ridge_classifier(torch.zeros(0, 3), none)


def test_score_broadcasts_no_labels():
    net = small_network(num_classes=2, image_size=(9, 8))
    images = normal(4, 1, 9, 8, dtype=torch.float32)
    labels = net.predict(images)
    assert net.score(images, labels) == 1
    for wrong in (labels[:, None], labels[:1], labels[0]):
        with pytest.raises(ValueError, match=r"labels must be one a sample, \(4,\)"):
            net.score(images, wrong)


@pytest.mark.parametrize("n, d", [(30, 4), (6, 20)])
def test_ridge_classifier_minimises_its_objective(n, d):
    x, labels = normal(n, d) + 3, torch.arange(n) % 3
    linear = ridge_classifier(x, labels, 1e-2)
    targets = 2 * F.one_hot(labels).double() - 1
    mean_square = (x - x.mean(0)).square().sum(1).mean()
    loss = (targets - linear(x)).square().sum()
    loss = loss + 1e-2 * mean_square * linear.weight.square().sum()
    for grad in torch.autograd.grad(loss, (linear.weight, linear.bias)):
        agree("stationary", grad, torch.zeros_like(grad), tol=1e-10)
    with pytest.raises(ValueError, match=r"x must be \(n, d\), got shape"):
        ridge_classifier(x[0], labels)


@pytest.mark.parametrize("x", [torch.ones(1, 3), torch.full((5, 2), 0.5)])
def test_ridge_classifier_of_features_that_do_not_vary_is_the_mean(x):
    labels = torch.tensor([1, 0, 1, 1, 0])[: len(x)]
    linear = ridge_classifier(x, labels)
    targets = 2 * F.one_hot(labels).float() - 1
    agree("weight", linear.weight, torch.zeros_like(linear.weight), tol=0)
    agree("bias", linear.bias, targets.mean(0), tol=0)


def test_unsupervised_network_on_the_shipped_images():
    """At least 87 %, and 4 points above the same classifier on pixels."""
    data = fashion_mnist_small()
    layers = [
        CKNLayer(1, 32, 3, subsampling=2, padding=1),
        CKNLayer(32, 64, 3, subsampling=2, padding=1),
    ]
    net = CKN(layers).fit(data.train_images, data.train_labels)
    score = net.score(data.test_images, data.test_labels)
    pixels = ridge_classifier(data.train_images.flatten(1), data.train_labels)
    guess = pixels(data.test_images.flatten(1)).argmax(1)
    plain = (guess == data.test_labels).double().mean().item()
    assert score >= 0.87 and score >= plain + 0.04, (score, plain)
