"""Options that are made from a frozen dataclass, so that each is written down once."""

from __future__ import annotations

import argparse
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

Config = TypeVar("Config")

DEFAULT_MODEL = "best_model.pth"


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``."""
    parser.add_argument(
        "--model",
        type=Path,
        default=Path(DEFAULT_MODEL),
        help="checkpoint (default: %(default)s)",
    )


def add_checkpoint_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--out``, the checkpoint to write."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(DEFAULT_MODEL),
        help="checkpoint to write (default: %(default)s)",
    )


def add_datasets_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``, the films that a network was trained on."""
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        action="append",
        help="folder or .zip of films, laid out as for train; may be given more than once",
    )


def add_trial_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--trial``."""
    parser.add_argument(
        "--trial",
        action="store_true",
        help="compare ways of training: leave the test split alone, fit no gate and no abstention",
    )


def add_split_option(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--split``."""
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default=default,
        help="which part of the manifest (default: %(default)s)",
    )


def add_report_option(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--out``, the folder of a report."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(default),
        help="folder of the report (default: %(default)s)",
    )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")


def add_runtime_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--backend``."""
    add_device_option(parser)
    parser.add_argument(
        "--backend",
        default="auto",
        help="what runs the network: torch, onnxruntime, or auto for the faster; the results are "
        "the same",
    )


def add_outliers_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--outliers``."""
    parser.add_argument(
        "--outliers",
        type=Path,
        metavar="DIR",
        help="folder of pictures that are no chest X-rays, a folder for each kind, which the gate "
        "shall refuse; others are drawn in any case",
    )


def add_config_options(parser: argparse.ArgumentParser, config: type[Any]) -> None:
    """Add ``--field-name`` for every field of a dataclass, with its default, type and help."""
    group = parser.add_argument_group(config.__name__)
    for field in fields(config):
        if isinstance(field.default, bool):
            group.add_argument(
                _flag(field),
                action=argparse.BooleanOptionalAction,
                default=field.default,
                help=f"{field.metadata['help']} (default: %(default)s)",
            )
            continue
        group.add_argument(
            _flag(field),
            type=type(field.default),
            default=field.default,
            metavar=type(field.default).__name__.upper(),
            help=f"{field.metadata['help']} (default: %(default)s)",
        )


def config_from_options(config: type[Config], options: argparse.Namespace) -> Config:
    """Build the dataclass from parsed options.

    Raises:
        ValueError: if the dataclass refuses a value.
    """
    names = [field.name for field in fields(config)]  # type: ignore[arg-type]
    return config(**{name: getattr(options, name) for name in names})


def _flag(field: Field[Any]) -> str:
    return "--" + field.name.replace("_", "-")
