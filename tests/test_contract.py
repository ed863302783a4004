"""The public names that readers and other projects call, with their parameters."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import ckutils

ROOT = Path(__file__).resolve().parent.parent
# module, name, its parameters in order; * stands before those given by name only
CONTRACT = """
arithmetic conv_output_size size kernel_size * stride padding dilation input_dilation
arithmetic conv_transpose_output_size size kernel_size * stride padding output_padding dilation
arithmetic pool_output_size size kernel_size * stride padding ceil_mode
arithmetic dilated_size size dilation
arithmetic resolve_padding padding kernel_size * stride dilation size
arithmetic receptive_field layers
arithmetic count_parameters block
arithmetic count_macs block size
convolution conv x weight bias * stride padding dilation input_dilation groups flip
convolution conv_transpose y weight bias * stride padding output_padding dilation groups
convolution im2col x kernel_size * stride padding dilation
convolution col2im columns size kernel_size * stride padding dilation
convolution correlate2d image kernel mode
kronecker dilate_kernel kernel dilation
kronecker kronecker_kernel kernels
kronecker compose_kernels kernels dilations
kronecker nearest_kronecker kernel shape rank
kronecker low_rank kernel rank
fftconv causal_conv x kernel * method
fftconv causal_conv_depthwise x kernel * method
kernel_nets Siren in_features out_features * hidden_features hidden_layers omega_0 weight_norm init
kernel_nets RandomFourierNet in_features out_features
kernel_nets Mlp in_features out_features
ckconv CKConv in_channels out_channels * kernel_net omega_0 horizon bias
ckconv CKBlock in_channels out_channels
ckconv CKCNN in_channels out_channels * channels blocks omega_0 dropout head
recurrence lru_loop W U x h0
recurrence lru_kernel W U length
recurrence lru_conv W U x h0
recurrence linear_recurrence a b * initial method
recurrence LinearRecurrentUnit in_features state_features out_features * r_min r_max max_phase
ckn exponential_kernel u beta
ckn arc_cosine_kernel u
ckn polynomial_kernel u degree
ckn inverse_sqrt gram eps * method
ckn nystrom_features x anchors kernel eps
ckn spherical_kmeans x n_clusters * generator
ckn CKNLayer in_channels out_channels kernel_size * kernel subsampling padding
ckn CKN layers
checks agree name got want tol
""".strip().splitlines()  # noqa: E501


def parameters(function) -> list[str]:
    """Names in order, * before the first that must be named."""
    names = []
    for name, p in inspect.signature(function).parameters.items():
        if p.kind is p.KEYWORD_ONLY and "*" not in names:
            names.append("*")
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
            names.append(name)
    return names


@pytest.mark.parametrize("line", CONTRACT)
def test_a_public_name_keeps_its_parameters(line):
    module, name, *wanted = line.split()
    function = getattr(importlib.import_module(f"ckutils.{module}"), name)
    given = parameters(function)
    positional = wanted[: wanted.index("*")] if "*" in wanted else wanted
    assert given[: len(positional)] == positional
    assert [p for p in given if p in wanted] == wanted
    assert re.search(r"[Cc]hapter \d|All chapters", inspect.getdoc(function))


def test_the_package_offers_each_name_once():
    assert sorted(ckutils.__all__) == sorted(set(ckutils.__all__))
    for name in ckutils.__all__:
        assert getattr(ckutils, name) is not None
    contract = {line.split()[1] for line in CONTRACT}
    assert contract <= set(ckutils.__all__)


def test_the_version_stands_in_one_voice():
    assert f'version = "{ckutils.__version__}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("module", ["arithmetic", "receptive", "block_rows"])
def test_arithmetic_holds_integers_only(module):
    text = (ROOT / "ckutils" / f"{module}.py").read_text()
    assert not re.search(r"^(import|from) (torch|numpy)", text, re.M)


def test_every_equation_that_the_code_cites_stands_in_its_chapter():
    cited = {
        (file.name, number)
        for ending in ("py", "cu", "js")
        for file in (ROOT / "ckutils").rglob(f"*.{ending}")
        for number in re.findall(r"(?<!\w)\(([1-5]\.\d+)\)", file.read_text())
    }
    assert len(cited) > 50
    for file, number in sorted(cited):
        (chapter,) = (ROOT / "notebooks").glob(f"0{number[0]}_*.py")
        tag = f"\\tag{{{number}}}"
        assert tag in chapter.read_text(), f"{file} cites ({number})"
