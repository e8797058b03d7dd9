"""The checkpoint: one file with the weights and everything that is needed to use them rightly.

Class names in the order of the logits, input size, normalisation and calibration travel with the
weights, so that an application cannot disagree with the training; so do the gate, the abstention
and the network's ONNX graph, where there are any.

A checkpoint from a stranger must neither run code nor hang, crash or mislead a server. It is read
with ``weights_only=True``; :func:`load_checkpoint` checks every value before it is used; and the
SHA-256 of the whole content, which the file carries, tells a damaged file. Whether the graph
computes what the weights do is tried by :func:`resformer.backends.choose_backend`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resformer import __version__
from resformer.abstention import Abstention, AbstentionError
from resformer.checks import require_between
from resformer.gate import Gate, GateError
from resformer.model import IdentityMappingResFormer, ResFormerConfig
from resformer.track_record import read_track_records
from resformer.transforms import InputSpec

FORMAT = "resformer-checkpoint-2"
_FORMER_FORMATS = ("resformer-checkpoint-1",)
# Where the file keeps the SHA-256 of all else that it holds; a file without it is taken as it is.
DIGEST = "sha256"
_RECORDED_PACKAGES = ("torch", "numpy", "pillow", "albumentations")
# A softmax of logits divided by less gives no numbers; fitted temperatures are near 1.
_TEMPERATURES = (1e-3, 1e3)
_LONGEST_NAME = 200
# Far beyond any training's history: lists that hold each other would never end.
_MOST_VALUES, _DEEPEST = 500_000, 64


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or contradicts itself; the message says what."""


