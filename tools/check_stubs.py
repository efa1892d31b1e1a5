"""Check the stubs of the installed shims against the C declarations: `python tools/check_stubs.py evloop evnet`.

mypy's stubtest sees in `lib` one object whose attributes it cannot look at; cffi can. Each function must be in the stub and in
the shim, with as many arguments, and of kinds that go together.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["main", "problems"]

# What the stub may say for an argument or a result of the kind that cffi names; an integer may also be a C _Bool.
_FITTING = {
    "primitive": {"int", "bool"},
    "pointer": {"Any", "bytes"},
    "struct": {"Any"},
    "void": {"None"},
}


def problems(package: str) -> list[str]:
    """List where the stub of a package's shim and the shim itself differ."""
    module = import_module(f"{package}._shim")
    # The stub that a type checker finds: the one beside the module.
    stub = Path(str(module.__file__)).parent / "_shim.pyi"
    declared = _functions(stub)
    found = [f"{name} is in the stub and not in the shim" for name in sorted(declared.keys() - set(dir(module.lib)))]
    found += [f"{name} is in the shim and not in the stub" for name in sorted(set(dir(module.lib)) - declared.keys())]
    for name in sorted(declared.keys() & set(dir(module.lib))):
        c_type = module.ffi.typeof(getattr(module.lib, name))
        found += [f"{name}: {line}" for line in _differences(declared[name], c_type)]
    missing = sorted(_methods(stub, "_Ffi").keys() - set(dir(module.ffi)))
    found += [f"ffi.{name} is in the stub and not in cffi" for name in missing if name != "NULL"]
    return [f"{package}._shim: {line}" for line in found]


def _functions(stub: Path) -> dict[str, ast.FunctionDef]:
    return _methods(stub, "_Lib")


def _methods(stub: Path, name: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(stub.read_text(encoding="utf-8"))
    owner = next(each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == name)
    return {each.name: each for each in owner.body if isinstance(each, ast.FunctionDef)}


def _differences(declared: ast.FunctionDef, c_type: Any) -> Iterator[str]:
    arguments = [*declared.args.posonlyargs, *declared.args.args][1:]
    if len(arguments) != len(c_type.args):
        yield f"{len(arguments)} arguments in the stub, {len(c_type.args)} in C"
        return
    for argument, wanted in zip(arguments, c_type.args, strict=True):
        if not _fits(argument.annotation, wanted):
            yield f"argument {argument.arg} is {_text(argument.annotation)} in the stub, {wanted.cname} in C"
    if not _fits(declared.returns, c_type.result):
        yield f"the result is {_text(declared.returns)} in the stub, {c_type.result.cname} in C"


def _fits(annotation: ast.expr | None, c_type: Any) -> bool:
    return _text(annotation) in _FITTING.get(c_type.kind, set())


def _text(annotation: ast.expr | None) -> str:
    return ast.unparse(annotation) if annotation is not None else "nothing"


def main(packages: Sequence[str]) -> int:
    """Check the shims of the packages; print what is wrong; return the exit code."""
    found = [line for package in packages for line in problems(package)]
    for line in found:
        print(f"check_stubs: {line}", file=sys.stderr)
    if not found:
        print(f"check_stubs: the stubs of {', '.join(packages)} say what their shims do")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
