"""Run the BIDS App as ``python -m totalspineseg_bids``."""

from __future__ import annotations

import sys

from totalspineseg_bids.cli.bids_app import main

if __name__ == "__main__":
    sys.exit(main())
