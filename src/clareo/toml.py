"""TOML, the one way clareo reads it: recipes that people write, and lists that travel with the package."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

from clareo.errors import RecipeError, UnknownNameError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_recipe_toml(path: Path) -> dict[str, Any]:
    """Read a recipe; say what is wrong with a file that is none."""
    try:
        plain: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"cannot read the recipe {path}: {error}"
        raise RecipeError(msg) from error
    return plain


def with_tuples(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values as settings hold them: TOML and JSON make lists of tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}


def checked(kind: type, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values, all of which are fields of a dataclass; name the nearest right one of a key that is not."""
    names = {f.name for f in fields(kind)}
    for key in plain:
        if key not in names:
            raise UnknownNameError.of(f"{kind.__name__.lower()} key", key, names)
    return dict(plain)


def read_packaged_toml(folder: str, name: str, parse_float: Callable[[str], Any] = float) -> dict[str, Any]:
    """Read a list that travels with the package."""
    text = (resources.files("clareo") / folder / name).read_text(encoding="utf-8")
    plain: dict[str, Any] = tomllib.loads(text, parse_float=parse_float)
    return plain


def parse_value(text: str) -> Any:  # noqa: ANN401 - whatever was written
    """Read one value; a bare word is taken as it is."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
