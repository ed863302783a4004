"""Which inputs one output of a chain of convolutions sees; integers only.

`ckutils.arithmetic` offers these names too.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ckutils.checks import check_int


class ReceptiveField(NamedTuple):
    """The inputs that one output sees: ints for one axis, else one entry an axis.

    size: how many inputs lie from the first seen to the last seen, both included.
    jump: how many inputs the field moves from one output to the next.
    start: index of the first input seen by output 0; negative inside the padding.
    Output j sees inputs start + j jump, ..., start + j jump + size - 1, and no others;
    with dilation or a stride beyond the kernel it may miss some of these.
    """

    size: int | tuple[int, ...]
    jump: int | tuple[int, ...]
    start: int | tuple[int, ...]


def receptive_field(layers: Iterable[Sequence]) -> ReceptiveField:
    """Size, jump and start of the receptive field of a chain of convolutions.

    Chapter 1, eq. (1.30) to (1.32), layer by layer from size 1, jump 1, start 0:
    start -= padding jump; size += (kernel - 1) dilation jump; jump *= stride.
    A pooling is a layer like any other; a residual block has the field of its longest
    path. Source: A. Araujo, W. Norris, J. Sim, "Computing receptive fields of
    convolutional neural networks", Distill, 2019.

    Args:
        layers: (kernel, stride, dilation) or (kernel, stride, dilation, padding) a
            layer, first layer first; entries are ints, or tuples with one int an axis.
            padding counts what is put before index 0 only (all of it, if causal).
    Returns ReceptiveField(size, jump, start) with ints if all entries are ints.
    Raises ValueError naming the layer and its entry.

    >>> receptive_field([(3, 1, 1), (3, 2, 1), (3, 1, 2)])
    ReceptiveField(size=13, jump=2, start=0)
    >>> receptive_field([(3, 1, 1, 1), ((3, 5), 2, 1)])
    ReceptiveField(size=(5, 7), jump=(2, 2), start=(-1, -1))
    """
    rows = [_layer_row(index, layer) for index, layer in enumerate(layers)]
    entries = [entry for row in rows for entry in row]
    axes = {len(entry) for entry in entries if not isinstance(entry, int)}
    if len(axes) > 1:
        raise ValueError(f"layers must agree in their number of axes, got {axes}")
    if not axes:
        return ReceptiveField(*_field(rows))
    fields = [
        _field([[e if isinstance(e, int) else e[axis] for e in row] for row in rows])
        for axis in range(axes.pop())
    ]
    return ReceptiveField(*zip(*fields, strict=True))


def _field(rows: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    size, jump, start = 1, 1, 0
    for kernel, stride, dilation, padding in rows:
        start -= padding * jump  # eq. (1.32)
        size += (kernel - 1) * dilation * jump  # eq. (1.30)
        jump *= stride  # eq. (1.31)
    return size, jump, start


def _layer_row(index: int, layer: Sequence) -> list:
    if not isinstance(layer, tuple | list) or len(layer) not in (3, 4):
        raise ValueError(
            f"layers[{index}] must be (kernel, stride, dilation) or (kernel, stride, "
            f"dilation, padding), got {layer!r}"
        )
    row, least = [*layer, 0][:4], (1, 1, 1, 0)
    names = "kernel", "stride", "dilation", "padding"
    for at, (name, low) in enumerate(zip(names, least, strict=True)):
        entries = row[at] if isinstance(row[at], tuple | list) else (row[at],)
        if not entries:
            raise ValueError(
                f"layers[{index}].{name} must be an int or one int an axis, got "
                f"{row[at]!r}"
            )
        for entry in entries:
            check_int(low, **{f"layers[{index}].{name}": entry})
        whole = tuple(int(entry) for entry in entries)
        row[at] = whole if isinstance(row[at], tuple | list) else whole[0]
    return row


def receptive_set(layers: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Exactly which inputs output 0 sees, holes left out; one axis.

    Chapter 1, eq. (1.33): all sums over the layers of (dilation i - padding) jump with
    0 <= i < kernel, jump being the product of the strides before the layer.

    Args:
        layers: as for `receptive_field`, ints only.
    Returns the indices in rising order; those below 0 lie in the padding.
    Raises ValueError as `receptive_field` does, and for entries that are tuples.

    >>> receptive_set([(3, 1, 2), (2, 1, 1)])
    (0, 1, 2, 3, 4, 5)
    >>> receptive_set([(2, 1, 1), (2, 1, 4)])
    (0, 1, 4, 5)
    """
    seen, jump = {0}, 1
    for index, layer in enumerate(layers):
        row = _layer_row(index, layer)
        if not all(isinstance(entry, int) for entry in row):
            raise ValueError(f"layers[{index}] must hold ints only, got {layer!r}")
        kernel, stride, dilation, padding = row
        taps = [(dilation * i - padding) * jump for i in range(kernel)]
        seen = {index + tap for index in seen for tap in taps}
        jump *= stride
    return tuple(sorted(seen))
