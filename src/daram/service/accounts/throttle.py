"""How often a login may be tried, counted in the database: one count for all processes, kept over restarts.

Two counts: of failures for one account from one address, and of all failures from one address. So whoever guesses is
slowed down, and nobody can lock somebody else out: their own address has a count of its own.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta
from typing import Final

from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils import timezone

from daram.service.accounts.keys import digest
from daram.service.accounts.models import LoginAttempts, User

WINDOW: Final = timedelta(minutes=15)
PER_ACCOUNT: Final = 10
PER_ADDRESS: Final = 50


def may_try(account: str, address: str) -> int:
    """Count an attempt before the password is looked at; returns after how many seconds it may be made (0: now).

    Counted first: otherwise many at once would all be let through before the first of them failed.
    """
    now = timezone.now()
    # The address first: one that is over its limit makes no more rows, whatever names it tries.
    for key, limit in ((_by_address(address), PER_ADDRESS), (_by_account(account, address), PER_ACCOUNT)):
        wait = _count(key, limit, now)
        if wait:
            return wait
    return 0


def succeeded(account: str, address: str) -> None:
    """The password was right: this attempt was no failure, and the account's earlier ones from here are forgiven."""
    LoginAttempts.objects.filter(key=_by_account(account, address)).delete()
    _tidy()
    with transaction.atomic():
        row = LoginAttempts.objects.select_for_update().filter(key=_by_address(address), failures__gt=0).first()
        if row is not None:
            row.failures -= 1
            row.save(update_fields=["failures"])


def _tidy() -> None:
    """Remove what is over: a login is a good moment, and there is always another one."""
    now = timezone.now()
    LoginAttempts.objects.filter(since__lt=now - WINDOW).delete()
    Session.objects.filter(expire_date__lt=now).delete()


def _count(key: str, limit: int, now: datetime) -> int:
    with transaction.atomic():
        row, made = LoginAttempts.objects.select_for_update().get_or_create(
            key=key, defaults={"failures": 1, "since": now}
        )
        if made:
            return 0
        ends = row.since + WINDOW
        if ends <= now:
            row.failures, row.since = 1, now
        elif row.failures >= limit:
            return int((ends - now).total_seconds()) + 1
        else:
            row.failures += 1
        row.save(update_fields=["failures", "since"])
        return 0


def _by_address(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        network = address
    else:
        # Whoever has one address of IPv6 has a /64 of them.
        network = str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)
    return digest(f"address {network}")


def _by_account(account: str, address: str) -> str:
    return digest(f"account {User.normalize_username(account)} {_by_address(address)}")
