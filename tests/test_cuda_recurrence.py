"""linear_recurrence.cu on a CPU, and on a GPU where there is one; its operators.

The cases are the same on both devices. On a CPU each kernel's own text runs in three
orders of its threads; the planted mistakes at the end show what these checks see.
"""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ckutils.cuda import EmulatedModule, KernelError, read_source
from ckutils.cuda import linear_recurrence as cuda
from ckutils.cuda.linear_recurrence import (
    NUMBERS,
    backward_op,
    plan,
    recurrence_op,
    run_backward,
    run_kernel,
)
from ckutils.cuda.standin import cupy_on_cpu
from ckutils.recurrence import (
    linear_recurrence,
    linear_recurrence_ref,
    linear_recurrence_route,
)

KERNELS = ("linear_recurrence_naive", "linear_recurrence")
ORDERS = ("index", "reverse", 3)
# rows, T, a_rows, a_T: one step, primes, rows that share a block (one of them empty),
# a tile exactly and a step more, many tiles, shared and constant coefficients
CASES = {
    "one step": (1, 1, 1, 1),
    "a prime": (3, 7, 3, 7),
    "a warp and more": (5, 131, 5, 131),
    "rows share a block": (11, 33, 11, 33),
    "a whole tile": (2, 1024, 2, 1024),
    "a step beyond a tile": (2, 1025, 2, 1025),
    "many tiles": (2, 3301, 2, 3301),
    "shared coefficients": (6, 37, 3, 37),
    "constant coefficients": (6, 130, 2, 1),
}


def draw(name, dtype, seed=0, device="cpu"):
    """a, b and the initial state. Even rows of a remember all, odd ones little."""
    rows, T, a_rows, a_T = CASES[name]
    g = torch.Generator().manual_seed(seed + rows + 31 * T)
    a = torch.randn(a_rows, a_T, generator=g, dtype=dtype)
    lost = torch.rand(a_rows, a_T, generator=g, dtype=a.real.dtype) * 0.7
    lost[::2] /= T
    b = torch.randn(rows, T, generator=g, dtype=dtype)
    initial = torch.randn(rows, generator=g, dtype=dtype)
    return tuple(x.to(device) for x in (a / a.abs() * (1 - lost), b, initial))


def wide(x):
    return x.cpu().to(torch.complex128 if x.is_complex() else torch.float64)


