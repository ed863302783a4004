"""Compiling for the emulator: g++, its flags, and a cache of what it made."""

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HOST = Path(__file__).with_name("host")

# What undefined behaviour the kernels are checked for, in every mode; the runtime
# turns each into a message. A GPU would compute something, silently.
CHECKS = (
    "alignment", "bounds", "integer-divide-by-zero", "null", "return", "shift",
    "signed-integer-overflow", "unreachable", "vla-bound",
)  # fmt: skip
COMMON = (
    "-std=gnu++17", "-g", "-fPIC", "-w", "-fvisibility=hidden",
    "-ffp-contract=off",  # a*b + c rounds twice, the same on every machine
    "-fno-strict-aliasing",  # kernels read float* as float4*, as nvcc lets them
    "-fno-math-errno", "-fno-omit-frame-pointer",
    "-fstack-clash-protection",  # a large frame meets the guard, and does not jump it
)  # fmt: skip
OPTIMIZE = {None: "-O2", "address": "-O1", "thread": "-O1"}
DEFINE = {None: (), "address": ("-DCK_ADDRESS",), "thread": ("-DCK_THREAD",)}


def compiler() -> str:
    """The path of g++, or of what the environment variable CXX names.

    All chapters. Raises RuntimeError that says what to install where there is none.
    """
    wanted = os.environ.get("CXX", "g++")
    found = shutil.which(wanted)
    if found is None:
        raise RuntimeError(
            f"the emulator compiles kernels with {wanted}, which is not installed: "
            f"install g++ (Debian and Ubuntu: apt install g++; conda: gxx), or name "
            f"another compiler in the environment variable CXX"
        )
    return found


@functools.cache
def _version(path: str) -> str:
    done = subprocess.run([path, "--version"], capture_output=True, text=True)
    return f"{done.stdout.splitlines()[:1]} {platform.machine()}"


def cache_folder() -> Path:
    """Where compiled kernels are kept: the user's cache folder, or a temporary one.

    All chapters. The package itself may be read-only; nothing is written beside it.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    for folder in (Path(base) / "ckutils", _temporary()):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise RuntimeError(
        "no folder for compiled kernels can be written: set XDG_CACHE_HOME"
    )


def _temporary() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"ckutils-{user}"


def build(code: str, *, constants: Mapping[str, object], sanitizer: str | None) -> Path:
    """Compile a translated kernel file; a library, or a program if sanitized.

    All chapters. What was compiled before, from the same inputs by the same compiler,
    is taken from the cache.

    Raises RuntimeError with the compiler's words if the text does not compile.
    """
    define = [f"-D{name}={value}" for name, value in constants.items()]
    flags = [OPTIMIZE[sanitizer], *COMMON, *DEFINE[sanitizer]]
    checks = f"-fsanitize={','.join(CHECKS)}"
    sanitize = [f"-fsanitize={sanitizer}"] if sanitizer else []
    # the runtime switches stacks itself; TSan would take that for a race
    runtime_sanitize = [] if sanitizer == "thread" else sanitize
    parts = [("ck_runtime.cpp", runtime_sanitize), ("ck_checks.cpp", [])]
    if sanitizer:
        parts.append(("ck_main.cpp", runtime_sanitize))
    objects = [
        _make([HOST / part, "-c", *flags, *extra], ".o") for part, extra in parts
    ]
    source = _stored(code)
    kernels = _make([source, "-c", *flags, *sanitize, checks, *define], ".o")
    kind, ending = ([], "") if sanitizer else (["-shared"], ".so")
    return _make([*kind, kernels, *objects, *sanitize], ending)


def _stored(code: str) -> Path:
    """The code as a file of the cache, named by what it holds."""
    path = cache_folder() / f"{_digest(code)}.cpp"
    if not path.exists():
        _publish(path, lambda temporary: temporary.write_text(code))
    return path


def _make(arguments: Sequence[Path | str], ending: str) -> Path:
    """What g++ makes of the arguments, compiled once."""
    command = [compiler(), "-I", str(HOST), *map(str, arguments)]
    path = cache_folder() / f"{_digest(_version(command[0]), _headers(), *command)}"
    path = path.with_name(path.name + ending)
    if not path.exists():
        _publish(path, lambda temporary: _compile([*command, "-o", str(temporary)]))
    return path


@functools.cache
def _headers() -> str:
    """All files of the runtime: when one of them changes, everything is made anew."""
    return "".join(file.read_text() for file in sorted(HOST.iterdir()))


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]


def _publish(path: Path, write) -> None:
    """Written under another name, then renamed: nobody sees half a file, and two
    processes that make the same one do not disturb each other."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        write(temporary)
        os.replace(temporary, path)


def _compile(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"g++ does not accept the kernel:\n{done.stderr.strip()}")
