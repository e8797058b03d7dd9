"""Tests, run by several processes of pytest-xdist: one thread each, so that they do not compete."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
