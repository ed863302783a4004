"""The animated picture: its numbers are conv's, and it keeps still where asked."""

import re
from xml.etree import ElementTree

import pytest
import torch

from ckutils.animation import animate_conv
from ckutils.convolution import conv

SVG = "{http://www.w3.org/2000/svg}"


def steps_of(text):
    return [g for g in ElementTree.fromstring(text) if g.get("class") == "ck-step"]


def numbers(element):
    return [t.text.replace("−", "-") for t in element.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    "knobs", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2}]
)
def test_every_number_is_convs(knobs):
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(-9, 10, (5, 6), generator=generator)
    kernel = torch.randint(-3, 4, (3, 2), generator=generator)
    want = conv(image[None].double(), kernel[None, None].double(), **knobs)[0].long()
    steps = steps_of(animate_conv(image, kernel, **knobs))
    assert len(steps) == want.numel()
    for count, step in enumerate(steps, start=1):
        words = numbers(step)
        lines, total = words[:3], words[3]
        products = re.findall(r"(-?\d+)·(-?\d+)", " ".join(lines))
        assert len(products) == kernel.numel()
        assert sum(int(a) * int(b) for a, b in products) == want.flatten()[count - 1]
        assert total == f"sum = {want.flatten()[count - 1]}"
        # the outputs so far, in their order
        assert [int(word) for word in words[4:]] == want.flatten()[:count].tolist()


def test_the_window_stands_where_conv_reads():
    image, kernel = torch.arange(25).reshape(5, 5), torch.ones(2, 2)
    text = animate_conv(image, kernel, stride=2, padding=1, dilation=2)
    places = [(i, j) for i in range(3) for j in range(3)]
    for step, (i, j) in zip(steps_of(text), places, strict=True):
        frames = [r for r in step.iter(f"{SVG}rect") if r.get("stroke-width") == "4"]
        at = {(round((int(r.get("y")) - 36) / 38), round((int(r.get("x")) - 12) / 38))
              for r in frames[:4]}  # fmt: skip
        assert at == {(2 * i + a, 2 * j + b) for a in (0, 2) for b in (0, 2)}


def test_it_is_still_where_less_motion_is_asked_for_and_small():
    text = animate_conv(
        torch.full((5, 5), 9), torch.full((3, 3), -2), stride=2, padding=1
    )
    assert "prefers-reduced-motion:reduce){.ck-step{animation:none}" in text
    assert ".ck-step:last-child{opacity:1}" in text
    assert "<script" not in text
    assert len(text.encode()) < 40_000
    ground = ElementTree.fromstring(text).find(f"{SVG}rect")
    assert ground.get("fill") == "#fdfdfd"


ERRORS = [
    (lambda: animate_conv(torch.ones(3), torch.ones(1, 1)), "image must have at least"),
    (lambda: animate_conv(torch.ones(1, 3, 3), torch.ones(1, 1)), "image must be a ma"),
    (lambda: animate_conv(torch.ones(3, 3), torch.ones(1, 1) / 2), "kernel must be a"),
    (lambda: animate_conv(torch.ones(3, 3), torch.ones(1, 1), stride=0), "stride must"),
    (lambda: animate_conv(torch.ones(3, 3), torch.ones(1, 1), padding=-1), "padding m"),
    (lambda: animate_conv(torch.ones(3, 3), torch.ones(1, 1), seconds=0), "seconds mu"),
    (lambda: animate_conv(torch.ones(3, 3), torch.ones(4, 4)), "kernel_size must fit"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_errors_name_the_argument_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
