"""clareo restores real-world photos and says what was wrong with them.

>>> import clareo
>>> clareo.list_systems()
['dalpsr', 'instancersr', 'mrir', 'uare', 'unires']
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from clareo.degrade import degrade
    from clareo.errors import ClareoError
    from clareo.io import Photo, read_photo, write_photo
    from clareo.quality.report import assess, compare
    from clareo.restore import restore
    from clareo.system import System, list_systems, load_system
    from clareo.types import Assessment, Percept, Plan, Restoration, Verdict

__all__ = [
    "Assessment",
    "ClareoError",
    "Percept",
    "Photo",
    "Plan",
    "Restoration",
    "System",
    "Verdict",
    "assess",
    "compare",
    "degrade",
    "list_systems",
    "load_system",
    "read_photo",
    "restore",
    "write_photo",
]

_HOMES = {
    "Assessment": "types",
    "ClareoError": "errors",
    "Percept": "types",
    "Photo": "io",
    "Plan": "types",
    "Restoration": "types",
    "System": "system",
    "Verdict": "types",
    "assess": "quality.report",
    "compare": "quality.report",
    "degrade": "degrade",
    "list_systems": "system",
    "load_system": "system",
    "read_photo": "io",
    "restore": "restore",
    "write_photo": "io",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever lives there
    """Import a public name when it is first asked for: torch takes seconds, `clareo --help` must not."""
    if name not in _HOMES:
        msg = f"module 'clareo' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"clareo.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Package(ModuleType):
    """`clareo.restore` and `clareo.degrade` are functions, although modules of the same names hold them.

    The import system binds a submodule to its package's attribute; here it binds the function instead.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and name in _HOMES:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
