"""The soak: its traffic gets the answers that it expects, and its report finds what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.soak import (
    Outcome,
    Probe,
    bad_messages,
    find_faults,
    good_messages,
    render_health,
)
from tests.web.checkpoints import write_gated_checkpoint
from tests.web.serving import serve_checkpoint

MIB = 2**20
FLAT = [300 * MIB] * 10
GOOD = Outcome("PNG", "200", 0.010, is_right=True)
BUSY = Outcome("PNG", "503 busy", 0.001, is_right=True)
BROKEN = Outcome("bad: bomb", "500 internal_error", 0.1, is_right=False)


def test_a_short_soak_passes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "soak.md"
    arguments = f"--model {tiny_checkpoint} --out {out} --minutes 0 --requests 30 --clients 2"
    status = soak.main(arguments.split())
    text = out.read_text()
    assert "# Soak: ours, 2 clients" in text
    assert "0 server errors, 0 deliberate 503, 0 wrong answers." in text
    faults = [line for line in text.splitlines() if line.startswith("- Fault")]
    assert all("/healthz" in fault for fault in faults), faults  # slow where the machine is busy
    assert status == bool(faults)
    line = next(line for line in text.splitlines() if line.startswith("| at most |"))
    assert int(line.split(" | ")[1].strip("| ")) > 50


def test_every_message_gets_a_right_answer(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = write_gated_checkpoint(tiny_checkpoint, tmp_path / "gated.pth", accepts=False)
    messages = [*good_messages()[:16], *bad_messages(has_gate=True, largest=2**17)]
    outcomes: list[Outcome] = []
    with serve_checkpoint(model) as url:
        soak.send_all(url, messages, outcomes.append)
    assert [outcome for outcome in outcomes if not outcome.is_right] == []
    assert [outcome.kind for outcome in outcomes] == [message.kind for message in messages]


def test_it_passes_only_without_faults() -> None:
    assert find_faults([GOOD, BUSY], FLAT) == []
    assert find_faults([GOOD, BROKEN, BROKEN], FLAT) == [
        "2 x wrong answer to bad: bomb: 500 internal_error"
    ]
    warmed_up = [100 * MIB] * 10 + [200 * MIB] * 10 + [300 * MIB] * 80
    assert find_faults([GOOD], warmed_up) == []
    growing = [(300 + step) * MIB for step in range(100)]
    assert find_faults([GOOD], growing) == ["memory grew from 330 to 390 MiB after warm-up"]
    assert find_faults([GOOD], growing[::10]) == []  # too short to have warmed up


def test_a_slow_probe_counts_unless_the_machine_was_slow_too() -> None:
    probes = [Probe(0.01, 0.001), Probe(1.5, 0.9), Probe(2.0, 0.01)]
    assert find_faults([GOOD], FLAT, probes) == ["1 x /healthz was slow, at most 2.0 s"]
    text = render_health(probes)
    assert "asked 3 times: median 1.500 s, at most 2.00 s" in text
    assert "2 took over a second, 1 of them while" in text


def test_the_log_holds_lines_of_the_application_alone() -> None:
    ours = '{"level": "INFO", "message": "request"}'
    strange = ["Fax3Decode2D: Warning", '{"level": "ERROR", "message": "failed"}', "[1]"]
    assert find_faults([GOOD], FLAT, log=[ours, ours]) == []
    (fault,) = find_faults([GOOD], FLAT, log=[ours, *strange])
    assert fault == f"3 lines in the log that should not be there: {strange[0]}"


def test_other_shares_than_alone_are_a_wrong_answer(tiny_checkpoint: Path) -> None:
    outcomes: list[Outcome] = []
    film = good_messages()[9]  # insists on an answer
    with serve_checkpoint(tiny_checkpoint) as url:
        alone = soak.ask_alone(url, [film])
        soak.send_all(url, [film], outcomes.append, alone)
        soak.send_all(url, [film], outcomes.append, {film: [[2.0, 0.0, 0.0, 0.0]]})
    assert sum(alone[film][0]) == pytest.approx(1)
    assert [(o.status, o.is_right) for o in outcomes] == [
        ("200", True),
        ("other shares than alone", False),
    ]
