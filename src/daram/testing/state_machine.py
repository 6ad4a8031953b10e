"""A Hypothesis state machine that does to a store whatever two processes can, and checks every outcome twice.

Each call is predicted by a naive oracle (lists of id, parent, text), and, where a model is given, made on it as well
(the in-memory engine) and compared modulo etags, tokens and times. Run it on an engine::

    from daram.testing import run_machine

    def test_my_store(tmp_path):
        places = itertools.count()

        def new_place():                      # called for every example: an empty place …
            where = tmp_path / str(next(places))
            async def open_store():           # … on which several handles are opened, closed and opened again
                return MyStore(where)
            return open_store

        run_machine(new_place, MemoryStore)
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from daram.store.base import Store
from daram.testing.machine.base import OpenStore
from daram.testing.machine.turns import TurnRules


class StoreMachine(TurnRules):
    """All rules; ``run_machine`` fills in ``new_place`` and ``open_model``."""


QUICK = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=[*HealthCheck], print_blob=True
)


def run_machine(
    new_place: Callable[[], OpenStore], open_model: Callable[[], Store] | None = None, *, how: settings = QUICK
) -> int:
    """Run the machine; returns how many calls it made. Raises what an assertion found, with the shortest example."""

    class Machine(StoreMachine):
        steps = 0

    Machine.new_place = staticmethod(new_place)
    Machine.open_model = None if open_model is None else staticmethod(open_model)
    run_state_machine_as_test(Machine, settings=how)
    return Machine.steps
