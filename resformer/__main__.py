"""``python -m resformer``: see :mod:`resformer.cli`."""

from __future__ import annotations

import sys

from resformer.cli import main

if __name__ == "__main__":
    sys.exit(main())
