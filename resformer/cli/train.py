"""``python -m resformer train``: from a folder of films to a checkpoint."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resformer.cli.options import (
    Commands,
    add_command,
    add_flag,
    add_path,
    add_shared,
    check_out,
)
from resformer.training import MANIFEST_NAME, MODEL_NAME
from resformer.training.config import (
    LENGTH,
    OURS,
    RECIPES,
    RECOMMENDED,
    TrainingConfig,
    change_recipe,
)

if TYPE_CHECKING:
    from resformer.data.find import DataRoot
    from resformer.data.manifest import Manifest
    from resformer.training.distributed import ProcessGroup

logger = logging.getLogger(__name__)


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "train",
        run,
        "train a network on folders of images",
        "Split a data set, keeping near-duplicates and the films of one patient together; train on "
        "it; choose the best epoch on the validation split; evaluate once on the test split; and "
        "write a checkpoint that `python app.py` serves. With --data alone, everything is done as "
        "we recommend. Under torchrun several processes train together.",
    )
    parser.usage = "python -m resformer train --data DIR [--data DIR ...] [option ...]"
    parser.epilog = (
        f"The recipe sets every option from '{LENGTH}' on; an option that you give overrides it. "
        "The defaults shown are those of the recommended recipe."
    )
    layout = (
        "folder or .zip: <Class>/images/* (optionally with lung masks in <Class>/masks/*.png and "
        "infection masks in '<Class>/infection masks/*.png') or <Class>/*; may be given more than "
        "once: all are read as one data set, and each may hold only some of the classes"
    )
    add_path(parser, "--data", layout, required=True, action="append", metavar="DIR")
    parser.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        default="recommended",
        help="recommended; quick: takes minutes on a CPU, to see that the data is read rightly, "
        "not for use; bare: without lungs, and without anything that keeps a network from learning "
        "the hospitals (default: %(default)s)",
    )
    kept = "folder for the split, the state to resume from, the history, the report and the plots "
    add_path(parser, "--run-dir", f"{kept}(default: %(default)s)", default=Path("runs/latest"))
    add_path(parser, "--out", f"checkpoint to write (default: {MODEL_NAME} in --run-dir)")
    add_shared(parser, "overwrite")
    add_flag(parser, "--resume", "continue the training that was stopped in --run-dir")
    _add_other_files(
        parser.add_argument_group("what to start from, and what else to read and write")
    )
    _add_config_options(parser)


def _add_other_files(group: argparse._ArgumentGroup) -> None:
    add_path(group, "--manifest", "CSV of an earlier split, to use it again")
    earlier = "CSV of an earlier split, whose test films stay test films so that figures compare"
    add_path(group, "--earlier", earlier, metavar="MANIFEST")
    group.add_argument(
        "--duplicate-threshold",
        type=float,
        metavar="CORRELATION",
        help="images whose correlation is higher are near-duplicates and stay in one split; above "
        "1 only identical files are (default: what suits chest films)",
    )
    initial = (
        "checkpoint whose weights are trained further, for instance on films of your own, or the "
        "last.pt in the --run-dir of a training that was stopped; give the --manifest that it was "
        "trained with, or its test films are no longer unseen"
    )
    add_path(group, "--initial", initial, metavar="CHECKPOINT")
    lung_model = (
        "checkpoint that outlines the lungs if no film has a mask (default: the shipped one)"
    )
    add_path(group, "--lung-model", lung_model, metavar="CHECKPOINT")
    add_shared(group, "outliers")
    trial = "only compare ways of training: leave out the test split, the gate and the abstention"
    add_flag(group, "--trial", trial)
    board = "also write the figures of each epoch for TensorBoard, into --run-dir"
    add_flag(group, "--tensorboard", board)


def _add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--field-name`` for every field of the configuration, in its group."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in fields(TrainingConfig):
        title = option.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        default = getattr(RECOMMENDED, option.name)
        how: dict[str, Any] = {"type": type(default), "metavar": type(default).__name__.upper()}
        if isinstance(default, bool):
            how = {"action": argparse.BooleanOptionalAction}
        elif option.metadata["choices"]:
            how = {"choices": option.metadata["choices"]}
        groups[title].add_argument(
            "--" + option.name.replace("_", "-"),
            default=None,
            help=f"{option.metadata['help']} (default: {default})",
            **how,
        )


def read_config(options: argparse.Namespace) -> TrainingConfig:
    """Return the recipe that was chosen, with what was given in place of its own.

    Raises:
        ValueError: if a value is impossible.
    """
    given = {option.name: getattr(options, option.name) for option in fields(TrainingConfig)}
    changes = {name: value for name, value in given.items() if value is not None}
    return change_recipe(RECIPES[options.recipe], changes)


def run(options: argparse.Namespace) -> int:
    """Train. Return the exit status."""
    from resformer.training.state import STATE_NAME

    try:
        return _run(options)
    except KeyboardInterrupt:
        if (options.run_dir / STATE_NAME).is_file():
            logger.warning("the same command with --resume goes on after the last whole epoch")
        raise


def _run(options: argparse.Namespace) -> int:
    from resformer.data.unpack import open_data_roots
    from resformer.devices import choose_device
    from resformer.training.distributed import join_processes
    from resformer.training.state import check_run_folder, lock_run_folder

    config = read_config(options)
    out = options.out or options.run_dir / MODEL_NAME
    group = join_processes(choose_device(config.device))
    with (
        open_data_roots(options.data) as root,
        lock_run_folder(options.run_dir, is_main=group.is_main),
    ):
        check_run_folder(options.run_dir, resume=options.resume)
        if group.is_main and config.network == OURS:
            check_out(out, overwrite=options.overwrite)
        manifest = group.from_main(_find_split(root, config, options) if group.is_main else None)
        if config.network == OURS:
            _train(root, manifest, config, options, out, group)
        else:
            _train_baseline(root, manifest, config, options, group)
    return 0


def _train(
    root: DataRoot,
    manifest: Manifest,
    config: TrainingConfig,
    options: argparse.Namespace,
    out: Path,
    group: ProcessGroup,
) -> None:
    from resformer.training.finish import write_results
    from resformer.training.state import read_initial
    from resformer.training.train import train

    checkpoint = train(
        root,
        manifest,
        config,
        options.run_dir,
        initial=read_initial(options.initial) if options.initial else None,
        lung_model=options.lung_model,
        outliers=options.outliers,
        resume=options.resume,
        trial=options.trial,
        tensorboard=options.tensorboard,
    )
    if group.is_main:
        write_results(checkpoint, options.run_dir, out, trial=options.trial)


def _train_baseline(
    root: DataRoot,
    manifest: Manifest,
    config: TrainingConfig,
    options: argparse.Namespace,
    group: ProcessGroup,
) -> None:
    from resformer.training.baselines import train_baseline, write_baseline

    if options.initial or options.lung_model or options.outliers:
        raise ValueError(
            f"{config.network} starts from random weights, has no lung head and no gate: leave out "
            "--initial, --lung-model and --outliers"
        )
    if group.is_main:
        logger.info(
            "%s is a baseline: it is reported, and no checkpoint is written", config.network
        )
    found = train_baseline(
        root,
        manifest,
        config,
        options.run_dir,
        resume=options.resume,
        trial=options.trial,
        tensorboard=options.tensorboard,
    )
    if group.is_main:
        write_baseline(found, options.run_dir)


def _find_split(root: DataRoot, config: TrainingConfig, options: argparse.Namespace) -> Manifest:
    """Read the split that was given, or the run's own when resuming, or make one and keep it."""
    from resformer.data.manifest import build_manifest, read_manifest, write_manifest

    kept = options.run_dir / MANIFEST_NAME
    given = options.manifest or (kept if options.resume else None)
    if given is not None:
        manifest = read_manifest(given, root)
    else:
        given_threshold = options.duplicate_threshold
        threshold = {} if given_threshold is None else {"duplicate_threshold": given_threshold}
        earlier = read_manifest(options.earlier) if options.earlier else None
        manifest = build_manifest(
            root,
            earlier=earlier,
            seed=config.seed,
            healthy_class=config.healthy_class,
            progress=True,
            **threshold,
        )
    if not (options.resume and kept.is_file()):  # which a wrong one must not take the place of
        write_manifest(manifest, kept)
    logger.info("%s", _describe_films(root, manifest))
    return manifest


