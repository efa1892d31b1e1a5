"""What is served: a handler or a protocol, given as an object or as "module:name"."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from evmulti._errors import TargetError

__all__ = ["Target"]


class Target:
    """A handler of requests, or a factory of plain protocols.

    Args:
        what: A callable, or ``"module:name"`` (``name`` may have dots), which is imported by each worker for itself.
        protocol: It is a factory of protocols. A class with ``connection_made`` is one in any case.

    Raises:
        TypeError: It is neither callable nor text.
        TargetError: The text has not the form ``module:name``.
    """

    def __init__(self, what: Callable[..., object] | str, *, protocol: bool = False) -> None:
        self._what = what
        self._protocol = protocol
        if isinstance(what, str):
            self._module, colon, self._path = what.partition(":")
            if not (self._module and colon and self._path):
                raise TargetError(f"expected module:handler, not {what!r}")
        elif not callable(what):
            raise TypeError(f"a handler must be callable, or text like 'module:handler', not {what!r}")

    @property
    def name(self) -> str:
        """How it is called in log lines."""
        return self._what if isinstance(self._what, str) else getattr(self._what, "__qualname__", repr(self._what))

    @property
    def is_named(self) -> bool:
        """Whether it is imported by name, so that a new worker may find new code."""
        return isinstance(self._what, str)

    def load(self) -> Callable[..., Any]:
        """The callable itself, imported if need be.

        Raises:
            TargetError: One line that says what is wrong.
        """
        if not isinstance(self._what, str):
            return self._what
        found: Any = self._imported()
        for part in self._path.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                raise TargetError(f"{self._module!r} has no {self._path!r}") from None
        if not callable(found):
            raise TargetError(f"{self._what!r} is not callable: it is {type(found).__name__}")
        return found  # type: ignore[no-any-return]  # whatever is callable

    def is_protocol(self, loaded: Callable[..., Any]) -> bool:
        """Whether what was loaded makes protocols."""
        return self._protocol or (isinstance(loaded, type) and hasattr(loaded, "connection_made"))

    def forget(self) -> None:
        """Have the next `load` import anew: the module, and what lies in the same package or folder beside it."""
        if not self.is_named or (module := sys.modules.get(self._module)) is None:
            return
        top = self._module.partition(".")[0]
        folder = _folder(module)
        for name, each in list(sys.modules.items()):
            if name == "__main__" or each is None:
                continue
            if name == top or name.startswith(f"{top}.") or (folder is not None and _folder(each) == folder):
                del sys.modules[name]
        importlib.invalidate_caches()

    def _imported(self) -> ModuleType:
        try:
            return importlib.import_module(self._module)
        except ModuleNotFoundError as error:
            if error.name and (self._module == error.name or self._module.startswith(f"{error.name}.")):
                raise TargetError(f"there is no module {self._module!r}") from None
            raise TargetError(f"cannot import {self._module!r}: {error}{_where(error)}") from error
        except Exception as error:
            raise TargetError(
                f"cannot import {self._module!r}: {type(error).__name__}: {error}{_where(error)}"
            ) from error


def _folder(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).parent if file else None


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return ""  # it says so itself
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f" ({frames[-1].filename} line {frames[-1].lineno})" if len(frames) > 1 else ""
