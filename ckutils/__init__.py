"""ckutils: the code of the book "Where Convolution Kernels Come From".

One module a topic, in the order of the chapters; the names below are offered here too.
`ckutils.plotting`, `ckutils.animation` and `ckutils.datasets` are imported by their own
names, because they need matplotlib, and `ckutils.ckn_scratch` because its names are
those of `ckutils.ckn` on purpose.
"""

from ckutils.arithmetic import (
    ReceptiveField,
    conv_input_sizes,
    conv_output_size,
    conv_transpose_output_size,
    count_cost,
    count_macs,
    count_parameters,
    dilated_size,
    network_cost,
    pool_output_size,
    receptive_field,
    receptive_set,
    resolve_padding,
)
from ckutils.checks import agree, digest
from ckutils.ckconv import CKCNN, CKBlock, CKConv
from ckutils.ckn import (
    CKN,
    CKNLayer,
    arc_cosine_kernel,
    exponential_kernel,
    inverse_sqrt,
    nystrom_features,
    polynomial_kernel,
    spherical_kmeans,
)
from ckutils.convolution import (
    col2im,
    conv,
    conv_transpose,
    correlate2d,
    im2col,
    pad,
)
from ckutils.fftconv import causal_conv, causal_conv_depthwise
from ckutils.kernel_nets import Mlp, RandomFourierNet, Siren
from ckutils.kronecker import (
    compose_kernels,
    dilate_kernel,
    kronecker_kernel,
    low_rank,
    nearest_kronecker,
)
from ckutils.recurrence import (
    LinearRecurrentUnit,
    linear_recurrence,
    lru_conv,
    lru_kernel,
    lru_loop,
)

__version__ = "0.1.0"
__all__ = [
    "CKCNN",
    "CKN",
    "CKBlock",
    "CKConv",
    "CKNLayer",
    "LinearRecurrentUnit",
    "Mlp",
    "RandomFourierNet",
    "ReceptiveField",
    "Siren",
    "agree",
    "arc_cosine_kernel",
    "causal_conv",
    "causal_conv_depthwise",
    "col2im",
    "compose_kernels",
    "conv",
    "conv_input_sizes",
    "conv_output_size",
    "conv_transpose",
    "conv_transpose_output_size",
    "correlate2d",
    "count_cost",
    "count_macs",
    "count_parameters",
    "digest",
    "dilate_kernel",
    "dilated_size",
    "exponential_kernel",
    "im2col",
    "inverse_sqrt",
    "kronecker_kernel",
    "linear_recurrence",
    "low_rank",
    "lru_conv",
    "lru_kernel",
    "lru_loop",
    "nearest_kronecker",
    "network_cost",
    "nystrom_features",
    "pad",
    "polynomial_kernel",
    "pool_output_size",
    "receptive_field",
    "receptive_set",
    "resolve_padding",
    "spherical_kmeans",
]
