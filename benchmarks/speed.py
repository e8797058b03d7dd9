"""Run all benchmarks of speed one after the other and put their summary into the README.

    pip install -r requirements-benchmarks.txt
    python -m benchmarks.speed

About ten minutes of a machine with nothing else to do. Each benchmark writes its own table and
plot; this one writes ``speed.md``, the same text between two marks in the README, and all tables
with their plots between the same marks in ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

from benchmarks import growth, network, request, service, training
from benchmarks.common import FOLDER, Summary, SummaryRow, describe_machine, publish
from resformer.evaluation.tables import render_table, replace_block

BENCHMARKS: Mapping[str, Callable[[Sequence[str]], Summary]] = {
    "request": request.main,
    "service": service.main,
    "training": training.main,
    "growth": growth.main,
    # The last one: after OpenVINO has run in it, a process that starts others may crash.
    "network": network.main,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, and write the summary."""
    options = _parse(arguments)
    machine = describe_machine(options.threads)
    rows: list[SummaryRow] = []
    for name, measure in BENCHMARKS.items():
        shared = ["--model", str(options.model), "--threads", str(options.threads)]
        out = ["--out", str(options.folder / f"{name}.md")]
        rows += measure([*shared, *out, *options.more.get(name, [])])
    table = render_table(("what", "ours", "beside it"), rows)
    text = f"{date.today():%d %B %Y}; {machine} Medians.\n\n{table}"
    publish(text, options.folder / "speed.md")
    whole = {options.readme: text, options.folder / "README.md": collect(options.folder)}
    for path, content in whole.items():
        path.write_text(quote(path.read_text(encoding="utf-8"), content), encoding="utf-8")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, default=Path("best_model.pth"), help="checkpoint")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the network")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the tables and plots")
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument(
        "--more",
        type=_read_more,
        action="append",
        default=[],
        metavar="NAME:OPTIONS",
        help="options of one benchmark, such as 'service:--seconds 5'",
    )
    options = parser.parse_args(arguments)
    options.more = dict(options.more)
    return options


def _read_more(text: str) -> tuple[str, list[str]]:
    name, _, options = text.partition(":")
    if name not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(BENCHMARKS)}")
    return name, options.split()


def collect(folder: Path) -> str:
    """Return all tables that the benchmarks wrote into a folder, each with its plot."""
    parts = []
    for name in BENCHMARKS:
        parts += [f"### {name.capitalize()}", (folder / f"{name}.md").read_text("utf-8").strip()]
        if (folder / f"{name}.png").is_file():
            parts.append(f"![Plot of the table above]({name}.png)")
    return "\n\n".join(parts)


def quote(readme: str, text: str) -> str:
    """Return a README with the text between its marks ``<!-- speed:begin -->`` and ``end``.

    Raises:
        ValueError: if it lacks the marks.
    """
    return replace_block(readme, "speed", text.strip())


if __name__ == "__main__":
    main()
