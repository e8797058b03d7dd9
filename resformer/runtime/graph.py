"""The network as an ONNX graph, as a checkpoint carries it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class NetworkGraph:
    """An ONNX file in memory and what it was made from.

    Attributes:
        content: the bytes of the file, weights included.
        source: fingerprint of what it was exported from, of :func:`fingerprint`.
    """

    content: bytes
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Return a tensor and a text, fit for a checkpoint."""
        return {
            "content": torch.frombuffer(bytearray(self.content), dtype=torch.uint8),
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkGraph:
        """Rebuild a graph from :meth:`to_dict`.

        Raises:
            ValueError: if a part is missing or of a wrong kind.
        """
        content, source = values.get("content"), values.get("source")
        if not (isinstance(content, Tensor) and content.dtype == torch.uint8):
            raise ValueError("the graph holds no bytes")
        if not isinstance(source, str):
            raise ValueError("the graph does not say what it was made from")
        return cls(content.numpy().tobytes(), source)


def fingerprint(input_spec: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the numbers in a graph: those of the preprocessing and the weights."""
    digest = hashlib.sha256(json.dumps(input_spec, sort_keys=True).encode())
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
