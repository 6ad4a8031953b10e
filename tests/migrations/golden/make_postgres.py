"""Made ``postgres-7.sql``: run once, by the Daram whose newest schema was 7, and never again.

    python tests/migrations/golden/make_postgres.py tests/migrations/golden/postgres-7.sql

Of each later schema there will be another file, made by the last Daram that had it. They hold what ``make.py`` writes,
as ``pg_dump`` writes it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from make import fill  # beside this file

import daram
from daram.testing.servers import PostgresServer


async def make(path: Path) -> None:
    with PostgresServer() as server:
        async with daram.open(server.url) as store:
            await fill(store)
        command = ["pg_dump", "--schema=daram", "--inserts", "--no-owner", "--no-privileges", "--dbname", server.url]
        # pg_dump stands beside the server's program.
        programs = os.pathsep.join([str(Path(server._command()[0]).parent), os.environ["PATH"]])
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PATH": programs})
    # Without the lines that only psql understands.
    path.write_text("".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith("\\")))


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
