"""Weights: where they lie, whether they are what they say, and into the network with them.

Only safetensors: a pickle can run anything. Every tensor must be there, fit, and be used.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from clareo import hub
from clareo.errors import CheckpointError, UnknownNameError
from clareo.toml import read_packaged_toml

Network = TypeVar("Network", bound=nn.Module)
Loaded = TypeVar("Loaded")
SAFE = ".safetensors"
BUNDLE = "bundle.json"  # the account of a bundle, see `clareo.bundle`
PICKLES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pkl"})


@dataclass(frozen=True)
class Entry:
    """A packaged checkpoint, as `weights/manifest.toml` lists it."""

    name: str
    file: str
    sha256: str
    system: str
    preset: str
    parameters: int
    licence: str
    trained_on: str
    scores: str

    @property
    def path(self) -> Path:
        """Return where the file lies in the installed package."""
        return Path(str(resources.files("clareo") / "weights" / self.file))


@dataclass(frozen=True)
class Checkpoint:
    """Tensors, what the file says about itself, and its hash."""

    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]
    sha256: str
    path: Path

    def settings(self) -> dict[str, Any]:
        """Return the settings that the network was built with."""
        try:
            plain: dict[str, Any] = json.loads(self.metadata["settings"])
        except (KeyError, json.JSONDecodeError) as error:
            msg = f"{self.path}: has no settings in its metadata; not a clareo checkpoint"
            raise CheckpointError(msg) from error
        return plain


def packaged() -> dict[str, Entry]:
    """Return the packaged checkpoints by name."""
    return {name: Entry(name=name, **plain) for name, plain in read_packaged_toml("weights", "manifest.toml").items()}


def load_packaged(name: str) -> Checkpoint:
    """Load a packaged checkpoint, and see to it that it is the one that was shipped."""
    entry = entry_of(name)
    return load_checkpoint(entry.path, entry.sha256)


def load_embedded(name: str, system: str) -> Checkpoint:
    """Load the packaged checkpoint of a system, or say that there is none yet."""
    if name not in packaged():
        msg = f"no embedded model of {system} is shipped yet; give the folder of a training run, or use --system unires"
        raise CheckpointError(msg)
    return load_packaged(name)


def entry_of(name: str) -> Entry:
    """Return one packaged checkpoint's entry."""
    entries = packaged()
    if name not in entries:
        raise UnknownNameError.of("model", name, entries)
    return entries[name]


def load_checkpoint(path: Path, sha256: str | None = None) -> Checkpoint:
    """Read a safetensors file; check its hash where one is known."""
    if path.suffix.lower() in PICKLES:
        cure = f"python -m clareo.convert {shlex.quote(str(path))} -o {shlex.quote(str(path.with_suffix(SAFE)))}"
        msg = f"{path}: pickled weights can run any code and are refused; convert them: {cure}"
        raise CheckpointError(msg)
    try:
        found = file_hash(path)
        if sha256 is not None and found != sha256:
            msg = f"{path}: is not the file that was shipped (sha256 {found[:16]}..., expected {sha256[:16]}...)"
            raise CheckpointError(msg)
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            return Checkpoint(tensors, file.metadata() or {}, found, path)
    except FileNotFoundError as error:
        msg = f"{path}: no such checkpoint"
        raise CheckpointError(msg) from error
    except (OSError, SafetensorError) as error:
        msg = f"{path}: not a readable safetensors file ({error})"
        raise CheckpointError(msg) from error


def load_run(place: Path, system: str = "") -> Checkpoint:
    """Read what a training of a system left behind: its folder, or the safetensors file itself."""
    checkpoint = load_checkpoint(place / "weights.safetensors" if place.is_dir() else place)
    trained = checkpoint.metadata.get("system", system)
    if system and trained != system:
        msg = f"{checkpoint.path}: holds a network of {trained!r}, not of {system!r}"
        raise CheckpointError(msg)
    return checkpoint


