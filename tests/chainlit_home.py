"""Chainlit for tests that use it in their own process: it can be imported on one directory only, so they share one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path

from daram.ui import home


@cache
def load_chainlit() -> None:
    """Import Chainlit's server on a directory that goes with this process; a second time is nothing."""
    directory = Path(tempfile.mkdtemp(prefix="daram-chainlit-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Chainlit's dependencies use what others deprecate
        home.load(directory)
