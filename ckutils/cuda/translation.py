"""From the text of a .cu file to a C++ file for g++: two rewrites, line by line.

Nearly all of CUDA C is C++ once `host/ck_cuda.h` has declared its words. What a header
cannot express is `__shared__`: memory that belongs to the block, not to the thread.
"""

import re
from collections.abc import Mapping

from ckutils.cuda.signature import Parameter, without_comments

_SHARED = re.compile(r"(?P<extern>\bextern\s+)?\b__shared__\b(?P<rest>[^;{}]*);")
_ALIGNMENT = re.compile(r"\b(?:__align__|alignas)\s*\(([^()]*)\)")
_FIRST = re.compile(r"(?P<type>.*[\s>])(?P<name>\w+)\s*(?P<size>(?:\[.*\])?)", re.S)
_NEXT = re.compile(r"\s*(?P<name>\w+)\s*(?P<size>(?:\[.*\])?)\s*", re.S)


def translate(
    source: str, signatures: Mapping[str, tuple[Parameter, ...]], name: str
) -> str:
    """A C++ translation unit with the kernels of `source` and a table of them.

    All chapters. Lines keep their numbers, so that messages point into the .cu file.
    Raises ValueError for a `__shared__` declaration that is not inside a function.
    """
    text = without_comments(source)
    body = _SHARED.sub(lambda match: _declaration(match, text), text)
    return "\n".join(
        [
            '#include "ck_cuda.h"',
            '#include "ck_runtime.h"',
            f'#line 1 "{name}"',
            body,
            '#line 1 "calls"',
            *(_call(kernel, signatures[kernel]) for kernel in signatures),
            'extern "C" const CkKernel ck_kernels[] = {',
            *(f'    {{"{kernel}", ck_call_{kernel}}},' for kernel in signatures),
            "    {nullptr, nullptr}};",
            "",
        ]
    )


def _declaration(match: re.Match, text: str) -> str:
    before = text[: match.start()]
    if before.count("{") == before.count("}"):
        line = before.count("\n") + 1
        raise ValueError(f"line {line}: __shared__ must stand inside a function")
    rest = _ALIGNMENT.sub(" ", match["rest"]).strip()
    first, *others = _split(rest)
    head = _FIRST.fullmatch(first)
    if head is None:
        raise ValueError(f"a __shared__ declaration must read 'type name', got {rest}")
    ctype = head["type"].strip()
    lines = match.group().count("\n")
    if match["extern"]:
        return _dynamic(ctype, head["name"]) + "\n" * lines
    found = [head, *(_NEXT.fullmatch(other) for other in others)]
    return " ".join(_static(ctype, m["name"], m["size"]) for m in found) + "\n" * lines


def _split(declarators: str) -> list[str]:
    """At the commas that stand outside all brackets."""
    parts, depth = [""], 0
    for letter in declarators:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _dynamic(ctype: str, name: str) -> str:
    return f"{ctype}* const {name} = ({ctype}*)ck_dynamic_shared(__LINE__);"


def _static(ctype: str, name: str, size: str) -> str:
    size = " ".join(size.split())
    return (
        f"typedef {ctype} ck_type_{name}{size}; static CkSlot ck_slot_{name}; "
        f"ck_type_{name}& {name} = *(ck_type_{name}*)"
        f"ck_static_shared(&ck_slot_{name}, sizeof(ck_type_{name}), __LINE__);"
    )


def _call(kernel: str, signature: tuple[Parameter, ...]) -> str:
    """A function that takes the arguments as addresses, as a GPU driver does."""
    values = ", ".join(
        f"*({p.ctype}{'*' if p.pointer else ''}*)args[{i}]"
        for i, p in enumerate(signature)
    )
    return f"static void ck_call_{kernel}(void** args) {{ {kernel}({values}); }}"
