"""`check_...(f)` for the exercises that end each chapter: one module a chapter.

A check calls the reader's function on a row of cases. It returns nothing: it prints
`exercise 2.4: all 7 cases agree`, or raises AssertionError at the first case that does
not agree, with the arguments, what was expected, what came, and a hint. What is
expected was worked by hand or comes from the definition, written out beside the cases;
the package's own functions are not asked.
"""

from ckutils.exercises.chapter1 import (
    check_conv2d_backward,
    check_even_kernel,
    check_predecessors,
    check_same_lower,
    check_scatter,
    check_wrap_kernel,
)
from ckutils.exercises.chapter2 import (
    check_cascade_dilations,
    check_composite,
    check_kron_gradient,
    check_merge_layers,
    check_nearest_factors,
    check_span,
)
from ckutils.exercises.chapter3 import (
    check_causal_fft,
    check_irregular,
    check_new_rate,
    check_stream,
    check_weight_norm_gradient,
    check_wrapped_outputs,
)
from ckutils.exercises.chapter4 import (
    check_hold,
    check_memory_parameter,
    check_prefix_scan,
    check_reverse_pass,
    check_ring,
    check_two_averages,
)
from ckutils.exercises.chapter5 import (
    check_encode,
    check_image_order,
    check_inverse_sqrt_gradient,
    check_nystrom,
    check_patch_kernel,
    check_power_features,
)

__all__ = [
    "check_cascade_dilations",
    "check_causal_fft",
    "check_composite",
    "check_conv2d_backward",
    "check_encode",
    "check_even_kernel",
    "check_hold",
    "check_image_order",
    "check_inverse_sqrt_gradient",
    "check_irregular",
    "check_kron_gradient",
    "check_memory_parameter",
    "check_merge_layers",
    "check_nearest_factors",
    "check_new_rate",
    "check_nystrom",
    "check_patch_kernel",
    "check_power_features",
    "check_predecessors",
    "check_prefix_scan",
    "check_reverse_pass",
    "check_ring",
    "check_same_lower",
    "check_scatter",
    "check_span",
    "check_stream",
    "check_two_averages",
    "check_weight_norm_gradient",
    "check_wrap_kernel",
    "check_wrapped_outputs",
]
