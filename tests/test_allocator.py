"""The heaps that the threads of a server share."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.web.serving import ROOT

has_glibc = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")

CODE = """
import ctypes, sys, threading
from resformer.allocator import share_heaps

share_heaps()
meeting = threading.Barrier(12)

def allocate():
    meeting.wait(60)
    blocks = [bytes(4096) for _ in range(1000)]
    meeting.wait(60)

threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def count_heaps(report: Path, **variables: str) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | variables
    command = [sys.executable, "-c", CODE, str(report)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
    return len(re.findall("<heap nr=", report.read_text()))


@pytest.mark.skipif(not has_glibc, reason="reads the heaps of glibc")
def test_threads_share_two_heaps_unless_the_operator_chose(tmp_path: Path) -> None:
    assert 1 <= count_heaps(tmp_path / "shared.xml") <= 2
    assert count_heaps(tmp_path / "chosen.xml", MALLOC_ARENA_MAX="5") == 5
