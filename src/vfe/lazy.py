"""Names of a package that are imported when they are first asked for."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def later(package: str, parts: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """A module's `__getattr__`: each part, a module below the package, is imported with the names it holds.

    **Arguments:** `package`: its name; `parts`: for every module, relative to the package, the names that
    the package takes from it; the module itself is a name, too, unless it lies deeper, so that no
    module may have the name of what it holds.

    **Raises:** `AttributeError` for names that no part holds.

    **Example:** `__getattr__ = later(__name__, {"act": ("act",)})`.
    """
    home = importlib.import_module(package)

    def find(name: str) -> Any:
        for part, names in parts.items():
            if name == part or name in names:
                module = importlib.import_module(f"{package}.{part}")
                vars(home).update({each: getattr(module, each) for each in names})
                return vars(home)[name]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
