"""Versions of what a checkpoint was made with.

The network as an ONNX graph, as a checkpoint carries it.

The checkpoint: one file with the weights and everything that is needed to use them rightly.

Class names in the order of the logits, input size, normalisation and calibration travel with the
weights, so that an application cannot disagree with the training. Read with ``weights_only=True``:
a checkpoint from a stranger cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resformer import __version__
from resformer.abstention import Abstention, AbstentionError
from resformer.gate.gate import Gate, GateError
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.transforms import InputSpec

_RECORDED_PACKAGES = ("torch", "numpy", "pillow", "albumentations")


def library_versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of the libraries that shape a result."""
    versions = {"python": platform.python_version(), "resformer": __version__}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


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


FORMAT = "resformer-checkpoint-1"
# What a checkpoint may be without, as one of a time before is.
_PARTS: dict[str, type[Gate | NetworkGraph | Abstention]] = {
    "gate": Gate,
    "graph": NetworkGraph,
    "abstention": Abstention,
}


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or contradicts itself; the message says what."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what is needed to use it.

    Attributes:
        model_config: description of the network.
        class_names: names in the order of the logits.
        input_spec: input size and normalisation.
        state_dict: the weights.
        temperature: what logits are divided by before the softmax (Guo et al., ICML 2017).
        metrics: evaluation reports by split, ``{"validation": {...}, "test": {...}}``.
        training: configuration, split seed and history of the training.
        versions: versions of Python and of the packages that wrote it.
        gate: refuses what is no chest X-ray; without one nothing is refused.
        graph: the same network for ONNX Runtime; without one PyTorch runs it.
        abstention: says which films the model has seen too few of; without one it says of none.

    Raises:
        CheckpointError: if the parts contradict each other.
    """

    model_config: ResFormerConfig
    class_names: tuple[str, ...]
    input_spec: InputSpec
    state_dict: dict[str, Tensor]
    temperature: float = 1.0
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=library_versions)
    gate: Gate | None = None
    graph: NetworkGraph | None = None
    abstention: Abstention | None = None

    def __post_init__(self) -> None:
        """Refuse parts that contradict each other."""
        if len(self.class_names) != self.model_config.num_classes:
            raise CheckpointError(
                f"{len(self.class_names)} class names for {self.model_config.num_classes} logits: "
                "the checkpoint contradicts itself"
            )
        if len(set(self.class_names)) != len(self.class_names) or not all(self.class_names):
            raise CheckpointError(f"class names must be distinct words, got {self.class_names}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise CheckpointError(f"temperature must be positive, got {self.temperature}")
        self._check_additions()
        if self.graph and self.graph.source != self.source:
            raise CheckpointError(
                "the graph was exported from other weights or another input than the checkpoint "
                "holds: leave it out and run python -m resformer export"
            )

    def _check_additions(self) -> None:
        network = self.model_config
        try:
            if self.gate:
                self.gate.check_fits(network.in_chans, network.channels)
            if self.abstention:
                self.abstention.check_fits(network.num_classes, network.pooled_width)
        except (GateError, AbstentionError) as error:
            raise CheckpointError(str(error)) from error

    @property
    def source(self) -> str:
        """Fingerprint of what a graph of the network is made from."""
        return fingerprint(self.input_spec.to_dict(), self.state_dict)

    def build_model(self) -> IdentityMappingResFormer:
        """Build the network with the weights loaded, in evaluation mode.

        Raises:
            CheckpointError: if the weights do not fit the configuration or are not finite.
        """
        model = IdentityMappingResFormer(self.model_config)
        try:
            model.load_state_dict(self.state_dict)
        except (RuntimeError, AttributeError, TypeError) as error:
            raise CheckpointError(
                f"the weights do not fit the network's configuration: {error}"
            ) from error
        broken = [name for name, w in self.state_dict.items() if not torch.isfinite(w).all()]
        if broken:
            raise CheckpointError(f"weights that are not finite numbers: {', '.join(broken[:3])}")
        return model.eval()


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically: the file is whole or it is the former one."""
    save_atomically(
        {
            "format": FORMAT,
            "model_config": checkpoint.model_config.to_dict(),
            "class_names": list(checkpoint.class_names),
            "input_spec": checkpoint.input_spec.to_dict(),
            "state_dict": checkpoint.state_dict,
            "temperature": checkpoint.temperature,
            "metrics": checkpoint.metrics,
            "training": checkpoint.training,
            "versions": checkpoint.versions,
            **{name: part.to_dict() for name in _PARTS if (part := getattr(checkpoint, name))},
        },
        path,
    )


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """Write ``content`` with ``torch.save`` beside ``path`` and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_content(path: Path) -> dict[str, Any]:
    """Read what :func:`save_atomically` wrote, tensors on the CPU, without running any code.

    Raises:
        CheckpointError: if the file is missing or is no file of that kind.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: train one or name another file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or is not a checkpoint of resformer") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint of resformer: it holds no dictionary")
    return content


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check a checkpoint.

    Raises:
        CheckpointError: if the file is missing, damaged, incomplete or contradicts itself.
    """
    content = read_content(path)
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no {FORMAT} file (format {content.get('format')!r}): "
            "train it again with this version"
        )
    needed = [n for n in Checkpoint.__dataclass_fields__ if n not in content and n not in _PARTS]
    if needed:
        raise CheckpointError(f"{path} lacks {', '.join(needed)}: train it again")
    try:
        parts: dict[str, Any] = {
            name: kind.from_dict(content[name])
            for name, kind in _PARTS.items()
            if content.get(name)
        }
        checkpoint = Checkpoint(
            model_config=ResFormerConfig.from_dict(content["model_config"]),
            class_names=tuple(content["class_names"]),
            input_spec=InputSpec.from_dict(content["input_spec"]),
            state_dict=content["state_dict"],
            temperature=float(content["temperature"]),
            metrics=content["metrics"],
            training=content["training"],
            versions=content["versions"],
            **parts,
        )
        checkpoint.build_model()
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    return checkpoint
