"""What the speed benchmarks share: their options, their tables, and their line in the summary."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SummaryRow:
    """One line of the table that the README shows.

    Attributes:
        what: was measured, with its unit.
        ours: the figure.
        beside: those to compare it with.
    """

    what: str
    ours: str
    beside: str


Summary = tuple[SummaryRow, ...]


def speed_parser(
    description: str | None, file: str, seconds: float | None = None
) -> argparse.ArgumentParser:
    """Return a parser of the model, the threads, the time and the table of a speed benchmark.

    Args:
        description: of the benchmark.
        file: the module's own; the table goes beside it, and the plot beside the table.
        seconds: how long each thing is measured by default, where that can be chosen.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("best_model.pth"), help="checkpoint")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the network")
    if seconds is not None:
        parser.add_argument(
            "--seconds", type=float, default=seconds, help="for each thing (default: %(default)s)"
        )
    parser.add_argument(
        "--out", type=Path, default=Path(file).with_suffix(".md"), help="Markdown, beside its plot"
    )
    return parser


def publish(text: str, path: Path) -> None:
    """Print what was measured and write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    print(text)
