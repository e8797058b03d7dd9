"""Load a model, open a data set, train and evaluate: what ``import resformer`` offers.

The command line does the same with more options; ``docs/api.md`` shows all of it at work. What only
a training needs is imported by it, for it can be left uninstalled (the extra ``train``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from resformer.checkpoint import Checkpoint
from resformer.data.duplicates import DUPLICATE_CORRELATION
from resformer.data.find import ClassSummary, DataRoot, ImageIndex, summarise_classes
from resformer.data.manifest import (
    Manifest,
    ManifestRow,
    build_manifest,
    read_manifest,
    write_manifest,
)
from resformer.data.unpack import open_data_roots
from resformer.evaluation.metrics import evaluate_predictions
from resformer.evaluation.predictions import Predictions, classify_films
from resformer.images import decode_image
from resformer.predict import Predictor
from resformer.training import MANIFEST_NAME, MODEL_NAME
from resformer.transforms import resize_pixels

if TYPE_CHECKING:
    from resformer.training.config import TrainingConfig
    from resformer.training.distributed import ProcessGroup
    from resformer.training.train import OnEpoch


FilePath = str | os.PathLike[str]


def load(path: FilePath, *, device: str = "auto", backend: str = "auto") -> Predictor:
    """Load a checkpoint, ready to classify films.

    Args:
        path: the checkpoint file.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        backend: ``auto``, ``torch`` or ``onnxruntime``; both give the same probabilities.

    Raises:
        CheckpointError: if the file is missing, damaged or contradicts itself.
        ValueError: if the device is not on this machine, or the backend cannot run.
    """
    return Predictor.from_file(path, device, backend)


@dataclass(frozen=True)
class DataSplit:
    """The films of one split: a sequence of ``(pixels, class name)``, decoded when asked for.

    Attributes:
        root: what the paths of the rows are relative to.
        rows: the films as the manifest names them.
    """

    root: DataRoot
    rows: tuple[ManifestRow, ...]

    def __len__(self) -> int:
        """Return the number of films."""
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], str]:
        """Return grey pixels ``(H, W)`` and class of a film.

        Raises:
            ImageError: if the file can no longer be read.
        """
        row = self.rows[index]
        return decode_image((self.root / row.path).read_bytes()), row.class_name

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], str]]:
        """Yield grey pixels and class of each film."""
        return (self[index] for index in range(len(self)))

    def resized(self, size: int) -> NDArray[np.uint8]:
        """Decode all films at one size, ``(N, size, size)``."""
        return np.stack([resize_pixels(pixels, size) for pixels, _ in self])


class Dataset:
    """Labelled films and their split into training, validation and test.

    Near-duplicates are in one split. An archive is extracted into a temporary folder, which is
    removed by :meth:`close`, at the end of a ``with`` block, or when the object goes.

    Attributes:
        manifest: every film with its class, group of near-duplicates, split and SHA-256.
        root: what the manifest's paths are relative to.
    """

    def __init__(self, root: DataRoot, manifest: Manifest, opened: ExitStack) -> None:
        self.root = root
        self.manifest = manifest
        self._opened = opened

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return self.manifest.class_names

    @property
    def train(self) -> DataSplit:
        """The films to train on."""
        return self._split("train")

    @property
    def validation(self) -> DataSplit:
        """The films that choose the epoch and the thresholds."""
        return self._split("validation")

    @property
    def test(self) -> DataSplit:
        """The films that choose nothing."""
        return self._split("test")

    def summarise(self) -> list[ClassSummary]:
        """Count the films of each class, and tell their smallest, usual and largest size."""
        items = tuple((row.path, row.class_name) for row in self.manifest.rows)
        return summarise_classes(ImageIndex(self.root, self.class_names, items))

    def _split(self, name: str) -> DataSplit:
        return DataSplit(self.root, self.manifest.subset(name))

    def close(self) -> None:
        """Remove what was extracted; the films can be read no longer."""
        self._opened.close()

    def __enter__(self) -> Dataset:
        """Return the data set."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Show classes and numbers of films."""
        counts = ", ".join(f"{len(self._split(s))} {s}" for s in ("train", "validation", "test"))
        return f"<Dataset of {', '.join(self.class_names)}: {counts}>"


