"""The arithmetic of a convolution as an animated picture that needs no script.

One SVG with CSS keyframes: it plays on the static page, inline or as an image, on an
opaque ground. A reader who asked the system for less motion sees the last step, still.
"""

import itertools

import torch
from torch import Tensor

from ckutils.checks import check_int, check_ndim, check_number
from ckutils.convolution import conv, pad

CELL, GAP, TOP = 38, 46, 34  # pixels: a cell, between the grids, above them
INK, GROUND, GREY, BLUE, ORANGE = "#1a1a1a", "#fdfdfd", "#e4e4e4", "#0072B2", "#E69F00"


def animate_conv(
    image: Tensor,
    kernel: Tensor,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    seconds: float = 1.6,
) -> str:
    """An SVG in which the kernel slides over the image and each sum is written out.

    Chapter 1, eq. (1.8). Left the padded image, in the middle the kernel, right the
    output that fills up; below, the products of the current window and their sum.

    Args:
        image: (h, w), kernel: (a, b), whole numbers of at most two digits, any dtype.
        stride, padding, dilation: one int for both axes.
        seconds: how long one output is shown.
    Returns the SVG as text; its numbers are those of `conv`.
    Raises ValueError if an array has other than two axes, or not whole numbers.

    >>> animate_conv(torch.ones(2, 2), torch.ones(1, 1)).count("<g class='ck-step'")
    4
    """
    for name, array in (("image", image), ("kernel", kernel)):
        check_ndim(2, **{name: array})
        if array.dim() != 2 or not torch.equal(array.double(), array.double().round()):
            raise ValueError(f"{name} must be a matrix of whole numbers, got {array}")
    check_int(1, stride=stride, dilation=dilation)
    check_int(0, padding=padding)
    check_number(0.1, 60, seconds=seconds)
    image, kernel = image.double(), kernel.double()
    knobs = {"stride": stride, "padding": padding, "dilation": dilation}
    output = conv(image[None], kernel[None, None], **knobs)[0].long()
    padded = pad(image, [padding, padding]).long()
    return _draw(padded, kernel.long(), output, stride, padding, dilation, seconds)


def _draw(padded, kernel, output, stride, padding, dilation, seconds) -> str:
    (H, W), (h, w), (m, n) = padded.shape, kernel.shape, output.shape
    x_kernel = 10 + W * CELL + GAP
    x_output = x_kernel + w * CELL + GAP
    width = x_output + n * CELL + 10
    height = TOP + max(H, h, m) * CELL + 14 + 20 * (h + 1) + 8
    body = [_title(10, f"input, padding {padding}"), _title(x_kernel, "kernel"),
            _title(x_output, f"output, stride {stride}")]  # fmt: skip
    inside = range(padding, H - padding), range(padding, W - padding)
    for i, j in itertools.product(range(H), range(W)):
        ground = "white" if i in inside[0] and j in inside[1] else GREY
        body.append(_cell(10, i, j, padded[i, j], ground))
    body += [_cell(x_kernel, i, j, kernel[i, j], "#fff3d6")
             for i, j in itertools.product(range(h), range(w))]  # fmt: skip
    body += [_cell(x_output, i, j, None, "white")
             for i, j in itertools.product(range(m), range(n))]  # fmt: skip
    steps = list(itertools.product(range(m), range(n)))
    low = TOP + max(H, h, m) * CELL + 14
    for step, (i, j) in enumerate(steps):
        parts = _window(padded, kernel, i * stride, j * stride, dilation, low)
        parts.append(_text(14, low + 20 * h + 16, f"sum = {output[i, j]}", "bold"))
        parts += [_cell(x_output, *t, output[t], "#cfe5f3") for t in steps[: step + 1]]
        parts.append(_frame(x_output, i, j))
        delay = f"animation-delay:{step * seconds:g}s"
        body.append(f"<g class='ck-step' style='{delay}'>{''.join(parts)}</g>")
    return _svg(width, height, body, len(steps), seconds)


def _window(padded, kernel, top, left, dilation, low) -> list[str]:
    """The taps of one window, framed on the input, and its products, a line a row."""
    parts = []
    for a in range(kernel.shape[0]):
        terms = []
        for b in range(kernel.shape[1]):
            i, j = top + a * dilation, left + b * dilation
            parts.append(_frame(10, i, j))
            terms.append(f"{kernel[a, b]}·{padded[i, j]}")
        line = "  +  ".join(terms).replace("-", "−")
        parts.append(
            _text(14, low + 20 * a + 14, line + ("  +" * (a + 1 < len(kernel))))
        )
    return parts


def _cell(x, i, j, value, ground) -> str:
    left, top = x + j * CELL, TOP + i * CELL
    box = (f"<rect x='{left}' y='{top}' width='{CELL}' height='{CELL}' "
           f"fill='{ground}' stroke='#9a9a9a'/>")  # fmt: skip
    if value is None:
        return box
    number = str(int(value)).replace("-", "−")
    return (f"{box}<text x='{left + CELL // 2}' y='{top + CELL // 2 + 5}' "
            f"text-anchor='middle'>{number}</text>")  # fmt: skip


def _frame(x, i, j) -> str:
    left, top = x + j * CELL + 2, TOP + i * CELL + 2
    return (f"<rect x='{left}' y='{top}' width='{CELL - 4}' height='{CELL - 4}' "
            f"fill='none' stroke='{ORANGE}' stroke-width='4'/>")  # fmt: skip


def _text(x, y, words, weight="normal") -> str:
    words = str(words).replace("= -", "= −")
    return f"<text x='{x}' y='{y}' font-weight='{weight}'>{words}</text>"


def _title(x, words) -> str:
    return f"<text x='{x}' y='{TOP - 12}' fill='{BLUE}'>{words}</text>"


def _svg(width, height, body, steps, seconds) -> str:
    # each step shows for its share of the round, and its delay puts it in its place
    cycle = f"{steps * seconds:g}s"
    style = (
        f".ck-step{{opacity:0;animation:ck-show {cycle} step-end infinite}}"
        f"@keyframes ck-show{{0%{{opacity:1}}{100 / steps:.4f}%{{opacity:0}}}}"
        "@media (prefers-reduced-motion:reduce){.ck-step{animation:none}"
        ".ck-step:last-child{opacity:1}}"
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}' font-family='DejaVu Sans, sans-serif' "
        f"font-size='14' fill='{INK}'><style>{style}</style><rect width='{width}' "
        f"height='{height}' fill='{GROUND}'/>{''.join(body)}</svg>"
    )
