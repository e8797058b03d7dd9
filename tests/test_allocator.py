"""The heaps that the threads of a server share, and the memory that a training keeps."""

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

SHARING = """
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
"""
KEEPING = """
import ctypes, sys
from resformer.allocator import keep_memory

keep_memory()
blocks = [bytes(8 * 2**20) for _ in range(8)]
"""
REPORT = """
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def run_and_report(code: str, report: Path, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | variables
    command = [sys.executable, "-c", code + REPORT, str(report)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
    return report.read_text()


def count_heaps(report: Path, **variables: str) -> int:
    return len(re.findall("<heap nr=", run_and_report(SHARING, report, **variables)))


def count_blocks_from_the_system(report: Path, **variables: str) -> int:
    text = run_and_report(KEEPING, report, **variables)
    found = re.search(r'<total type="mmap" count="(\d+)"', text)
    assert found
    return int(found[1])


@pytest.mark.skipif(not has_glibc, reason="reads the heaps of glibc")
def test_threads_share_two_heaps_unless_the_operator_chose(tmp_path: Path) -> None:
    assert 1 <= count_heaps(tmp_path / "shared.xml") <= 2
    assert count_heaps(tmp_path / "chosen.xml", MALLOC_ARENA_MAX="5") == 5


@pytest.mark.skipif(not has_glibc, reason="reads the heaps of glibc")
def test_large_blocks_come_from_the_heap_unless_the_operator_chose(tmp_path: Path) -> None:
    assert count_blocks_from_the_system(tmp_path / "kept.xml") < 8
    own = str(2**20)
    chosen = count_blocks_from_the_system(tmp_path / "chosen.xml", MALLOC_MMAP_THRESHOLD_=own)
    assert chosen >= 8
