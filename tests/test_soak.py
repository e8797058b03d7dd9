"""The soak: its traffic gets the answers that it expects, and its report finds what is wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.soak_client import Outcome, send_all
from benchmarks.soak_memory import resident_bytes, watch_memory
from benchmarks.soak_report import find_faults, render
from benchmarks.soak_traffic import Message, bad_messages, good_messages
from tests.web.checkpoints import write_gated_checkpoint
from tests.web.serving import serve_in_thread
from web import WebConfig, create_app

MIB = 2**20
FLAT = [300 * MIB] * 10
GOOD = Outcome("PNG", "200", 0.010, is_right=True, is_deliberate=False)
BUSY = Outcome("PNG", "503 busy", 0.001, is_right=True, is_deliberate=True)
BROKEN = Outcome("bad: bomb", "500 internal_error", 0.1, is_right=False, is_deliberate=False)


def test_every_message_gets_a_right_answer(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = write_gated_checkpoint(tiny_checkpoint, tmp_path / "gated.pth", accepts=False)
    config = WebConfig(model, "cpu", port=0)
    messages = [*good_messages()[:18], *bad_messages(has_gate=True)]
    outcomes: list[Outcome] = []
    with serve_in_thread(create_app(config), config) as url:
        send_all(url, messages, outcomes.append, lambda: False)
    assert [outcome for outcome in outcomes if not outcome.is_right] == []
    assert [outcome.kind for outcome in outcomes] == [message.kind for message in messages]


def test_a_server_that_is_gone_is_a_wrong_answer() -> None:
    outcomes: list[Outcome] = []
    send_all("http://127.0.0.1:9", [Message("PNG", b"x", (200,))], outcomes.append, lambda: False)
    assert [(o.status, o.is_right) for o in outcomes] == [("ConnectionRefusedError", False)]


def test_it_passes_only_without_faults() -> None:
    assert find_faults([GOOD, BUSY], FLAT) == []
    assert find_faults([GOOD, BROKEN, BROKEN], FLAT) == [
        "2 x wrong answer to bad: bomb: 500 internal_error"
    ]
    warmed_up = [100 * MIB, 200 * MIB, *[300 * MIB] * 8]
    assert find_faults([GOOD], warmed_up) == []
    growing = [(300 + 10 * step) * MIB for step in range(10)]
    assert find_faults([GOOD], growing) == ["memory grew from 325 to 385 MiB after warm-up"]


def test_the_report_counts_what_it_saw() -> None:
    lines = render([GOOD, GOOD, BUSY, BROKEN], FLAT, 90.0).splitlines()
    assert lines[0] == (
        "4 requests in 1.5 minutes, 1 of them bad: "
        "1 server errors, 1 deliberate 503, 1 wrong answers."
    )
    assert "| at most | 300 |" in lines
    over_time = ", ".join(["300"] * 10)
    assert f"| over time, medians of 15 equal parts | {over_time} |" in lines
    assert lines[-2] == "| PNG | 2 x 200, 1 x 503 busy | 10 | 10 | 10 |"
    assert lines[-1] == "| bad: bomb | 1 x 500 internal_error | 100 | 100 | 100 |"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_that_of_the_process() -> None:
    with watch_memory(os.getpid()) as samples:
        pass
    assert samples[0] > 50 * MIB
    assert resident_bytes(2**22 + 1) == 0
