"""One launch under AddressSanitizer or ThreadSanitizer, and what they found.

A sanitizer must be in a process from its start, so each such launch is a program of its
own that reads the arguments from a file and writes them back.
"""

import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ckutils.cuda.emulator import NO_CONSTANTS, EmulatedModule, KernelError

OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:exitcode=98:detect_stack_use_after_return=0",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=97:report_signal_unsafe=0",
}
_HEADLINE = re.compile(r"(?:Address|Thread)Sanitizer: (data race|[\w-]+)")


class Report(NamedTuple):
    """What one launch under a sanitizer brought to light."""

    clean: bool
    kind: str = ""  # "heap-buffer-overflow", "data race", or the runtime's message
    line: int = 0  # of the .cu text; 0 where it is not known
    text: str = ""  # all that was printed

    def __str__(self) -> str:
        if self.clean:
            return "clean"
        return f"{self.kind}, line {self.line}" if self.line else self.kind


class Finding(KernelError):
    """A KernelError that carries the sanitizer's report."""

    def __init__(self, kernel: str, report: Report):
        super().__init__(f"{kernel}: {report}")
        self.report = report


def sanitize(
    source: str,
    kernel: str,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    args: Sequence,
    *,
    sanitizer: str,
    constants: Mapping[str, object] = NO_CONSTANTS,
    shared_bytes: int = 0,
    schedule: str | int = "index",
) -> Report:
    """Run one launch under a sanitizer and report what it found.

    All chapters.

    Args:
        source, constants: the text and its macros, as for EmulatedModule.
        kernel, grid, block, args, shared_bytes, schedule: as for its launch.
        sanitizer: "address" for accesses outside arguments and shared arrays, "thread"
            for data races, between the threads of a block and between blocks.
    Returns a Report; its `clean` is True if nothing was found.
    """
    module = EmulatedModule(source, constants=constants, sanitizer=sanitizer)
    try:
        module.launch(
            kernel, grid, block, args, shared_bytes=shared_bytes, schedule=schedule
        )
    except KernelError as error:
        return error.report if isinstance(error, Finding) else _message(str(error))
    return Report(clean=True)


def run_program(
    program: Path,
    sanitizer: str,
    kernel: str,
    index: int,
    sizes: tuple,
    arguments: Sequence,
) -> int:
    """Run the program once; the arrays get what the kernel wrote. All chapters.

    Returns the number of switches. Raises Finding for what the sanitizer or the runtime
    found, RuntimeError if the sanitizer itself cannot run here.
    """
    with tempfile.TemporaryDirectory() as folder:
        request, reply = Path(folder) / "request", Path(folder) / "reply"
        request.write_bytes(_request(index, sizes, arguments))
        done = _run([str(program), str(request), str(reply)])
        found = _found(done.stderr)
        if found is None and done.returncode:
            raise RuntimeError(
                f"the {sanitizer} sanitizer ended with status {done.returncode}:\n"
                f"{done.stderr.strip()[-2000:]}"
            )
        if found is not None:
            raise Finding(kernel, found)
        return _take_reply(kernel, reply.read_bytes(), arguments)


def _request(index: int, sizes: tuple, arguments: Sequence) -> bytes:
    grid, block, shared_bytes, shared_limit, order = sizes
    numbers = (index, *grid, *block, shared_bytes, shared_limit)
    parts = [struct.pack("<9QqQ", *numbers, order, len(arguments))]
    for argument in arguments:
        is_array = argument.array is not None
        data = argument.array.tobytes() if is_array else argument.value
        parts += [struct.pack("<3Q", is_array, len(data), argument.offset), data]
    return b"".join(parts)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess:
    """TSan needs an address space it can oversee: some kernels spread it too wide."""
    environment = {**os.environ, **OPTIONS}
    options = {"capture_output": True, "text": True, "env": environment}
    done = subprocess.run(command, **options)
    if "unexpected memory mapping" in done.stderr and shutil.which("setarch"):
        done = subprocess.run(["setarch", "-R", *command], **options)
    if "unexpected memory mapping" in done.stderr:
        raise RuntimeError(
            "ThreadSanitizer does not run with this system's address randomisation: "
            "lower it (sudo sysctl vm.mmap_rnd_bits=28), or run where setarch -R works"
        )
    return done


def _found(text: str) -> Report | None:
    match = _HEADLINE.search(text)
    if match is None:
        return None
    lines = re.findall(r"^\s*#\d+ .*?\.cu:(\d+)", text, re.M)
    return Report(False, match[1], int(lines[0]) if lines else 0, text)


def _message(text: str) -> Report:
    """The runtime's own words: they start with the line if it is known."""
    match = re.fullmatch(r"(?:line (\d+): )?(.*)", text, re.S)
    return Report(False, match[2], int(match[1] or 0), text)


def _take_reply(kernel: str, reply: bytes, arguments: Sequence) -> int:
    switches, length = struct.unpack_from("<2Q", reply)
    place = 16 + length
    if length:
        raise Finding(kernel, _message(reply[16:place].decode()))
    for argument in arguments:
        if argument.array is not None:
            data = reply[place : place + argument.array.size]
            argument.inside[:] = memoryview(data)
            place += len(data)
    return switches
