"""Build hook: compile ``evline._shim`` into the wheel."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

from evloop.shimbuild import add_shim


class ShimHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hand the build over to ``evloop.shimbuild``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the shim; hatchling calls this before it builds a wheel."""
        add_shim(self.root, "evline", version, build_data, needs=("evloop", "evnet"))