def load_preset(
    system: str,
    preset: str,
    trained: Callable[[Checkpoint], Loaded],
    base: Callable[[Path], Loaded],
    network: str = "unet",
) -> Loaded:
    """Load a system: the embedded model, a training run, or a folder in diffusers' layout to start from (``base``).

    Such a folder is known by what its ``network`` lies in.
    """
    if preset == "nano":
        return trained(load_embedded(f"{system}-nano", system))
    if preset == "paper":
        recipe = f"recipes/{system}-paper.toml"
        msg = f"the paper's weights were never published; train with {recipe} and give the run's folder"
        raise CheckpointError(msg)
    place = _inside(find(preset), system)
    return base(place) if (place / network).exists() else trained(load_run(place, system))


def system_of(place: Path) -> str:
    """Return which system a training run holds a network of; nothing where it does not say."""
    path = place / "weights.safetensors" if place.is_dir() else place
    return load_checkpoint(path).metadata.get("system", "") if path.is_file() else ""


def _inside(place: Path, system: str) -> Path:
    """Return the one model of a bundle that is of this system; anything else is returned as it is."""
    if not (place / BUNDLE).is_file():
        return place
    try:
        models: dict[str, Any] = json.loads((place / BUNDLE).read_text(encoding="utf-8"))["models"]
        fit = [folder for folder, model in models.items() if model["system"] == system]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{place / BUNDLE}: cannot be read"
        raise CheckpointError(msg) from error
    if len(fit) != 1:
        msg = f"{place}: a bundle with {len(fit)} models of {system}; name one of {', '.join(sorted(models))}"
        raise CheckpointError(msg)
    return place / fit[0]


def file_hash(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return stream_hash(file)


def stream_hash(file: IO[bytes]) -> str:
    """Return the sha256 of what is left of an open file, read piece by piece."""
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def check_same(name: str, trained_with: str, here: str) -> None:
    """Refuse a part that is not the file that was leaned on while training; "" is not known yet."""
    if trained_with not in ("", here):
        msg = f"trained on another {name} (sha256 {trained_with[:16]}..., here {here[:16]}...)"
        raise CheckpointError(msg)


def fill(
    network: nn.Module, checkpoint: Checkpoint, *, names: Mapping[str, str] | None = None, as_stored: bool = False
) -> None:
    """Copy a checkpoint into a network; name every tensor that is missing, unknown or of another shape.

    ``names`` says what the checkpoint calls a tensor of ours, where that is something else. ``as_stored`` takes its
    tensors over, in their own precision, instead of copying them: a network on the meta device takes no memory before.
    """
    state = network.state_dict()
    known = {(names or {}).get(name, name): name for name in state}
    ours = {called: tuple(state[name].shape) for called, name in known.items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    shared = ours.keys() & theirs.keys()
    wrong = {
        "missing": sorted(ours.keys() - theirs.keys()),
        "unknown": sorted(theirs.keys() - ours.keys()),
        "of another shape": [f"{n} {theirs[n]} not {ours[n]}" for n in sorted(shared) if ours[n] != theirs[n]],
    }
    if any(wrong.values()):
        told = "; ".join(f"{what}: {', '.join(which)}" for what, which in wrong.items() if which)
        msg = f"{checkpoint.path}: does not fit the network ({told})"
        raise CheckpointError(msg)
    found = {known[name]: tensor for name, tensor in checkpoint.tensors.items()}
    if as_stored:
        network.load_state_dict(found, assign=True)
    else:
        network.load_state_dict({name: tensor.float() for name, tensor in found.items()})


def ready(network: Network) -> Network:
    """Make a network, once it is filled, one that is used and not trained."""
    return network.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)


def find(name: str) -> Path:
    """Return a local file or folder, or the local copy of a hub repository (downloaded when it is not there yet)."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        msg = f"{name}: no such file or folder, and no hub name (owner/repository) either"
        raise CheckpointError(msg)
    return hub.fetch(name, file_hash)