def open_dataset(
    path: FilePath | Sequence[FilePath],
    *,
    manifest: FilePath | None = None,
    seed: int = 0,
    duplicate_threshold: float = DUPLICATE_CORRELATION,
    progress: bool = False,
) -> Dataset:
    """Find labelled films and split them; near-duplicates stay together.

    Args:
        path: a folder of class folders, ``<Class>/*`` or ``<Class>/images/*``, or a .zip of one;
            or several of them to be read as one.
        manifest: CSV of a split that was made before; without it the films are split anew, 80 % to
            train, 10 % to validate, 10 % to test.
        seed: of the split.
        duplicate_threshold: correlation of detail from which on films are near-duplicates, where
            the films are split anew.
        progress: whether to draw progress bars.

    Raises:
        DatasetError: if there is no usable data set, or the manifest does not fit it.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    with ExitStack() as opened:
        root = opened.enter_context(open_data_roots([Path(p) for p in paths]))
        rows = (
            build_manifest(
                root, seed=seed, duplicate_threshold=duplicate_threshold, progress=progress
            )
            if manifest is None
            else read_manifest(Path(manifest), root)
        )
        return Dataset(root, rows, opened.pop_all())


def train(
    data: Dataset,
    *,
    recipe: str | TrainingConfig = "recommended",
    run_dir: FilePath,
    initial: Checkpoint | None = None,
    lung_model: FilePath | None = None,
    outliers: FilePath | None = None,
    resume: bool | Literal["auto"] = False,
    trial: bool = False,
    tensorboard: bool = False,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    **changes: Any,
) -> Checkpoint:
    """Train a network, calibrate it, measure it on the test films, and fit gate and abstention.

    Args:
        data: as :func:`open_dataset` gives it.
        recipe: ``recommended``, ``quick`` (minutes, to see that all works), ``bare`` (no extras,
            to compare with), or a configuration of your own.
        run_dir: folder of this training, for its state, its split (``manifest.csv``), its report
            and plots, and the finished checkpoint (``model.pth``).
        initial: whose weights are trained further.
        lung_model: checkpoint that draws the lungs where no film has a mask; by default the
            shipped one.
        outliers: folder of pictures that the gate shall refuse, besides those that it draws.
        resume: whether to go on where the folder's training was stopped; ``auto``: if it holds one.
        trial: whether this only compares recipes: the test films are left alone, and neither gate
            nor abstention is fitted.
        tensorboard: whether to write the figures of each epoch for TensorBoard too.
        progress: whether to draw progress bars.
        on_epoch: is called after every epoch with the history so far, a list of figures.
        **changes: options of the recipe to change, such as ``epochs=20`` or ``device="cuda"``; see
            :class:`resformer.training.config.TrainingConfig`.

    Under ``torchrun`` the processes train together, and the first of them writes.

    Returns:
        the checkpoint, with an ONNX graph unless it is a trial or the network cannot be exported.

    Raises:
        FileExistsError: if the folder holds a training and ``resume`` is not given.
        ValueError: if there is no such recipe or option, or the data does not fit it.
    """
    from resformer.training.finish import write_results
    from resformer.training.train import train as run_training

    config = choose_recipe(recipe, **changes)
    group, folder, goes_on = _open_run(run_dir, data, config, resume)
    checkpoint = run_training(
        data.root,
        data.manifest,
        config,
        folder,
        initial=initial,
        lung_model=None if lung_model is None else Path(lung_model),
        outliers=None if outliers is None else Path(outliers),
        resume=goes_on,
        trial=trial,
        tensorboard=tensorboard,
        progress=progress,
        on_epoch=on_epoch,
    )
    if group.is_main:
        checkpoint = write_results(checkpoint, folder, folder / MODEL_NAME, trial=trial)
    return group.from_main(checkpoint)


def train_baseline(
    data: Dataset,
    network: str = "resnet18",
    *,
    recipe: str | TrainingConfig = "recommended",
    run_dir: FilePath,
    resume: bool | Literal["auto"] = False,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Train a network of torchvision in the same loop, to compare ours with; it is not served.

    ``network`` is ``resnet18``, ``mobilenet_v3_small`` or ``densenet121``; all else is as of
    :func:`train`. What of the recipe needs a lung head is left out. The report, its plots and
    what is returned (``baseline.json``) are written into the folder.

    Returns:
        ``metrics`` by split, as of :func:`evaluate`; ``config``, ``best_epoch``, ``history`` and
        the number of ``parameters``.

    Raises:
        FileExistsError: if the folder holds a training and ``resume`` is not given.
        ValueError: if there is no such recipe, option or network.
    """
    from resformer.training.baselines import train_baseline as run_baseline
    from resformer.training.baselines import write_baseline

    config = choose_recipe(recipe, network=network, **changes)
    group, folder, goes_on = _open_run(run_dir, data, config, resume)
    found = run_baseline(
        data.root,
        data.manifest,
        config,
        folder,
        resume=goes_on,
        progress=progress,
        on_epoch=on_epoch,
    )
    if group.is_main:
        write_baseline(found, folder)
    return found


