"""Published tests: what an engine of anybody's proves itself with.

* ``StoreTests``: the conformance suite, a pytest class to subclass;
* ``StoreMachine`` and ``run_machine``: a Hypothesis state machine that compares an engine with the in-memory one;
* ``FaultyStore``: a Store that fails, hangs or loses its answer by script;
* ``AsyncOverSync``: a synchronous face as a Store again, so that all of the above runs through it;
* ``daram.testing.model_server``: a scripted model behind an OpenAI-compatible endpoint.

They need pytest, pytest-asyncio and hypothesis: ``pip install "daram[dev]"``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daram.testing.conformance import StoreTests as StoreTests
    from daram.testing.faulty import FaultyStore as FaultyStore
    from daram.testing.over_sync import AsyncOverSync as AsyncOverSync
    from daram.testing.state_machine import StoreMachine as StoreMachine
    from daram.testing.state_machine import run_machine as run_machine

# Loaded when asked for: whoever needs the faults alone needs neither pytest nor hypothesis.
_HOMES = {
    "StoreTests": "conformance",
    "FaultyStore": "faulty",
    "AsyncOverSync": "over_sync",
    "StoreMachine": "state_machine",
    "run_machine": "state_machine",
}

if "pytest" in sys.modules:
    # Their assertions are to say as much as those in a test file.
    sys.modules["pytest"].register_assert_rewrite("daram.testing.suite", "daram.testing.state_machine")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
