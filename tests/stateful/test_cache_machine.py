"""P4: the cache cannot lie. And the machine that says so would notice if it did."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.stateful.cache_machine import CacheMachine

from daram.cache import cached
from daram.cache.entry import Entry
from daram.model import Appended, Message
from daram.store.memory import MemoryStore

QUICK = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(QUICK, max_examples=500, stateful_step_count=60)


def machine() -> type[CacheMachine]:
    class Machine(CacheMachine):
        open_engine = staticmethod(MemoryStore)

    return Machine


def patient_machine() -> type[CacheMachine]:
    """For mutants: a busy computer must not hide them behind misses."""
    made = machine()
    made.budget = 0.02
    return made


def test_no_turn_sees_stale_history_for_twenty_thousand_steps() -> None:
    made = machine()
    run_state_machine_as_test(made, settings=LONG)
    assert made.steps >= 20_000, made.steps


def test_the_machine_catches_a_cache_without_the_etag_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def believing(self: Entry, previous_etag: str, parent: str | None, etag: str, new: list[Message]) -> Entry | None:
        return Entry(self.owner, etag, new[-1].id, self.complete, self.tail + new) if self.head == parent else None

    monkeypatch.setattr(Entry, "extended", believing)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            patient_machine(), settings=settings(QUICK, max_examples=1000, phases=[Phase.generate])
        )


def test_the_machine_catches_a_cache_without_the_head_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def believing(self: cached._Look, done: Appended) -> Entry | None:
        if self.entry is None or self.entry.etag != done.previous_etag or not done.messages:
            return None
        return Entry(self.entry.owner, done.etag, done.messages[-1].id, False, self.entry.tail + done.messages)

    monkeypatch.setattr(cached._Look, "following", believing)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            patient_machine(), settings=settings(QUICK, max_examples=1000, phases=[Phase.generate])
        )
