"""What Daram tells a Django project. Receivers are called robustly: one that fails is logged and stops nothing."""

from __future__ import annotations

from django.dispatch import Signal

turn_finished = Signal()
"""An answer is stored: ``owner``, ``conversation`` (its id), ``message`` (as stored: see its ``status``).

Told once, by the process that made the answer, on a thread of its own and outside of every transaction; the request
that asked may have ended long before.
"""

conversation_deleted = Signal()
"""A conversation was deleted by this project's code or administration: ``owner``, ``conversation`` (its id).

Told where it was deleted, behind the deletion.
"""

owner_deleted = Signal()
"""Everything of an owner was deleted: ``owner``, ``conversations`` (how many there were)."""
