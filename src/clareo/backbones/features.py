"""Hearing along: what layers say within a forward pass, for losses that ask. No signature changes for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def recorded(network: nn.Module, layers: Sequence[nn.Module]) -> Iterator[list[torch.Tensor]]:
    """Hear what ``layers`` of a network say within the context: a list that its last forward pass filled, in order."""
    heard: list[torch.Tensor] = []
    handles = [layer.register_forward_hook(lambda _module, _given, said: heard.append(said)) for layer in layers]
    handles.append(network.register_forward_pre_hook(lambda _module, _given: heard.clear()))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
