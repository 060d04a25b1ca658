"""Every model that a preset may use: where it is, under which licence, and what it learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clareo.checkpoints import Entry, packaged
from clareo.errors import UnknownNameError
from clareo.toml import read_packaged_toml

# Licences that allow commercial use, under conditions in the case of RAIL. What is not named here does not.
COMMERCIAL = frozenset(
    {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CreativeML Open RAIL-M", "CreativeML Open RAIL++-M"}
)


@dataclass(frozen=True)
class Foreign:
    """A model by others, as `weights/elsewhere.toml` lists it."""

    name: str  # on the hub
    used_by: str
    licence: str
    trained_on: str


Model = Entry | Foreign


def foreign() -> dict[str, Foreign]:
    """Return the models of others by name."""
    listed = read_packaged_toml("weights", "elsewhere.toml")
    return {name: Foreign(name=name, **plain) for name, plain in listed.items()}


def may_be_sold(model: Model) -> bool:
    """Tell whether the licence of the weights allows commercial use; what they learned from has terms of its own."""
    return model.licence in COMMERCIAL


def list_models(names: Sequence[str] = (), *, commercial_ok: bool = False) -> list[Model]:
    """Return the models of these names, or all."""
    known: dict[str, Model] = {**packaged(), **foreign()}
    for name in names:
        if name not in known:
            raise UnknownNameError.of("model", name, known)
    chosen = [known[name] for name in names] if names else list(known.values())
    return [model for model in chosen if may_be_sold(model) or not commercial_ok]


def to_json(model: Model) -> dict[str, Any]:
    """Return plain values for ``--json``."""
    return {**asdict(model), "packaged": isinstance(model, Entry), "commercial": may_be_sold(model)}


def describe(model: Model) -> Iterator[str]:
    """Yield a model's account, line by line."""
    use = "" if may_be_sold(model) else ", not for commercial use"
    if isinstance(model, Entry):
        size = model.path.stat().st_size / 1e6
        yield f"{model.name}  {model.parameters / 1e6:.1f} M parameters, {size:.1f} MB, licence {model.licence}{use}"
        yield f"  trained on  {model.trained_on}"
        yield f"  scores      {model.scores}"
        yield f"  sha256      {model.sha256}"
    else:
        yield f"{model.name}  on the hub, licence {model.licence}{use}"
        yield f"  trained on  {model.trained_on}"
        yield f"  used by     {model.used_by}"
