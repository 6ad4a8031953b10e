"""What the server says, in Daram's words."""

from __future__ import annotations

from redis import exceptions as said

from daram.errors import (
    OutcomeUnknown,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

_NOT_READY = ("LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS")


def was_not_sent(error: BaseException) -> bool:
    """Whether it was the connection that could not be made or had just been taken away, so that no command went out."""
    if isinstance(error, AttributeError):
        # Another task disconnected it (the driver does so to all connections of a cluster when that is down) before
        # the one place where bytes are handed over, be it those of the handshake or of the command.
        return error.name == "writelines" and error.obj is None
    if isinstance(error, ConnectionRefusedError | said.MaxConnectionsError):
        return True
    if isinstance(error, said.RedisClusterException | said.ClusterError):
        return True  # nobody to send it to, or nothing but redirections
    # The last is what the driver makes of READONLY behind a Sentinel: refused, not stored.
    signs = ("connecting to", "No connection available", "No master found", "previous master is now a slave")
    return any(sign in str(error) for sign in signs)


def is_an_answer(error: BaseException) -> bool:
    """Whether it is what the server said, and not a connection that broke in whichever way.

    When a connection is taken away under a task, the driver raises what its own code stumbles over then: AttributeError
    (a writer that is None), RuntimeError (a closed transport, two readers of one stream), EOFError, IndexError, …
    """
    return isinstance(
        error, said.ResponseError | said.AuthenticationError | said.AuthorizationError | said.BusyLoadingError
    )


def translate(error: Exception, where: str, *, writes: bool) -> StoreError:
    """The typed error; ``writes``: whether something may have been stored."""
    text = str(error) or type(error).__name__
    if isinstance(error, said.AuthenticationError | said.AuthorizationError | said.NoPermissionError):
        return StoreUnavailable(f"{where}: the server refuses the login or a command ({text}); check user and password")
    if isinstance(error, said.OutOfMemoryError) or "OOM command not allowed" in text:
        return StoreFull(f"{where}: the server's memory is full; nothing of this call was stored. Raise its maxmemory")
    if "MISCONF" in text:
        return StoreFull(f"{where}: the server cannot write its data to disk; nothing was stored ({text})")
    if isinstance(error, said.ReadOnlyError) or "READONLY" in text:
        return StoreReadOnly(f"{where}: is a replica and cannot be written")
    if isinstance(error, said.BusyLoadingError | said.ClusterDownError | said.TryAgainError) or any(
        sign in text[:60] for sign in _NOT_READY
    ):
        return StoreBusy(f"{where}: is not ready; nothing was stored, try again ({text})")
    if not is_an_answer(error):
        if writes and not was_not_sent(error):
            return OutcomeUnknown(
                f"{where}: the connection broke or the answer did not come in time ({text}); the write may be there "
                "or not. Repeat it with the same message ids: nothing is stored twice"
            )
        return StoreUnavailable(f"{where}: cannot be reached ({text}); check that the server runs")
    if "WRONGTYPE" in text or "script" in text:
        return StoreCorrupt(f"{where}: a key of Daram's holds something else ({text})")
    return StoreUnavailable(f"{where}: {type(error).__name__} ({text})")
