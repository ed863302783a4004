"""The CKCNN checkpoints that their authors published, evaluated by this book's code.

    python -m experiments.released_ckcnn --checkpoints DIR --data DIR [--code DIR]

Chapter 3, section 3.13. DIR holds the `.pt` files of the repository dwromero/ckconv
(folder `saved`; MIT licence; not part of this book). Their names say the task, the
sizes and omega_0. With `--code`, a copy of that repository, its network runs beside
ours: the same outputs, and a ratio of times. Odd lengths: the released convolution
inverts its transform without a length and so loses a sample.
"""

import importlib
import re
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from ckutils.ckconv import CKCNN, CKConv
from ckutils.training import accuracy, count_weights, predict
from experiments.common import Experiment, arguments
from experiments.images import image_set
from experiments.sequences import siren_start

# A file's name rounds omega_0; the released commands give it in full.
OMEGAS = {
    "31.09": 31.09195739463897, "30.5": 30.5, "43.46": 43.45667389601194,
    "42.16": 42.161651744476515, "25.7": 25.696,
}  # fmt: skip
NORMALISED = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar-10": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
# the beginning of a file's name: data set, permuted, task, published for 30, for 100
TASKS = {
    "MNIST_perm_False": ("mnist", False, "sequential MNIST", 99.31, 99.32),
    "MNIST_perm_True": ("mnist", True, "permuted MNIST", 98.00, 98.54),
    "CIFAR10": ("cifar-10", False, "sequential CIFAR-10", 62.25, 63.74),
}
ABOUT = (
    "Weights of the authors, code of this book: nothing is trained here. (In the "
    "released code the validation images of MNIST and CIFAR-10 are the test images, "
    "so the published numbers were selected on the test set.) The released group "
    "norm over channels and time is kept, with its epsilon of 1e-12, because the "
    "weights expect it. Permuted MNIST: the permutation is not stored; it is the "
    "first that numpy's legacy generator draws after seed 0, as the released "
    "training script does (recognised on 500 training images, not on the test set). "
    "'An odd length' leaves out the first sample of 2,000 test images, so that all "
    "lags to the end stay as they were: once with this book's exact convolution, "
    "once with the released formula. That formula reads the spectrum of an odd "
    "length as one of a sample less, which squeezes time by up to half a sample: "
    "much for noise, little for a smooth signal. The released network takes this "
    "formula from its training length on; below, it sums directly and is exact, so "
    "the last row forces the formula."
)


