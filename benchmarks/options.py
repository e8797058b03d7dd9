"""The options that all measurements on the data share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def build_parser(description: str | None, out: Path) -> argparse.ArgumentParser:
    """Return a parser of where the data, the model and its split are and the table goes."""
    parser = argparse.ArgumentParser(description=description)
    given = os.environ.get("RESFORMER_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(given) if given else None,
        required=given is None,
        help="folder with the folders chest-xray, external and not-chest-xray "
        "(default: the environment variable RESFORMER_DATA)",
    )
    parser.add_argument("--model", type=Path, default=Path("best_model.pth"), help="checkpoint")
    parser.add_argument(
        "--manifest", type=Path, default=Path("docs/split.csv"), help="split it was trained on"
    )
    parser.add_argument("--out", type=Path, default=out, help="Markdown (default: %(default)s)")
    return parser
