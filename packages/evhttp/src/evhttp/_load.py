"""A handler found by its name: ``module:handler``."""

from __future__ import annotations

import importlib
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evhttp._server import Handler

__all__ = ["LoadError", "load_handler"]


class LoadError(Exception):
    """A handler cannot be had; the message is one line that says why."""


def load_handler(name: str) -> Handler:
    """Import a module and return what it calls by a name.

    Args:
        name: ``"module:handler"``; both may have dots, ``"shop.web:api.handler"``.

    Raises:
        LoadError: There is no such module or name, the module raises when it is imported, or what is found cannot be called.
    """
    module, colon, attribute = name.partition(":")
    if not (colon and all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))):
        raise LoadError(f"a handler is named module:handler, not {name!r}")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise LoadError(f"no module named {error.name!r}") from None
        raise LoadError(_where(module, error)) from error
    except (Exception, SystemExit) as error:
        raise LoadError(_where(module, error)) from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise LoadError(f"{module!r} has no {attribute!r}") from None
    if not callable(found):
        raise LoadError(f"{name} is no handler: {type(found).__name__!r} cannot be called")
    return found


def _where(module: str, error: BaseException) -> str:
    """What went wrong in a module, and where, in one line."""
    text = " ".join("".join(traceback.format_exception_only(type(error), error)).split())
    if isinstance(error, SyntaxError):
        text = f"{type(error).__name__}: {error}"
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{text} ({last.filename}, line {last.lineno})"
    return f"cannot import {module!r}: {text}"