def library_versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of the libraries that shape a result."""
    versions = {"python": platform.python_version(), "resformer": __version__}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def fingerprint(input_spec: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a network's numbers: those of the preprocessing and the weights."""
    digest = hashlib.sha256(json.dumps(input_spec, sort_keys=True).encode())
    for name in sorted(state_dict):
        tensor = state_dict[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    """Return the numbers of a tensor as they are in memory; NumPy lacks some types, as bfloat16."""
    return tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()


@dataclass(frozen=True)
class NetworkGraph:
    """The network as an ONNX file in memory, and what it was made from.

    Attributes:
        content: the bytes of the file, weights included.
        source: fingerprint of what it was exported from, :attr:`Checkpoint.graph_source`.
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


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what is needed to use it.

    Attributes:
        model_config: description of the network.
        class_names: names in the order of the logits.
        input_spec: input size and normalisation.
        state_dict: the weights.
        temperature: what logits are divided by before the softmax (Guo et al., ICML 2017).
        metrics: evaluation reports by split, ``{"validation": {...}, "test": {...}}``; under
            ``track_record`` what :mod:`resformer.track_record` counts.
        training: configuration, split seed and history of the training.
        versions: versions of Python and of the packages that wrote it.
        gate: refuses what is no chest X-ray; without one nothing is refused.
        graph: the same for ONNX Runtime; without one, or with one of another checkpoint, PyTorch
            runs the network.
        abstention: says which films the model has seen too few of; without one it says of none.

    Raises:
        CheckpointError: if a part is of a wrong kind, or the parts contradict each other.
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
        network = self.model_config
        if len(self.class_names) != network.num_classes:
            raise CheckpointError(
                f"{len(self.class_names)} class names for {network.num_classes} logits: "
                "the checkpoint contradicts itself"
            )
        if len(set(self.class_names)) != len(self.class_names) or not all(
            isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST_NAME
            for name in self.class_names
        ):
            raise CheckpointError(
                f"class names must be distinct words, got {self.class_names!s:.200}"
            )
        try:
            require_between("temperature", self.temperature, *_TEMPERATURES)
            if self.gate:
                self.gate.check_fits(network.in_chans, network.channels)
            if self.abstention:
                self.abstention.check_fits(network.num_classes, network.pooled_width)
        except (ValueError, GateError, AbstentionError) as error:
            raise CheckpointError(str(error)) from error

    @property
    def source(self) -> str:
        """Fingerprint of the network: its preprocessing and its weights."""
        return fingerprint(self.input_spec.to_dict(), self.state_dict)

    @property
    def graph_source(self) -> str:
        """Fingerprint of all that a graph is made from."""
        parts = {
            "network": self.source,
            "class_names": self.class_names,
            "temperature": self.temperature,
            "gate": self.gate.to_dict() if self.gate else None,
            "abstention": self.abstention.to_dict() if self.abstention else None,
        }
        return content_digest(parts)

    @property
    def thresholds(self) -> dict[str, float | None]:
        """What outputs of the network are compared with; None where there is nothing to compare."""
        gate, abstention = self.gate, self.abstention
        return {
            "gate": gate.threshold if gate else None,
            "confidence": abstention.least_confidence if abstention else None,
            "distance": abstention.greatest_distance if abstention else None,
        }

    def count_parameters(self) -> int:
        """Return how many numbers the network has learned."""
        return sum(weight.numel() for weight in self._plan_model().parameters())

    def build_model(self) -> IdentityMappingResFormer:
        """Build the network with the weights loaded, in evaluation mode.

        Raises:
            CheckpointError: if the weights do not fit the configuration or are not finite.
        """
        model = self._plan_model()
        planned = model.state_dict()
        weights = {
            name: weight.to("cpu", planned[name].dtype, copy=True)
            for name, weight in self.state_dict.items()
        }
        model.load_state_dict(weights, assign=True)
        return model.eval()

    def _plan_model(self) -> IdentityMappingResFormer:
        """Return the network without numbers, after a look whether the weights fit it."""
        # On the meta device a network has shapes but no numbers, however large it says it is.
        with torch.device("meta"):
            model = IdentityMappingResFormer(self.model_config)
        expected, found = model.state_dict(), self.state_dict
        for name in sorted(expected.keys() ^ found.keys()):
            fault = "is missing" if name in expected else "is too many"
            raise CheckpointError(
                f"the weights do not fit the network's configuration: {name} {fault}"
            )
        for name, weight in found.items():
            wanted = expected[name]
            if weight.shape != wanted.shape or (
                weight.is_floating_point() != wanted.is_floating_point()
            ):
                raise CheckpointError(
                    f"the weights do not fit the network's configuration: {name} is "
                    f"{weight.dtype} {tuple(weight.shape)}, not {wanted.dtype} "
                    f"{tuple(wanted.shape)}"
                )
        broken = [name for name, w in found.items() if not torch.isfinite(w).all()]
        if broken:
            raise CheckpointError(f"weights that are not finite numbers: {', '.join(broken[:3])}")
        return model


# What a checkpoint may be without, such as that of a training which was a trial.
_PARTS: dict[str, type[Gate | NetworkGraph | Abstention]] = {
    "gate": Gate,
    "graph": NetworkGraph,
    "abstention": Abstention,
}


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically: the file is whole or it is the former one."""
    content = {
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
    }
    save_atomically({**content, DIGEST: content_digest(content)}, path)


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """Write ``content`` with ``torch.save`` beside ``path`` and move it into place.

    Raises:
        OSError: if it cannot be written, as on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except RuntimeError as error:  # what torch.save makes of a full disk
        raise OSError(f"{path} cannot be written: {error.__context__ or error}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def content_digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all that a checkpoint holds, tensors, numbers and texts alike."""
    digest = hashlib.sha256()
    for place, value in _walk(content, "", 0):
        digest.update(f"{place!r} ".encode())
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            digest.update(_bytes_of(value))
        else:
            digest.update(f"{value!r} ".encode(errors="backslashreplace"))
    return digest.hexdigest()


def _walk(value: Any, place: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield each single value with its place, such as ``metrics/test/count``, keys in order."""
    if depth > _DEEPEST:
        raise CheckpointError(f"it is nested too deeply: {place:.80}")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise CheckpointError(f"{place or 'it'} has a key that is not text: {key!r:.80}")
        yield place, len(value)
        for key in sorted(value):
            yield from _walk(value[key], f"{place}/{key}" if place else key, depth + 1)
    elif isinstance(value, list | tuple):
        yield place, len(value)
        for item in value:
            yield from _walk(item, place, depth + 1)
    else:
        yield place, value


def read_content(path: Path) -> dict[str, Any]:
    """Read what :func:`save_atomically` wrote, tensors on the CPU, without running any code.

    Raises:
        CheckpointError: if the file is missing or is no file of that kind.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: train one or name another file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch documents no closed set of errors for damaged files
        raise CheckpointError(f"{path} is damaged or is not a checkpoint of resformer") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint of resformer: it holds no dictionary")
    return content


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check all of it.

    Raises:
        CheckpointError: if the file is missing, damaged, incomplete or contradicts itself, in one
            line for whoever starts the program.
    """
    content = read_content(path)
    found = content.get("format")
    if found in _FORMER_FORMATS:
        raise CheckpointError(
            f"{path} holds the network of an earlier version, which this one cannot run: serve it "
            "with that version, or train it again"
        )
    if found != FORMAT:
        raise CheckpointError(f"{path} is not a {FORMAT} file (format {found!r:.80})")
    needed = [f.name for f in fields(Checkpoint) if f.name not in content and f.name not in _PARTS]
    if needed:
        raise CheckpointError(f"{path} lacks {', '.join(needed)}: train it again")
    try:
        _check_values(content)
        checkpoint = _assemble(content)
        checkpoint._plan_model()
        _check_digest(content)
    except (TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        message = " ".join(str(error).split())
        raise CheckpointError(f"{path} cannot be used: {message:.500}") from error
    return checkpoint


def _check_values(content: dict[str, Any]) -> None:
    """Refuse what no checkpoint holds, before anything is made of it."""
    for name in ("model_config", "input_spec", "state_dict", "metrics", "training", "versions"):
        if not isinstance(content[name], dict):
            raise CheckpointError(f"its {name} is not a dictionary")
    for number, (place, value) in enumerate(_walk(content, "", 0)):
        if number > _MOST_VALUES:
            raise CheckpointError("it holds more values than any checkpoint: do not trust it")
        if isinstance(value, Tensor):
            _check_tensor(place, value)
        elif not isinstance(value, str | int | float | None):
            raise CheckpointError(f"{place} is a {type(value).__name__}, which it may not hold")
    read_track_records(content["metrics"])
    for name, report in content["metrics"].items():
        _check_report(f"metrics/{name}", report)
    _check_training("training", content["training"])
    for name, weight in content["state_dict"].items():
        if not isinstance(weight, Tensor):
            raise CheckpointError(f"its weight {name} is not a tensor")
    for name, number in content["versions"].items():
        if not isinstance(number, str):
            raise CheckpointError(f"its version of {name} is not text")


def _check_report(place: str, report: Any) -> None:
    """Refuse a report that the pages which show it could not read."""
    if not isinstance(report, dict):
        raise CheckpointError(f"its report {place} is not a dictionary")
    matrix = report.get("confusion_matrix", [])
    if not isinstance(matrix, list) or not all(
        isinstance(row, list) and len(row) == len(matrix) and all(isinstance(n, int) for n in row)
        for row in matrix
    ):
        raise CheckpointError(f"its {place}/confusion_matrix is not a square of whole numbers")
    if not isinstance(report.get("per_class", {}), dict):
        raise CheckpointError(f"its {place}/per_class is not a dictionary")


def _check_training(place: str, training: Any) -> None:
    """Refuse a history of trainings, this one and those that it started from, likewise."""
    if not isinstance(training, dict) or not isinstance(training.get("config", {}), dict):
        raise CheckpointError(f"its {place} or its configuration is not a dictionary")
    history = training.get("history", [])
    if not isinstance(history, list) or not all(isinstance(epoch, dict) for epoch in history):
        raise CheckpointError(f"its {place}/history is not a list of epochs")
    if initial := training.get("initial"):
        _check_training(f"{place}/initial", initial)


def _check_tensor(place: str, tensor: Tensor) -> None:
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.is_complex():
        raise CheckpointError(f"{place} is not a plain tensor")
    # A stride of 0 lets a few bytes stand for a tensor that fits no memory.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{place} says that it is larger than what the file holds of it")


def _assemble(content: dict[str, Any]) -> Checkpoint:
    names = content["class_names"]
    if not isinstance(names, list | tuple):
        raise CheckpointError("its class_names is not a list")
    parts: dict[str, Any] = {
        name: kind.from_dict(content[name]) for name, kind in _PARTS.items() if content.get(name)
    }
    return Checkpoint(
        model_config=ResFormerConfig.from_dict(content["model_config"]),
        class_names=tuple(names),
        input_spec=InputSpec.from_dict(content["input_spec"]),
        state_dict=content["state_dict"],
        temperature=content["temperature"],
        metrics=content["metrics"],
        training=content["training"],
        versions=content["versions"],
        **parts,
    )


def _check_digest(content: dict[str, Any]) -> None:
    rest = {name: value for name, value in content.items() if name != DIGEST}
    if DIGEST in content and content[DIGEST] != content_digest(rest):
        raise CheckpointError(
            "its content is not what was written (SHA-256), so the file is damaged: copy it anew"
        )
