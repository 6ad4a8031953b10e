"""The process that runs llama.cpp for ``daram.llm.local``; run as a script, it imports nothing of Daram.

A process of its own, because loading holds Python's lock for seconds (an event loop beside it would stand still), a
crash in native code ends the process that it is in, and at exit a thread in the middle of a generation crashes.

It reads one line of JSON from its standard input, loads, answers one line of JSON (``url`` and ``context_tokens``, or
``error`` and ``text``) and serves until its standard input ends: when its parent closes it or is gone, however it went.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from typing import Any


def main() -> None:
    """Load what the first line of standard input describes, and serve it until standard input ends."""
    config = json.loads(sys.stdin.buffer.readline())
    # The answer keeps the real standard output to itself; what native code prints goes to the errors.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path[:] = config["path"]
    server, answer = _load(config)
    answers.write(json.dumps(answer) + "\n")
    answers.close()
    while server is not None and sys.stdin.buffer.read(1 << 16):
        pass
    # Nothing here needs an orderly end, and native threads are still at work.
    os._exit(0)


def _load(config: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    try:
        import xllamacpp
    except ImportError as error:
        return None, {"error": "import", "text": str(error)}
    params = xllamacpp.CommonParams()
    params.model.path = config["model"]
    params.model_alias = {config["name"]}
    slots = config["slots"]
    params.n_parallel = slots
    params.n_ctx = config["context_tokens"] * slots
    params.kv_unified = False
    params.n_batch = params.n_ubatch = config["batch"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config["threads"]
    params.cache_ram_mib = config["cache_mib"]
    params.verbosity = 1
    # A port on loopback is always opened; nobody without the key gets more from it than a sign of life.
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config["key"]]
    params.ui = False
    params.endpoint_slots = False
    params.n_threads_http = slots + 4
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError) as error:
        return None, {"error": "load", "text": str(error)}
    url = server.listening_address
    # A slot is never longer than what the model was trained for, so it may be shorter than asked.
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("GET", "/props", headers={"Authorization": f"Bearer {config['key']}"})
    context_tokens = json.load(connection.getresponse())["default_generation_settings"]["n_ctx"]
    connection.close()
    return server, {"url": url, "context_tokens": context_tokens}


if __name__ == "__main__":
    main()
