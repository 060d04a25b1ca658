"""What a training leaves behind: fp16 safetensors that say what they are and where they come from."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn


def write_checkpoint(
    network: nn.Module | Mapping[str, torch.Tensor],
    path: Path,
    *,
    system: str,
    settings: Mapping[str, Any],
    recipe: str,
    data: str = "",
    scores: str = "",
) -> Path:
    """Write a network, or its tensors by name, with the settings that rebuild it, and where it comes from."""
    found = network.state_dict() if isinstance(network, nn.Module) else network
    tensors: dict[str, torch.Tensor] = {name: value.half().contiguous() for name, value in found.items()}
    metadata = {
        "system": system,
        "settings": json.dumps(settings),
        "recipe": recipe,
        "commit": commit(),
        "data": data,
        "scores": scores,
    }
    save_file(tensors, path, metadata)
    return path


def commit() -> str:
    """Return the commit of the code, where it runs from a checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
