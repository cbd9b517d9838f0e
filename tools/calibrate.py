#!/usr/bin/env python
"""`yolox-lt calibrate` from a plain checkout; the code is yolox_lt/commands/calibrate.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from yolox_lt.commands import run_command

if __name__ == "__main__":  # spawned ranks import this file again
    run_command("calibrate")
