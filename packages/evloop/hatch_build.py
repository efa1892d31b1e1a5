"""Build hook: compile ``evloop._shim`` into the wheel."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShimHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hand the build over to ``evloop.shimbuild``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the shim; hatchling calls this before it builds a wheel."""
        # By path: evloop cannot be imported yet, since it imports the shim that is about to be built.
        path = Path(self.root, "src", "evloop", "shimbuild.py")
        spec = importlib.util.spec_from_file_location("_evloop_shimbuild", path)
        assert spec is not None and spec.loader is not None
        shimbuild = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = shimbuild  # its dataclass looks itself up there
        spec.loader.exec_module(shimbuild)
        shimbuild.add_shim(self.root, "evloop", version, build_data)
