"""What can be trained by name: every restoration system, and the networks that understand photos."""

from __future__ import annotations

import importlib
from types import ModuleType

from clareo.errors import UnknownNameError
from clareo.system import list_systems, system_module

OTHERS = {
    "irpad": "clareo.train.irpad",
    "judge": "clareo.train.judge",
    "tagger": "clareo.train.tagger",
    "teacher": "clareo.train.teacher",
}


def learner(name: str) -> ModuleType:
    """Import the file that says how one network learns: it offers ``training(options)`` and ``lessons(options)``."""
    if name in OTHERS:
        return importlib.import_module(OTHERS[name])
    if name not in list_systems():
        raise UnknownNameError.of("system", name, [*list_systems(), *OTHERS])
    return system_module(name)
