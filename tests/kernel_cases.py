"""What the tests of .cu files share: where they run, errors planted in the text."""

import pytest
import torch

from ckutils.cuda import launcher
from ckutils.cuda.emulator import EmulatedModule, KernelError

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
SCHEDULES = ({"schedule": "index"}, {"schedule": "reverse"}, {"schedule": 3})


def ways(device: str) -> tuple[dict, ...]:
    """How a launch runs there: in each order that the emulator knows, or on a GPU."""
    if device == "cpu":
        return SCHEDULES
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    pytest.importorskip("cupy", reason="CuPy is not installed")
    return ({},)


@pytest.fixture(autouse=True)
def outputs_start_as_nan():
    """What torch allocates holds NaN, so that an output never written is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


def plant(monkeypatch, module, old: str, new: str, sanitizer: str | None = None):
    """Let `module` launch, in the emulator, texts in which `old` has become `new`."""

    def kernel_module(stem, device_type, **constants):
        text = launcher.read_source(stem)
        assert text.count(old) == 1, f"{stem}.cu must hold this once: {old}"
        text = text.replace(old, new)
        return EmulatedModule(text, constants=constants, sanitizer=sanitizer)

    monkeypatch.setattr(module, "kernel_module", kernel_module)


def is_caught(run, want, tol: float, sanitizer: str | None) -> bool:
    """Whether a launch complains or, in one of the schedules, gives other numbers."""
    for how in SCHEDULES if sanitizer is None else SCHEDULES[:1]:
        try:
            got = run(**how)
        except KernelError:
            return True
        pairs = zip(got, want, strict=True)
        if not all(float((a - b).abs().max()) <= tol for a, b in pairs):  # NaN: False
            return True
    return False