def load_released(file: Path, in_channels: int) -> CKCNN:
    """The published weights in a CKCNN; the file's name gives the sizes.

    Raises ValueError for a file whose names or shapes are not those of that code.
    """
    found = re.search(r"nohid_(\d+)_kernnohid_32_.*_kernomega0_([\d.]+)_", file.name)
    if found is None:
        raise ValueError(f"{file.name} must say nohid_..., kernomega0_...")
    omega_0 = OMEGAS.get(found[2], float(found[2]))
    model = CKCNN(
        in_channels, 10, channels=int(found[1]), norm="released",
        kernel_net=siren_start("as-published", omega_0),
    )  # fmt: skip
    weights = torch.load(file, weights_only=True, map_location="cpu")
    state = {rename(k): v for k, v in weights.items() if "train_length" not in k}
    want = model.state_dict()
    for name, horizon in weights.items():
        if name.endswith("train_length") and int(horizon):
            state[rename(name)] = int(horizon)
    for name in {n for n in want if n.endswith("_extra_state")} - set(state):
        state[name] = None
    state = {k: _fit(v, want[k]) if k in want else v for k, v in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{file.name} is no released CKCNN: {error}") from None
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-12
    return model.eval()


# released name -> ours, applied in this order
NAMES = (
    (r"^module\.", ""), (r"^backbone\.", "blocks."), (r"\.cconv", ".conv"),
    (r"\.Kernel\.kernel_net\.0\.", ".kernel_net.hidden.0."),
    (r"\.Kernel\.kernel_net\.4\.", ".kernel_net.hidden.1."),
    (r"\.Kernel\.kernel_net\.8\.", ".kernel_net.readout."),
    (r"weight_g$", "parametrizations.weight.original0"),
    (r"weight_v$", "parametrizations.weight.original1"),
    (r"\.layer_norm\.", "."), (r"shortcut\.0\.", "shortcut."),
    (r"^finallyr\.", "linear."), (r"train_length$", "_extra_state"),
)  # fmt: skip


def rename(name: str) -> str:
    """A released parameter's name here.

    >>> rename("backbone.1.cconv2.Kernel.kernel_net.8.weight_g")
    'blocks.1.conv2.kernel_net.readout.parametrizations.weight.original0'
    """
    for theirs, ours in NAMES:
        name = re.sub(theirs, ours, name)
    return name


def _fit(value, like):
    """Their pointwise layers are convolutions of one tap: (o, i, 1) -> (o, i)."""
    tensors = isinstance(value, Tensor) and isinstance(like, Tensor)
    if tensors and value.ndim == like.ndim + 1 and value.shape[-1] == 1:
        return value[..., 0]
    return value


class LossyCKConv(CKConv):
    """CKConv whose FFT is inverted without a length, as the released one."""

    def forward(self, x: Tensor, *, resolution: float = 1.0) -> Tensor:
        t = x.shape[-1]
        kernel = self.kernel(t, resolution=resolution)
        n = 2 * t - t % 2  # the padded length there: odd for an odd signal, less 1
        spectra = torch.fft.rfft(x, n).unsqueeze(1), torch.fft.rfft(kernel, n)
        y = torch.fft.irfft((spectra[0] * spectra[1]).sum(2))[..., :t]
        return y + self.bias[:, None]


def as_released(model: CKCNN) -> CKCNN:
    """The same weights with the released convolution."""
    for module in model.modules():
        if isinstance(module, CKConv):
            module.__class__ = LossyCKConv
    return model


def sequences(images: Tensor, name: str, order: Tensor | None) -> Tensor:
    """Images as the released code feeds them: (n, c, pixels), normalised."""
    mean, spread = (torch.tensor(v)[:, None, None] for v in NORMALISED[name])
    flat = ((images - mean) / spread).flatten(2)
    return flat if order is None else flat[..., order]


def find_permutation(model, images, labels) -> tuple[Tensor | None, float]:
    """Among numpy's first draws after seed 0 the one that the weights know."""
    draw, best = np.random.RandomState(0), (None, 0.0)
    for _ in range(4):
        order = torch.from_numpy(draw.permutation(images[0, 0].numel()))
        right = accuracy(model, sequences(images, "mnist", order), labels)
        best = max(best, (order, right), key=lambda pair: pair[1])
    return best


def evaluate(case, file: Path, data, name: str, permuted: bool) -> dict:
    """Accuracy on the whole test set."""
    model, order, found = opened(case, file, data, permuted)
    case.note(parameters=count_weights(model))
    x = sequences(data.test_images, name, order)
    return found | {"test": accuracy(model, x, data.test_labels, batch_size=100)}


def shortened(case, file: Path, data, name: str, permuted: bool) -> dict:
    """2,000 test images without their first sample: an odd length for MNIST."""
    model, order, _ = opened(case, file, data, permuted)
    x, labels = sequences(data.test_images[:2000], name, order), data.test_labels[:2000]
    for layer in model.modules():
        if isinstance(layer, CKConv):
            layer.horizon = x.shape[-1]  # lags keep their places
    results = {"test, whole": accuracy(model, x, labels, batch_size=100)}
    odd = x[..., 1 if x.shape[-1] % 2 == 0 else 2 :]
    results["test, odd, exact"] = accuracy(model, odd, labels, batch_size=100)
    right = accuracy(as_released(model), odd, labels, batch_size=100)
    return results | {"test, odd, released formula forced": right}


def opened(case, file: Path, data, permuted: bool):
    """The model, the order of the samples or None, and how well that order fits."""
    model = load_released(file, data.test_images.shape[1]).to(case.device)
    if not permuted:
        return model, None, {}
    few = data.train_images[:500], data.train_labels[:500]
    order, right = find_permutation(model, *few)
    return model, order, {"training images, to find the permutation": round(right, 4)}


def beside(case, file: Path, data, name: str, code: Path) -> dict:
    """Largest difference of the scores on 200 images, and how many times faster."""
    ours = load_released(file, data.test_images.shape[1])
    theirs = released_network(file, data.test_images.shape[1], code)
    x = sequences(data.test_images[:200], name, None)
    # it moves its positions to a GPU unasked
    with mock.patch.object(Tensor, "cuda", lambda self: self):
        gap = predict(ours, x, batch_size=50) - predict(theirs, x, batch_size=50)
    seconds = {"ours": [], "theirs": []}
    rounds = 3 if case.quick else 9
    for _ in range(rounds):
        for key, net in (("ours", ours), ("theirs", theirs)):
            start = time.perf_counter()
            net(x[:32]).square().mean().backward()
            seconds[key].append(time.perf_counter() - start)
    start = {key: statistics.median(values) for key, values in seconds.items()}
    return {
        "largest difference of the scores": float(f"{float(gap.abs().max()):.2g}"),
        "a training step, theirs / ours": round(start["theirs"] / start["ours"], 2),
    }


def released_network(file: Path, in_channels: int, code: Path) -> nn.Module:
    """Their network with its weights, from a copy of their repository."""
    with mock.patch.object(sys, "path", [str(code), *sys.path]):
        network = importlib.import_module("models.ckcnn").seqImg_CKCNN
    found = re.search(r"nohid_(\d+)_kernnohid_32_.*_kernomega0_([\d.]+)_", file.name)
    net = network(
        in_channels, 10, int(found[1]), 2, 32, "Sine", "", 1, True,
        OMEGAS.get(found[2], float(found[2])), 0.0, 0.0, False,
    )  # fmt: skip
    weights = torch.load(file, weights_only=True, map_location="cpu")
    net.load_state_dict(weights, strict=False)
    return net.eval()


def main(argv=None) -> dict:
    parser = arguments("released_ckcnn", __doc__)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--channels", nargs="+", default=["30", "100"])
    parser.add_argument("--code", type=Path, default=None)
    args = parser.parse_args(argv)
    rows = [
        {"what": f"{task}, {size} channels", "value": f"{value:.2f} %",
         "source": "Romero et al. (2021), arXiv:2102.02611"}
        for _, _, task, *values in TASKS.values()
        for size, value in zip((30, 100), values, strict=True)
    ]  # fmt: skip
    run = Experiment(
        "released_ckcnn", "The published CKCNN weights in this book's code", args,
        about=ABOUT, published=rows,
        not_run=["Speech Commands, CharacterTrajectories, PhysioNet: no data here"],
    )  # fmt: skip
    for prefix, (name, permuted, task, *_) in TASKS.items():
        files = sorted(args.checkpoints.glob(f"{prefix}_*.pt"), key=_channels)
        files = [file for file in files if str(_channels(file)) in args.channels]
        if not files:
            run.record["not_run"].append(f"{task}: no file {prefix}_*.pt")
            continue
        data = image_set(args, name)
        for file in files:
            label = f"{task}, {_channels(file)} channels"
            run.case(
                label,
                lambda c, f=file, d=data, n=name, p=permuted: evaluate(c, f, d, n, p),
                file=file.name,
            )
            if _channels(file) == 30:
                run.case(
                    f"{label}: an odd length",
                    lambda c, f=file, d=data, n=name, p=permuted: shortened(
                        c, f, d, n, p
                    ),
                )
            if args.code and not permuted and _channels(file) == 30:
                run.case(
                    f"{label}: beside the released code",
                    lambda c, f=file, d=data, n=name: beside(c, f, d, n, args.code),
                )
    return run.finish()


def _channels(file: Path) -> int:
    return int(re.search(r"nohid_(\d+)_", file.name)[1])


if __name__ == "__main__":
    main()
