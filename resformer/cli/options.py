"""Options that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_MODEL = "best_model.pth"


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``."""
    parser.add_argument(
        "--model",
        type=Path,
        default=Path(DEFAULT_MODEL),
        help="checkpoint (default: %(default)s)",
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


def add_outliers_option(parser: argparse._ActionsContainer) -> None:
    """Add ``--outliers``."""
    parser.add_argument(
        "--outliers",
        type=Path,
        metavar="DIR",
        help="folder of pictures that are no chest X-rays, a folder for each kind, which the gate "
        "shall refuse; others are drawn in any case",
    )
