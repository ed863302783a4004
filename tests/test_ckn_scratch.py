"""The network without a framework: against torch, differences, and CuPy's names."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ckutils import ckn, ckn_scratch
from ckutils.checks import agree
from ckutils.ckn_scratch import (
    KERNELS,
    Layer,
    array_module,
    descend,
    forward,
    initial,
    loss_and_gradients,
)

LAYERS = [Layer(3, subsampling=2, padding=1), Layer(2, subsampling=3, kernel="")]
WIDTHS, SHAPE = [5, 6], (4, 2, 11, 9)


def layers(kernel="exponential"):
    return [layer._replace(kernel=kernel) for layer in LAYERS]


def problem(dtype=np.float64):
    draw = np.random.default_rng(1)
    images = draw.standard_normal(SHAPE).astype(dtype)
    images[0, :, :5, :5] = 0  # zero patches, in the corner and inside
    start = initial(layers(), WIDTHS, 3, SHAPE, seed=2)
    start[-1]["weight"] *= 30  # so that the gradients of the anchors are not tiny
    start = [{name: value.astype(dtype) for name, value in s.items()} for s in start]
    return images, np.array([0, 2, 1, 2]), start


def torch_network(start, kernel="exponential"):
    """The same network in ckn.py, with the same numbers, in float64."""
    options = [(2, 5, 3, 2, 1), (5, 6, 2, 3, 0)]
    net = ckn.CKN(
        [
            ckn.CKNLayer(c, p, k, kernel=kernel, subsampling=s, padding=padding)
            for c, p, k, s, padding in options
        ],
        num_classes=3,
        image_size=SHAPE[2:],
    ).double()
    with torch.no_grad():
        for layer, learned in zip(net.layers, start, strict=False):
            layer.anchors.copy_(torch.from_numpy(learned["anchors"]))
            if kernel == "exponential":
                layer.kernel.log_beta.copy_(torch.tensor(learned["beta"]).log())
        net.classifier.weight.copy_(torch.from_numpy(start[-1]["weight"]))
        net.classifier.bias.copy_(torch.from_numpy(start[-1]["bias"]))
    return net


def test_the_file_knows_no_deep_learning_framework():
    """Alone, by its path: it needs nothing of the package and no framework."""
    path = Path(ckn_scratch.__file__)
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); "
        "print({'torch', 'jax', 'tensorflow', 'ckutils'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(path)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert run.stdout == "set()\n"


@pytest.mark.parametrize("kernel", KERNELS)
def test_scores_and_all_gradients_are_those_of_torch(kernel):
    images, labels, start = problem()
    loss, gradients = loss_and_gradients(layers(kernel), start, images, labels, 0.1)
    scores, pull = forward(layers(kernel), start, images)
    net = torch_network(start, kernel)
    x = torch.from_numpy(images).requires_grad_()
    objective = net.objective(x, torch.from_numpy(labels), 0.1)
    objective.backward()
    agree("scores", scores, net(x), tol=1e-8)
    agree("loss", loss, objective, tol=1e-8)
    for i, (layer, got) in enumerate(zip(net.layers, gradients, strict=False)):
        agree(f"anchors {i}", got["anchors"], layer.anchors.grad, tol=1e-8)
        if kernel == "exponential":  # torch learns the logarithm
            want = layer.kernel.log_beta.grad / layer.kernel.log_beta.exp()
            agree(f"beta {i}", got["beta"], want, tol=1e-8)
    agree("weight", gradients[-1]["weight"], net.classifier.weight.grad, tol=1e-8)
    agree("bias", gradients[-1]["bias"], net.classifier.bias.grad, tol=1e-8)
    weight = torch.randn(4, 3, dtype=torch.float64)
    (want,) = torch.autograd.grad((net(x) * weight).sum(), x)
    agree("images", pull(weight.numpy())[0], want, tol=1e-8)


def test_twenty_steps_from_the_same_start_give_the_same_losses():
    images, labels, start = problem()
    net, x, y = torch_network(start), torch.from_numpy(images), torch.from_numpy(labels)
    # the same descent in torch, where beta is learned directly
    betas = [torch.tensor(s["beta"], requires_grad=True) for s in start[:-1]]
    for layer, beta in zip(net.layers, betas, strict=True):
        del layer.kernel
        layer.kernel = lambda u, beta=beta: torch.exp(beta * (u - 1))
    learned = list(net.parameters())
    optimiser = torch.optim.SGD([*learned, *betas], lr=1.0)
    for step in range(20):
        loss, gradients = loss_and_gradients(layers(), start, images, labels, 0.01)
        objective = net.objective(x, y, 0.01)
        agree(f"loss {step}", loss, objective, tol=1e-8)
        optimiser.zero_grad()
        objective.backward()
        optimiser.step()
        start = descend(start, gradients, 1.0)
    first = loss_and_gradients(layers(), problem()[2], images, labels, 0.01)[0]
    assert loss < 0.9 * first  # the steps went somewhere


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_finite_differences(kernel):
    images, labels, start = problem()

    def loss(parameters):
        return loss_and_gradients(layers(kernel), parameters, images, labels, 0.1)[0]

    _, gradients = loss_and_gradients(layers(kernel), start, images, labels, 0.1)
    draw, step = np.random.default_rng(0), 1e-6
    for i, learned in enumerate(start):
        for name, value in learned.items():
            way = draw.standard_normal(value.shape)
            sides = []
            for sign in (1, -1):
                moved = [dict(s) for s in start]
                moved[i][name] = value + sign * step * way
                sides.append(loss(moved))
            want = (sides[0] - sides[1]) / (2 * step)
            agree(f"{i} {name}", (gradients[i][name] * way).sum(), want, tol=1e-7)


def test_inverse_sqrt_with_equal_eigenvalues():
    root, pull = ckn_scratch.inverse_sqrt(np.eye(3), 3.0)
    agree("value", root, np.eye(3) / 2, tol=1e-15)
    agree("gradient", pull(np.eye(3)), -np.eye(3) / 16, tol=1e-15)


def test_float32_stays_float32_and_is_near():
    images, labels, start = problem(np.float32)
    loss, gradients = loss_and_gradients(layers(), start, images, labels, 0.1)
    exact, want = loss_and_gradients(layers(), problem()[2], *problem()[:2], 0.1)
    agree("loss", loss, exact, tol=1e-4)
    for got, wide in zip(gradients, want, strict=True):
        for name in got:
            assert got[name].dtype == np.float32, name
            agree(name, got[name], wide[name], tol=1e-3 * abs(wide[name]).max())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"parameters": []}, "parameters must be 2 layers and a classifier, got 0"),
        ({"images": np.ones((4, 9, 9))}, r"images must be \(b, c, h, w\), float32 or"),
        ({"images": np.ones(SHAPE, int)}, r"images must be .* dtype int64"),
        ({"images": np.ones(SHAPE, np.float32)}, r"\['anchors'\] must be float32"),
        ({"layers": [Layer(0), Layer(2)]}, r"layers\[0\].kernel_size must be an int"),
        ({"layers": [Layer(3, 0), Layer(2)]}, r"layers\[0\].subsampling must be an"),
        ({"layers": [Layer(3, 1, -1), Layer(2)]}, r"layers\[0\].padding must be an"),
        ({"layers": [Layer(True), Layer(2)]}, r"\[0\].kernel_size must .* got True"),
        ({"layers": [Layer(3, True), Layer(2)]}, r"\[0\].subsampling must be .* True"),
        ({"layers": [Layer(3), Layer(2, 1, False)]}, r"\[1\].padding must .* False"),
        ({"layers": [Layer(3, kernel="x"), Layer(2)]}, "kernel must be one of expon"),
        ({"layers": [Layer(3, eps=0.0), Layer(2)]}, r"layers\[0\].eps must be > 0"),
        ({"labels": np.array([0])}, r"labels must be \(4,\) integers, got shape"),
        ({"labels": np.ones(4)}, r"labels must be \(4,\) integers, .* dtype float64"),
        ({"labels": np.array([0, 2, 3, 1])}, "labels must be from 0 to 2, got 3"),
        ({"labels": np.array([0, -1, 3, 1])}, "labels must be from 0 to 2, got -1"),
        ({"penalty": -1.0}, "penalty must be a number >= 0, got -1"),
    ],
)
def test_it_says_what_it_refuses(change, message):
    images, labels, start = problem()
    given = {"layers": layers(), "parameters": start, "images": images}
    with pytest.raises(ValueError, match=message):
        loss_and_gradients(**(given | {"labels": labels} | change))


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_the_classifier_has_the_dtype_of_the_images_too(name):
    images, _, start = problem()
    start[-1][name] = start[-1][name].astype(np.float32)
    message = rf"parameters\[2\]\['{name}'\] must be float64 as the images, got float32"
    with pytest.raises(ValueError, match=message):
        forward(layers(), start, images)


def test_initial_says_what_it_refuses():
    with pytest.raises(ValueError, match="widths must be 2 numbers, got"):
        initial(layers(), [3], 2, SHAPE)


# CuPy


def names_used(tree):
    """Every dotted name after `xp.`, with the keyword arguments it is called with."""
    calls = {id(node.func): node for node in ast.walk(tree) if type(node) is ast.Call}
    used = {}
    for node in ast.walk(tree):
        dotted, inner = [], node
        while isinstance(inner, ast.Attribute):
            dotted, inner = [inner.attr, *dotted], inner.value
        if dotted and isinstance(inner, ast.Name) and inner.id == "xp":
            call = calls.get(id(node))
            given = {k.arg for k in call.keywords} if call else set()
            used.setdefault(".".join(dotted), set()).update(given)
    return used


def missing_from(module, used):
    """Names that `module` lacks, and keyword arguments that its functions refuse."""
    missing = []
    for dotted, keywords in used.items():
        thing = module
        for part in dotted.split("."):
            thing = getattr(thing, part, None)
        if thing is None:
            missing.append(dotted)
        elif keywords and not hasattr(thing, "nin"):  # a ufunc has no signature to read
            known = inspect.signature(thing).parameters
            missing += [f"{dotted}({k}=)" for k in keywords - set(known)]
    return missing


def scratch_tree():
    return ast.parse(inspect.getsource(ckn_scratch))


def test_the_check_of_names_sees_a_wrong_name_and_a_wrong_argument():
    tree = ast.parse("xp.exp(x); xp.linalg.nothing(x); xp.stack(x, axles=1)")
    missing = missing_from(np, names_used(tree))
    assert sorted(missing) == ["linalg.nothing", "stack(axles=)"]
    used = names_used(scratch_tree())
    assert len(used) >= 12 and "linalg.eigh" in used and missing_from(np, used) == []


def test_every_name_and_argument_exists_in_cupy():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    assert missing_from(cupy, names_used(scratch_tree())) == []


def test_methods_called_on_arrays_exist_in_cupy():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    called = {
        node.func.attr
        for node in ast.walk(scratch_tree())
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    methods = {name for name in called if hasattr(np.ndarray, name)}
    assert {"sum", "reshape", "mean", "max", "astype"} <= methods
    assert [name for name in methods if not hasattr(cupy.ndarray, name)] == []


@pytest.mark.gpu
def test_cupy_gives_the_scores_and_gradients_of_numpy():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("no GPU")
    importlib.import_module("cupy.linalg")
    images, labels, start = problem()
    there = [{n: cupy.asarray(v) for n, v in s.items()} for s in start]
    on_gpu = cupy.asarray(images)
    assert array_module(on_gpu) is cupy
    for kernel in KERNELS:
        want = loss_and_gradients(layers(kernel), start, images, labels, 0.1)
        got = loss_and_gradients(
            layers(kernel), there, on_gpu, cupy.asarray(labels), 0.1
        )
        agree(f"{kernel} loss", got[0], want[0], tol=1e-10)
        for i, (mine, theirs) in enumerate(zip(got[1], want[1], strict=True)):
            for name in mine:
                agree(f"{kernel} {i} {name}", mine[name], theirs[name], tol=1e-10)