def _describe_films(root: DataRoot, manifest: Manifest) -> str:
    """Say what was found of each class, so that the user sees whether the data is read rightly."""
    from resformer.data.labels import FilmLabel, read_labels
    from resformer.data.masks import INFECTION_FOLDER, LUNGS_FOLDER, mask_of
    from resformer.data.split import SPLITS

    rows = manifest.rows
    labels = read_labels(root, [row.path for row in rows])
    counts: Counter[tuple[str, str]] = Counter()
    patients: Counter[tuple[str, str]] = Counter()
    for row in rows:
        film, label = root / row.path, labels.get(row.path, FilmLabel())
        found = {
            row.split: True,
            "lung masks": mask_of(film, LUNGS_FOLDER),
            "infection masks": mask_of(film, INFECTION_FOLDER),
            "boxes": label.boxes,
        }
        counts.update((row.class_name, column) for column, there in found.items() if there)
        if label.patient:
            patients[row.source, label.patient] += 1
    names = manifest.class_names
    width = max(map(len, (*names, "all")))
    lines = [text.ljust(width) for text in ("", *names, "all")]
    for column in (*SPLITS, "lung masks", "infection masks", "boxes"):
        numbers = [counts[name, column] for name in names]
        cells = [column, *map(str, numbers), str(sum(numbers))]
        width = max(map(len, cells))
        lines = [f"{line}  {cell:>{width}}" for line, cell in zip(lines, cells, strict=True)]
    sources = Counter(row.source or "unknown" for row in rows).most_common()
    lines.append("sources: " + ", ".join(f"{source} {films}" for source, films in sources))
    named = f"{len(patients)} named, on {patients.total()} of {len(rows)} films"
    lines.append(f"patients: {named if patients else 'none named'}")
    return "\n".join(["films of each class:", *lines])
