"""Published networks from a folder in transformers' layout: safetensors only, and nothing missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from clareo.backbones.pretrained import ClipVision
from clareo.checkpoints import find
from clareo.errors import CheckpointError, MissingExtraError


def transformers() -> Any:  # noqa: ANN401 - an untyped library
    """Import transformers when a published network first needs it."""
    try:
        import transformers as library  # noqa: PLC0415
    except ImportError as error:
        package = "transformers"
        raise MissingExtraError.of(package, "paper") from error
    return library


def load_network(kind: Any, folder: Path, **options: Any) -> Any:  # noqa: ANN401
    """Load a network of one of transformers' classes, for use; a tensor that is missing is never made up."""
    if not (folder / "config.json").is_file():
        msg = f"{folder}: no config.json, so not a folder of {kind.__name__}"
        raise CheckpointError(msg)
    try:
        network, told = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        msg = f"{folder}: cannot be loaded as {kind.__name__} ({error})"
        raise CheckpointError(msg) from error
    if told["missing_keys"]:
        msg = f"{folder}: does not fit {kind.__name__} (missing: {', '.join(sorted(told['missing_keys']))})"
        raise CheckpointError(msg)
    return network.eval().requires_grad_(requires_grad=False)


def load_clip_vision(name: str) -> ClipVision:
    """Load the vision tower of a CLIP from a folder or the hub."""
    return ClipVision(load_network(transformers().CLIPVisionModel, find(name)).float())