def full(a, b):
    return wide(a).expand(-1, b.shape[1]).repeat(b.shape[0] // a.shape[0], 1)


def turn(x, reverse):
    return x.flip(-1) if reverse else x


def in_double(a, b, initial, reverse):
    """The loop, in double."""
    a, b = (turn(x, reverse) for x in (full(a, b), wide(b)))
    return turn(linear_recurrence_ref(a, b, initial=wide(initial)), reverse)


def assert_within(got, want, size, context):
    """A state sums products of up to T + 1 factors: each rounding errs by eps of it.

    `size` is the recurrence of the absolute values. A complex product rounds four
    times.
    """
    eps = torch.finfo(got.dtype).eps * (4 if got.is_complex() else 1)
    tol = 2 * (got.shape[-1] + 2) * eps * size.abs() + torch.finfo(got.dtype).tiny
    error = (wide(got) - want).abs().nan_to_num(torch.inf)
    at = int((error - tol).argmax())
    assert bool((error <= tol).all()), (
        f"{got.flatten()[at]} for {want.flatten()[at]} at {at} of {tuple(got.shape)}, "
        f"{context}"
    )


def assert_right(h, a, b, initial, reverse):
    want = in_double(a, b, initial, reverse)
    size = in_double(a.abs(), b.abs(), initial.abs(), reverse)
    assert_within(h, want, size, f"a {tuple(a.shape)}, {reverse=}")


def assert_backward_right(got, a, h, initial, g, reverse):
    """The two equations, letter by letter in double: eq. of the kernel's header."""
    a, h, g, initial = full(a, h), wide(h), wide(g), wide(initial)
    a, h, g = (turn(x, reverse) for x in (a, h, g))
    ahead = torch.cat([a[:, 1:], a[:, :1]], -1)
    before = torch.cat([initial[:, None], h[:, :-1]], -1)
    want, sizes = [], []
    for out, c, x, y in (
        (want, ahead.conj(), g, before.conj()),
        (sizes, ahead.abs(), g.abs(), before.abs()),
    ):
        s = linear_recurrence_ref(c.flip(-1), x.flip(-1)).flip(-1)
        out += [turn(s * y, reverse), turn(s, reverse)]
    for name, mine, other, size in zip(("ga", "s"), got, want, sizes, strict=True):
        assert_within(mine, other, size, f"{name}, {reverse=}")


def on_gpu():
    pytest.importorskip("cupy", reason="CuPy is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return "cuda"


# Each kernel is its formula -----------------------------------------------------------


def check_forward(kernel, name, dtype, device, reverse, **how):
    a, b, initial = draw(name, dtype, device=device)
    h = run_kernel(a, b, initial, reverse, kernel=kernel, **how)
    assert_right(h, a, b, initial, reverse)


def check_backward(name, dtype, device, reverse, **how):
    a, h, initial = draw(name, dtype, device=device)
    _, g, _ = draw(name, dtype, seed=1, device=device)
    got = run_backward(a, h, initial, g, reverse, **how)
    assert_backward_right(got, a, h, initial, g, reverse)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_is_its_formula(kernel, dtype):
    for n, name in enumerate(CASES):
        for reverse in (False, True):
            order = ORDERS[(n + reverse) % 3]
            check_forward(kernel, name, dtype, "cpu", reverse, schedule=order)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_the_backward_kernel_is_its_formula(dtype):
    for n, name in enumerate(CASES):
        for reverse in (False, True):
            order = ORDERS[(n + reverse) % 3]
            check_backward(name, dtype, "cpu", reverse, schedule=order)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_threads_gives_the_same_bits(order):
    a, b, initial = draw("rows share a block", torch.complex64)
    want = run_kernel(a, b, initial)
    assert torch.equal(run_kernel(a, b, initial, schedule=order), want)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_kernel_is_its_formula_on_a_gpu(dtype):
    device = on_gpu()
    for name in CASES:
        for reverse in (False, True):
            for kernel in KERNELS:
                check_forward(kernel, name, dtype, device, reverse)
            check_backward(name, dtype, device, reverse)


def test_small_integers_are_exact():
    a, b = torch.tensor([[5.0, 2, 2, 0]]), torch.tensor([[1.0, 1, 1, 1]])
    for kernel in KERNELS:
        h = run_kernel(a, b, torch.tensor([2.0]), kernel=kernel)
        assert h.tolist() == [[11, 23, 47, 1]]
        h = run_kernel(a, b, torch.tensor([2.0]), True, kernel=kernel)
        assert h.tolist() == [[36, 7, 3, 1]]


def test_a_zero_forgets_and_tiny_products_vanish():
    """Nothing is divided: a product that underflows is 0, as in the loop."""
    a, b = torch.full((1, 3000), 1e-3), torch.ones(1, 3000)
    a[0, 1500] = 0
    h = run_kernel(a, b, torch.tensor([7.0]))
    assert h[0, 1500] == 1 and bool(h.isfinite().all())
    assert_right(h, a, b, torch.tensor([7.0]), False)


def test_growing_coefficients_overflow_earlier_than_the_loop():
    """The price of a scan, which the header tells: 0 times an infinite product."""
    a, b, start = torch.full((1, 64), 10.0), torch.zeros(1, 64), torch.zeros(1)
    assert run_kernel(a, b, start, kernel=KERNELS[0]).tolist() == [[0.0] * 64]
    assert run_kernel(a, b, start)[0, -1].isnan()


@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_plan_covers_its_rows(dtype):
    vec = 16 // dtype.itemsize
    for rows in (1, 2, 7, 8, 9, 1000):
        for T in (1, 2, 31, 128, 129, 1000, 1024, 5000, 1 << 20):
            (blocks,), (threads, together) = plan(rows, T, dtype)
            assert threads % 32 == 0 and 1 <= threads * together <= 256
            assert (blocks - 1) * together < rows <= blocks * together
            tiles = -(-(T if T % vec == 0 else T + vec - 1) // (threads * vec))
            assert tiles * 256 * vec < T + 512 * vec or threads == 32


# The operators ------------------------------------------------------------------------

SMALL = {"own": (2, 5, 2, 5), "shared": (4, 5, 2, 5), "constant": (4, 3, 2, 1)}


def small(name, dtype):
    g = torch.Generator().manual_seed(5)
    rows, T, a_rows, a_T = SMALL[name]
    shapes = (a_rows, a_T), (rows, T), (rows,)
    return [torch.randn(s, generator=g, dtype=dtype).requires_grad_() for s in shapes]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_the_kernels_gradients_are_right(name, reverse):
    """gradcheck moves each entry: in double, through the kernels' own text."""
    for dtype in (torch.float64, torch.complex128):
        inputs = small(name, dtype)
        with cupy_on_cpu() as cupy:
            assert gradcheck(lambda *x: recurrence_op(*x, reverse), inputs)
        names = {launch[0] for launch in cupy.launches}
        assert names == {"linear_recurrence", "linear_recurrence_backward"}
        assert gradcheck(lambda *x: recurrence_op(*x, reverse), inputs)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_second_derivatives_are_right(reverse):
    for name in SMALL:
        inputs = small(name, torch.complex128)
        assert gradgradcheck(lambda *x: recurrence_op(*x, reverse), inputs)
    with cupy_on_cpu():
        inputs = small("constant", torch.float64)
        assert gradgradcheck(lambda *x: recurrence_op(*x, reverse), inputs)


def test_the_operators_keep_torchs_rules():
    a, b, initial = small("shared", torch.complex64)
    h = torch.randn_like(b).detach()
    torch.library.opcheck(recurrence_op, (a, b, initial, False))
    torch.library.opcheck(backward_op, (a, h, initial, b, True))
    with cupy_on_cpu():
        torch.library.opcheck(recurrence_op, (a, b, initial, True))
        torch.library.opcheck(backward_op, (a, h, initial, b, False))


def test_the_operator_runs_over_batches():
    a, b, initial = (x.detach() for x in small("shared", torch.float64))
    many = torch.stack([b, 2 * b, b - 1])
    got = torch.vmap(lambda b: recurrence_op(a, b, initial, False))(many)
    for mine, one in zip(got, many, strict=True):
        assert_right(mine, a, one, initial, False)


def test_the_operator_compiles_whole():
    a, b, _ = (x.detach() for x in small("own", torch.float64))
    a, b = a.requires_grad_(), b.requires_grad_()

    def loss(a, b):
        return linear_recurrence(a, b, method="cuda").sin().sum()

    with cupy_on_cpu() as cupy:
        want = torch.autograd.grad(loss(a, b), (a, b))
        quick = torch.compile(loss, fullgraph=True, backend="aot_eager")
        got = torch.autograd.grad(quick(a, b), (a, b))
        assert len(cupy.launches) == 4
    for mine, other in zip(got, want, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("length", [1, 50, 64, 65])
@pytest.mark.parametrize("reverse", [False, True])
def test_states_are_contiguous_and_compiled_code_may_rely_on_it(length, reverse):
    a, b, initial = torch.rand(2, length), torch.randn(2, length), torch.randn(2)
    h = recurrence_op(a, b, initial, reverse)
    assert h.is_contiguous()
    if length == 50:  # inductor asserts the strides
        compiled = torch.compile(recurrence_op, fullgraph=True)
        assert torch.equal(compiled(a, b, initial, reverse), h)


# The public function ------------------------------------------------------------------

# shapes of a and b whose batch axes broadcast in every way
BATCHES = (
    ((7,), (7,)),
    ((), (2, 7)),
    ((1,), (2, 3, 7)),
    ((3, 1), (2, 3, 7)),
    ((3, 7), (2, 3, 7)),
    ((2, 1, 7), (2, 3, 7)),
    ((2, 3, 7), (7,)),
    ((1, 3, 7), (2, 1, 7)),
)


@pytest.mark.parametrize(("a_shape", "b_shape"), BATCHES)
def test_the_function_is_the_loop_by_the_kernel(a_shape, b_shape):
    g = torch.Generator().manual_seed(0)
    a = torch.rand(a_shape, generator=g, dtype=torch.float64)
    b = torch.randn(b_shape, generator=g, dtype=torch.float64)
    want = linear_recurrence(a, b, method="loop")
    with cupy_on_cpu() as cupy:
        got = linear_recurrence(a, b, method="cuda")
        assert torch.allclose(linear_recurrence(a, b), got, rtol=0, atol=0)
        mixed = linear_recurrence(a, b.cfloat().cdouble(), initial=b[..., 0])
    assert len(cupy.launches) == 3
    assert torch.allclose(got, want, rtol=0, atol=1e-13)
    assert mixed.dtype == torch.complex128


def test_strided_and_lazily_conjugated_inputs_are_read_right():
    g = torch.Generator().manual_seed(1)
    whole = torch.randn(9, 12, generator=g, dtype=torch.complex64)
    for a, b in (
        (whole[:, ::2], whole[:, 1::2]),
        (whole.T, whole.T.conj()),
        (whole[1:8, 1:10], whole[2:, 3:]),
        (whole.flip(-1), whole.imag),
    ):
        a = a / (1 + a.abs())
        b = b if b.is_complex() else b.to(torch.complex64)
        want = linear_recurrence(a, b, method="loop")
        with cupy_on_cpu():
            got = linear_recurrence(a, b, method="cuda")
        assert torch.allclose(got, want, rtol=1e-5, atol=1e-5)


def test_the_route_says_what_runs():
    a, b = torch.ones(3), torch.ones(2, 3)
    assert linear_recurrence_route(a, b) == "scan"
    assert linear_recurrence_route(a[:1], b, method="fft") == "fft"
    assert linear_recurrence_route(a, b, method="loop") == "loop"
    with cupy_on_cpu():
        assert linear_recurrence_route(a, b) == "linear_recurrence.cu"
        assert linear_recurrence_route(a, b, method="scan") == "scan"
    with pytest.raises(ValueError, match="method must be one of"):
        linear_recurrence_route(a, b, method="guess")
    with pytest.raises(ValueError, match="a must have 1 or 3 entries"):
        linear_recurrence_route(torch.ones(2), b)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", NUMBERS)
def test_the_function_on_a_gpu_is_the_loop_on_a_cpu(dtype):
    device = on_gpu()
    a, b, initial = draw("many tiles", dtype)
    there = [x.to(device) for x in (a, b, initial)]
    for method in ("auto", "cuda"):
        h = linear_recurrence(there[0], there[1], initial=there[2], method=method)
        assert_right(h, a, b, initial, False)
    assert linear_recurrence_route(*there[:2]) == "linear_recurrence.cu"
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # after work that is still on its way there
        late = b.to(device).repeat(4, 1)[:2] * 1.0
        h = linear_recurrence(there[0], late, initial=there[2])
    side.synchronize()
    assert_right(h, a, b, initial, False)
    strided = torch.stack([there[1], there[1]], -1)[..., 0]
    assert_right(
        linear_recurrence(there[0], strided, initial=there[2]), a, b, initial, False
    )


@pytest.mark.gpu
def test_the_operators_compile_and_differentiate_on_a_gpu():
    device = on_gpu()
    for dtype in (torch.float64, torch.complex128):
        inputs = [
            x.detach().to(device).requires_grad_() for x in small("shared", dtype)
        ]
        torch.library.opcheck(recurrence_op, (*inputs, False))
        assert gradcheck(lambda *x: recurrence_op(*x, False), inputs)
        assert gradgradcheck(lambda *x: recurrence_op(*x, True), inputs)
    a, b = (torch.rand(3, 50, device=device, requires_grad=True) for _ in "ab")
    quick = torch.compile(
        lambda a, b: linear_recurrence(a, b).sin().sum(), fullgraph=True
    )
    got = torch.autograd.grad(quick(a, b), (a, b))
    want = torch.autograd.grad(linear_recurrence(a, b).sin().sum(), (a, b))
    for mine, other in zip(got, want, strict=True):
        assert torch.allclose(mine, other, rtol=1e-5, atol=1e-5)


# Mistakes -----------------------------------------------------------------------------

# "forward" or "backward", a case where it shows, the text, what stands there by mistake
BUGS = {
    "no barrier in front of the totals": (
        "forward", "many tiles", "__syncthreads();", "",
    ),
    "the carry forgets the tile before": (
        "forward", "many tiles", "carry = madd(totals[k].a, carry, totals[k].b)",
        "carry = totals[k].b",
    ),
    "a warp takes the carry behind it": (
        "forward", "a whole tile", "if (k == warp) state = carry;\n        carry = "
        "madd(totals[k].a, carry, totals[k].b);", "carry = madd(totals[k].a, carry, "
        "totals[k].b);\n        if (k == warp) state = carry;",
    ),
    "rows that share a block share totals": (
        "forward", "a warp and more", "int k = first; k < first + warps",
        "int k = 0; k < warps",
    ),
    "the first lane takes itself for its past": (
        "forward", "a prime", "if (lane == 0) before", "if (lane < 0) before",
    ),
    "a lane leaves out its neighbour": (
        "forward", "a warp and more", "if (lane >= d)", "if (lane > d)",
    ),
    "the last shuffle is missing": (
        "forward", "a whole tile", "d < 32; d *= 2", "d < 16; d *= 2",
    ),
    "steps are folded in the wrong order": (
        "forward", "a warp and more", "mine = then(below, mine)",
        "mine = then(mine, below)",
    ),
    "the initial state is left out": (
        "forward", "a prime", "NUMBER carry = initial[row]",
        "NUMBER carry = number(0)",
    ),
    "a pack reaches beyond its row": (
        "forward", "a step beyond a tile", "holds(t) & holds(t + VEC - 1)", "holds(t)",
    ),
    "rows are taken for aligned": (
        "forward", "a prime", "const int begin = row * T % VEC",
        "const int begin = 0",
    ),
    "a shared coefficient takes another row": (
        "forward", "shared coefficients", "row % a_rows * a_T;\n    NUMBER carry = "
        "initial", "row / 2 * a_T;\n    NUMBER carry = initial",
    ),
    "the imaginary parts' product has the wrong sign": (
        "forward", "a prime", "p.x * q.x - p.y * q.y", "p.x * q.x + p.y * q.y",
    ),
    "the coefficient is not conjugated": (
        "backward", "a prime", "inside ? conjugate(a_row[a_T == 1 ? 0 : t])",
        "inside ? (a_row[a_T == 1 ? 0 : t])",
    ),
    "the state is not conjugated": (
        "backward", "a prime", "conjugate(before)", "before",
    ),
    "the coefficient of this step, not of the next": (
        "backward", "a warp and more", "line.time(p + k) + next",
        "line.time(p + k) + 0 * next",
    ),
    "the state of this step, not of the one before": (
        "backward", "a warp and more", "line.time(p + k) - next;",
        "line.time(p + k) - 0 * next;",
    ),
    "the initial state is no past": (
        "backward", "a prime", ": initial[row];", ": number(0);",
    ),
}  # fmt: skip


def use(monkeypatch, change=lambda text: text, sanitizer=None):
    """Let the launches take a changed text, or a sanitizer."""

    def module(stem, device_type, **constants):
        text = change(read_source(stem))
        return EmulatedModule(text, constants=constants, sanitizer=sanitizer)

    monkeypatch.setattr(cuda, "kernel_module", module)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_mistake_is_found(name, monkeypatch):
    way, case, old, new = BUGS[name]
    assert read_source("linear_recurrence").count(old) == 1
    use(monkeypatch, lambda text: text.replace(old, new))
    check = check_backward
    if way == "forward":
        check = lambda *args, **how: check_forward(KERNELS[1], *args, **how)  # noqa: E731
    with pytest.raises((AssertionError, KernelError)):
        for dtype in (torch.complex128, torch.complex64):  # packs of 1 and of 2
            for order in ORDERS:
                how = {"schedule": order, "guard": 1 << 12}
                check(case, dtype, "cpu", False, **how)


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_the_sanitizers_find_nothing(sanitizer, monkeypatch):
    use(monkeypatch, sanitizer=sanitizer)
    for name in ("rows share a block", "a step beyond a tile"):
        check_forward(KERNELS[1], name, torch.float32, "cpu", False)
        check_backward(name, torch.float32, "cpu", False)


def test_the_thread_sanitizer_sees_totals_that_are_used_again(monkeypatch):
    """No order of the emulator lets a warp run a tile ahead: only this one sees it."""
    assert read_source("linear_recurrence").count("turn ^= 1") == 2
    one_set = lambda text: text.replace("turn ^= 1", "turn ^= 0")  # noqa: E731
    use(monkeypatch, one_set, sanitizer="thread")
    with pytest.raises(KernelError, match="data race"):
        check_forward(KERNELS[1], "a step beyond a tile", torch.float64, "cpu", False)
