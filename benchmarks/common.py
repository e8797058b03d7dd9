"""What the benchmarks share: their options, timing, drawn films as files, tables and plots."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

from resformer.evaluation.plots import COLOURS, new_figure
from resformer.phantom import draw_chest_phantom
from tests.data_sets import encode
from tests.dicom_files import radiograph, write

FOLDER = Path(__file__).parent
_FEWEST_ROUNDS = 5
_DICOM_BITS = 12


class SummaryRow(NamedTuple):
    """One row of the README's table of speed: what, with its unit; our figure; others beside it."""

    what: str
    ours: str
    beside: str = ""


Summary = tuple[SummaryRow, ...]
# Folders of the data sets that docs/split.csv divides, the first as the manifest has it.
TRAINED_ON = ("chest-xray", "siim", "kermany", "nih")


def compare(what: str, values: Mapping[str, float], form: str) -> SummaryRow:
    """Return the row of the first value beside the others."""
    first, *others = values
    beside = ", ".join(f"{name} {values[name]:{form}}" for name in others)
    return SummaryRow(what, f"{values[first]:{form}}", beside)


def build_parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser with the checkpoint and the table ``<name>.md`` that a benchmark writes."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, default=Path("best_model.pth"), help="checkpoint")
    parser.add_argument(
        "--out", type=Path, default=FOLDER / f"{name}.md", help="Markdown, beside its plot if any"
    )
    return parser


def list_data_sets(folder: Path) -> list[Path]:
    """Return the data sets of the shipped split that lie in a folder, in the split's order."""
    first, *others = (folder / name for name in TRAINED_ON)
    return [first, *(other for other in others if other.is_dir())]


def build_data_parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """Return the parser of a benchmark that reads films, with their folder and split."""
    parser = build_parser(description, name)
    given = os.environ.get("RESFORMER_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(given) if given else None,
        required=given is None,
        help=f"folder with the folders {', '.join(TRAINED_ON)} (those that there are), external "
        "and not-chest-xray "
        "(default: the environment variable RESFORMER_DATA)",
    )
    parser.add_argument(
        "--manifest", type=Path, default=Path("docs/split.csv"), help="split it was trained on"
    )
    return parser


def build_speed_parser(
    description: str | None, name: str, seconds: float | None = None
) -> argparse.ArgumentParser:
    """Return the parser of a benchmark of speed, with its threads and its default time."""
    parser = build_parser(description, name)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the network")
    if seconds is not None:
        parser.add_argument(
            "--seconds", type=float, default=seconds, help="for each thing (default: %(default)s)"
        )
    return parser


@dataclass(frozen=True)
class Timing:
    """How long one call takes, in seconds: the median over the rounds, and the fastest."""

    median: float
    fastest: float

    @property
    def milliseconds(self) -> str:
        """Median, and in brackets the fastest."""
        return f"{1000 * self.median:.2f} ({1000 * self.fastest:.2f})"


def time_together(
    functions: Mapping[str, Callable[[], Any]], seconds: float = 2.0
) -> dict[str, Timing]:
    """Time functions in turns, so that what disturbs the machine disturbs all alike.

    Args:
        functions: by name; each is called once before it counts.
        seconds: about how long each is timed, at least five rounds.
    """
    for function in functions.values():
        function()
    taken: dict[str, list[float]] = {name: [] for name in functions}
    while unfinished := [
        name for name, t in taken.items() if sum(t) < seconds or len(t) < _FEWEST_ROUNDS
    ]:
        for name in unfinished:
            start = time.perf_counter()
            functions[name]()
            taken[name].append(time.perf_counter() - start)
    return {name: Timing(statistics.median(t), min(t)) for name, t in taken.items()}


def describe_machine(threads: int) -> str:
    """Return a sentence with processor, cores, threads, versions, and how busy the machine is."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores, "
        f"{threads} threads used, Python {platform.python_version()}, PyTorch {torch.__version__}; "
        f"load average at the start {load}."
    )


def read_status(pid: int, field: str) -> int:
    """Return the bytes of a field of ``/proc/<pid>/status``."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = (1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return next(found, 0)  # a process that has ended has none


def resident_bytes(pid: int) -> int:
    """Return the resident bytes of a process and its descendants; what they share counts twice."""
    total = 0
    with suppress(FileNotFoundError, ProcessLookupError):  # it may end meanwhile
        total += read_status(pid, "VmRSS")
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(resident_bytes(int(n)) for n in (task / "children").read_text().split())
    return total


def draw_film(height: int, width: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw a film with a film's noise, grey levels from 0 to 255, ``(height, width)``."""
    side = max(height, width)
    noise = np.random.default_rng(seed).normal(0, 3, (side, side))
    film = np.clip(draw_chest_phantom(side, seed=seed) + noise, 0, 255)
    top, left = (side - height) // 2, (side - width) // 2
    drawn: NDArray[np.float64] = film[top : top + height, left : left + width]
    return drawn


def show_share(hits: int, count: int) -> str:
    """Return a share with its exact (Clopper and Pearson) 95 % interval; a dash without any."""
    if not count:
        return "-"
    low, high = binomtest(hits, count).proportion_ci(method="exact")
    return f"{hits / count:.1%} ({low:.1%} to {high:.1%})"


def encode_film(film: NDArray[np.float64], kind: str) -> bytes:
    """Return a drawn film as a file.

    Args:
        film: as :func:`draw_film` gives it.
        kind: ``PNG`` or ``DICOM`` (12 bits in 16, not compressed).
    """
    if kind == "DICOM":
        values = np.rint(film / 255 * (2**_DICOM_BITS - 1)).astype(np.uint16)
        return write(radiograph(values, bits_stored=_DICOM_BITS))
    return encode(film.astype(np.uint8), kind)


def publish(text: str, path: Path) -> None:
    """Print what was measured and write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    print(text)


def save_bars(panels: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw values by name as horizontal bars, one panel for each label of the axis."""
    height = 1 + 0.4 * max(map(len, panels.values()))
    figure, axes = new_figure(2 + 4 * len(panels), height, columns=len(panels))
    for index, (label, values) in enumerate(panels.items()):
        axes[index].barh(list(values), list(values.values()), color=COLOURS[index])
        axes[index].invert_yaxis()
        axes[index].set_xlabel(label)
        axes[index].tick_params(labelleft=index == 0)
    figure.savefig(path, dpi=120)
