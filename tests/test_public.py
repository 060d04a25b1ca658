"""What is public, what is lazy, and that the README tells the truth about the tree."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import clareo

ROOT = Path(__file__).parent.parent


def test_all_is_sorted_and_complete() -> None:
    assert clareo.__all__ == sorted(clareo.__all__)
    for name in clareo.__all__:
        assert getattr(clareo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'restor'"):
        _ = clareo.restor


def test_functions_win_over_the_modules_that_hold_them() -> None:
    code = (
        "import clareo.restore, clareo.degrade, clareo.batch, clareo; from clareo.degrade import recipes;"
        "assert callable(clareo.restore) and callable(clareo.degrade) and recipes.RECIPES"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_everything_loads_no_optional_package() -> None:
    code = (
        "import sys, clareo; [getattr(clareo, n) for n in clareo.__all__]; clareo.load_system();"
        "print([m for m in ('diffusers', 'transformers', 'pyvips', 'accelerate') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "[]"


def modules() -> list[str]:
    source = ROOT / "src"
    paths = sorted(source.rglob("*.py"))
    return [".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__") for path in paths]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name: str) -> None:
    found = doctest.testmod(
        importlib.import_module(name) if name != "clareo.restore" else sys.modules["clareo.restore"]
    )
    assert found.failed == 0


def test_files_stay_readable() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


def test_the_readme_tree_is_the_tree_on_disk() -> None:
    """Every file of the package is in the README's tree, and the tree names nothing else."""
    block = re.search(r"```text\nsrc/clareo/\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    told: set[str] = set()
    folders: list[str] = []
    for line in block.group(1).splitlines():
        name = line.split()[0]
        del folders[(len(line) - len(line.lstrip())) // 2 - 1 :]
        if name.endswith("/"):
            folders.append(name)
        else:
            told.add("".join(folders) + name)
    package = ROOT / "src" / "clareo"
    there = {str(p.relative_to(package)) for p in package.rglob("*") if p.suffix in (".py", ".toml", ".safetensors")}
    there = {name for name in there if not name.endswith("__init__.py")} | {"__init__.py"}
    assert told == there