def choose_recipe(recipe: str | TrainingConfig, **changes: Any) -> TrainingConfig:
    """Return the options of a recipe, with changes.

    Raises:
        ValueError: if there is no such recipe or option, or a value is impossible.
    """
    from resformer.training.config import RECIPES, change_recipe

    if isinstance(recipe, str) and recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}: choose one of {', '.join(RECIPES)}")
    config = RECIPES[recipe] if isinstance(recipe, str) else recipe
    return change_recipe(config, changes)


def estimate_seconds(data: Dataset, recipe: str | TrainingConfig, **changes: Any) -> float:
    """Estimate how long :func:`train` or :func:`train_baseline` will take, by a few batches.

    Args:
        data: whose films are counted.
        recipe: as of :func:`train`; name a baseline by ``network="resnet18"``.
        **changes: options of the recipe to change.

    Raises:
        ValueError: if there is no such recipe or option, or a value is impossible.
    """
    from resformer.training import timing

    return timing.estimate_seconds(data.manifest, choose_recipe(recipe, **changes))


def _open_run(
    run_dir: FilePath, data: Dataset, config: TrainingConfig, resume: bool | Literal["auto"]
) -> tuple[ProcessGroup, Path, bool]:
    """Join the processes that train, and write the split into the folder, unless one is resumed.

    Returns:
        this process's place among the others; the folder; whether its training goes on.
    """
    from resformer.devices import choose_device
    from resformer.training.distributed import join_processes
    from resformer.training.state import STATE_NAME, lock_run_folder

    folder, group = Path(run_dir), join_processes(choose_device(config.device))
    # One process decides and writes for all: another might look when a file is half written.
    begun = group.from_main((folder / STATE_NAME).is_file())
    if group.is_main and not (begun and (folder / MANIFEST_NAME).is_file()):
        with lock_run_folder(folder):
            write_manifest(data.manifest, folder / MANIFEST_NAME)
    group.wait()
    return group, folder, begun if resume == "auto" else resume


def classify(
    model: Predictor | Checkpoint | FilePath, films: DataSplit, *, progress: bool = False
) -> tuple[NDArray[np.int64], Predictions]:
    """Classify labelled films.

    Args:
        model: what :func:`load` or :func:`train` gave, or a checkpoint's path.
        films: such as ``data.test``; those that cannot be read are named in the log and left out.
        progress: whether to draw a progress bar.

    Returns:
        class indices of the labels, ``(N,)``, and the ``probabilities`` ``(N, K)``, refusals and
        abstentions of the model.

    Raises:
        ValueError: if the films are of classes that the model does not know, or none can be read.
    """
    items = [(row.path, row.class_name) for row in films.rows]
    return classify_films(_ready(model), films.root, items, progress=progress)


def evaluate(
    model: Predictor | Checkpoint | FilePath, films: DataSplit, *, progress: bool = False
) -> dict[str, Any]:
    """Measure a model on labelled films.

    Args:
        model: what :func:`load` or :func:`train` gave, or a checkpoint's path.
        films: such as ``data.test``; those that cannot be read are named in the log and left out.
        progress: whether to draw a progress bar.

    Returns:
        the report: accuracy, macro-averaged and per-class scores, each a dictionary of ``value``
        and of the ``low`` and ``high`` end of its 95 % interval; the confusion matrix.

    Raises:
        ValueError: if the films are of classes that the model does not know, or none can be read.
    """
    predictor = _ready(model)
    labels, found = classify(predictor, films, progress=progress)
    return evaluate_predictions(labels, found.probabilities, predictor.class_names)


def _ready(model: Predictor | Checkpoint | FilePath) -> Predictor:
    if isinstance(model, Predictor):
        return model
    return Predictor(model) if isinstance(model, Checkpoint) else load(model)
