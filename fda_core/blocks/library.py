"""Where the transformers library keeps a family's classes."""

from importlib import import_module
from types import ModuleType


def modules_of(package: str) -> tuple[ModuleType, ModuleType]:
    """Return a family's modules of configurations and of models."""
    inside = f"transformers.models.{package}"
    return (
        import_module(f"{inside}.configuration_{package}"),
        import_module(f"{inside}.modeling_{package}"),
    )
