"""Which constants the book's kernels are compiled with, and what they need then."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from ckutils.cuda import ckn_epilogue, correlate2d, linear_recurrence, spectral
from ckutils.cuda.compile import ARCHITECTURES, Usage, compile_report
from ckutils.cuda.launcher import kernel_files, read_source

_IMAGE = (4096, 4096)
# Square kernels; each size is compiled for its own. Double serves gradient checks.
_SIZES = {torch.float32: (3, 7, 10, 31), torch.float64: (31,)}

VARIANTS: dict[str, tuple[Mapping[str, object], ...]] = {
    "ckn_layer": tuple(
        {"REAL": real, "KAPPA": row.number}
        for real in ckn_epilogue.REALS.values()
        for row in ckn_epilogue.ROWS.values()
    ),
    "correlate2d": tuple(
        correlate2d.plan((size, size), _IMAGE, real).constants
        for real, sizes in _SIZES.items()
        for size in sizes
    ),
    "linear_recurrence": tuple(linear_recurrence.NUMBERS.values()),
    "spectral_product": tuple(spectral.TYPES.values()),
}


class Need(NamedTuple):
    """What one kernel of a file needs with some constants, per architecture."""

    file: str
    kernel: str
    constants: str
    usages: tuple[Usage, ...]


def needs(
    architectures: Sequence[int] = ARCHITECTURES, *, compiler: str = "nvrtc"
) -> tuple[Need, ...]:
    """Compile every kernel file with all its constants; one row a kernel and variant.

    All chapters. A kernel that does not look at a constant has one row for all values
    of it.

    Raises ValueError if a .cu file has no row in VARIANTS, RuntimeError as
    compile_report.
    """
    if missing := set(kernel_files()) - set(VARIANTS):
        raise ValueError(f"VARIANTS must have a row for {', '.join(sorted(missing))}")
    jobs = [
        (file, constants) for file in kernel_files() for constants in VARIANTS[file]
    ]

    def ask(job):
        file, constants = job
        return compile_report(
            read_source(file), architectures, constants, compiler=compiler
        )

    with ThreadPoolExecutor(max_workers=2) as pool:  # the compiler lets go of Python
        answers = list(pool.map(ask, jobs))
    rows = [
        row
        for (file, constants), usages in zip(jobs, answers, strict=True)
        for row in _rows(file, constants, usages)
    ]
    first = {(row.kernel, row.usages): row for row in reversed(rows)}
    return tuple(first.values())[::-1]


def _rows(file: str, constants: Mapping, usages: Sequence[Usage]) -> Iterator[Need]:
    text = " ".join(f"{name}={value}" for name, value in constants.items())
    for kernel in dict.fromkeys(usage.kernel for usage in usages):
        found = tuple(usage for usage in usages if usage.kernel == kernel)
        yield Need(file, kernel, text, found)


def table(rows: Sequence[Need]) -> str:
    """The rows as a Markdown table: registers a thread on each architecture.

    All chapters.
    """
    architectures = [usage.architecture for usage in rows[0].usages]
    names = [f"sm_{architecture}" for architecture in architectures]
    lines = [
        f"| kernel | constants | {' | '.join(names)} | shared bytes | spilled bytes |",
        "|---|---|" + "--:|" * (len(names) + 2),
    ]
    for row in rows:
        registers = " | ".join(str(usage.registers) for usage in row.usages)
        most = (max(u.shared for u in row.usages), max(u.spills for u in row.usages))
        cells = (f"`{row.kernel}`", row.constants, registers, *map(str, most))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
