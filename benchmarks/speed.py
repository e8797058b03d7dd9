"""Runs all speed benchmarks one after the other and puts their summary into the README.

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

from benchmarks import growth, network, request, runtimes, service, start, training
from benchmarks.reporting import Summary, publish
from benchmarks.timing import describe_machine
from resformer.evaluation.tables import render_table

BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
BENCHMARKS: Mapping[str, Callable[[Sequence[str]], Summary]] = {
    "network": network.main,
    "request": request.main,
    "service": service.main,
    "training": training.main,
    "growth": growth.main,
    "start": start.main,
    # The last one: after OpenVINO has run in it, a process that starts others may crash.
    "runtimes": runtimes.main,
}
_HEADER = ("what", "ours", "beside it")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, and write the summary."""
    options = _parse(arguments)
    machine = describe_machine(options.threads)
    rows: list[tuple[str, str, str]] = []
    for name, measure in BENCHMARKS.items():
        out = options.folder / f"{name}.md"
        shared = ["--model", str(options.model), "--threads", str(options.threads)]
        summary = measure([*shared, "--out", str(out), *options.more.get(name, [])])
        rows += [(row.what, row.ours, row.beside) for row in summary]
    text = f"{date.today():%d %B %Y}; {machine} Medians.\n\n{render_table(_HEADER, rows)}"
    publish(text, options.folder / "speed.md")
    quote_into(options.readme, text)
    quote_into(options.folder / "README.md", collect(options.folder))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("best_model.pth"), help="checkpoint")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the network")
    parser.add_argument(
        "--folder", type=Path, default=Path(__file__).parent, help="of the tables and plots"
    )
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
        table = (folder / f"{name}.md").read_text(encoding="utf-8").strip()
        plot = (
            f"\n\n![Plot of the table above]({name}.png)"
            if (folder / f"{name}.png").is_file()
            else ""
        )
        parts.append(f"### {name.capitalize()}\n\n{table}{plot}")
    return "\n\n".join(parts)


def quote_into(path: Path, text: str) -> None:
    """Put a text between the marks of a file; see :func:`quote`."""
    path.write_text(quote(path.read_text(encoding="utf-8"), text), encoding="utf-8")


def quote(readme: str, text: str) -> str:
    """Return a README with the text between the marks.

    Raises:
        ValueError: if it lacks the marks.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the README lacks {BEGIN} and {END}: put both where the table belongs")
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"


if __name__ == "__main__":
    main()
