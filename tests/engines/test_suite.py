"""The conformance suite would notice: every wrong engine fails it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.stateful.mutants import MUTANTS, Mutant

_HERE = Path(__file__).parent
_RUN = """
import runpy, sys, pytest

class Spoil:
    def pytest_collection_finish(self, session):
        runpy.run_path(sys.argv[1])[sys.argv[2]](pytest.MonkeyPatch())

sys.exit(pytest.main(["-x", "-q", "--tb=no", "-p", "no:cacheprovider", sys.argv[3]], plugins=[Spoil()]))
"""


@pytest.mark.soak
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_suite_notices(mutant: Mutant) -> None:
    mutants, tests = _HERE.parent / "stateful" / "mutants.py", f"{_HERE / 'test_memory.py'}::TestMemoryStore"
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(mutants), mutant.__name__, tests],
        cwd=_HERE.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "FAILED" in done.stdout
