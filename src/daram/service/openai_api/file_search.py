"""The tool ``file_search`` of ``/v1/responses``: a turn is answered from vector stores.

There is no call that a model decides on: the documents are searched for each question, and what bears on it goes to the
model beside it, as in every conversation that is bound to documents. The item ``file_search_call`` says what was asked
and what of it the answer cites.
"""

from __future__ import annotations

from typing import Any, Final

from daram.errors import InvalidInput
from daram.knowledge import expiry
from daram.knowledge.bindings import Binding
from daram.knowledge.filters import compiled
from daram.service.accounts.auth import Caller
from daram.service.openai_api.library import documents_here, find_collection, reader_of
from daram.service.openai_api.responses_request import Inputs
from daram.service.openai_api.responses_view import FILE_SEARCH, searches
from daram.service.openai_api.vector_schemas import ranked
from daram.store.documents import Scope

_KNOWN: Final = {"type", "vector_store_ids", "max_num_results", "ranking_options", "filters"}
_MOST: Final = 50


async def binding_of(caller: Caller, wanted: Inputs) -> Binding | None:
    """What the turn is answered from; None without the tool. Raises ``InvalidInput``, ``NotFound``, ``Unsupported``."""
    found = [(i, tool) for i, tool in enumerate(wanted.tools or ()) if tool.get("type") == FILE_SEARCH]
    if not found and isinstance(wanted.tool_choice, dict) and wanted.tool_choice.get("type") == FILE_SEARCH:
        raise InvalidInput("tool_choice", f"names {FILE_SEARCH}, but no such tool was given")
    if not found:
        return None
    place, tool = found[0]
    field = f"tools[{place}]"
    if len(found) > 1:
        raise InvalidInput(f"tools[{found[1][0]}].type", "only one file_search is possible; it may name several stores")
    for key in tool:
        if key not in _KNOWN and tool[key] is not None:
            raise InvalidInput(f"{field}.{key:.64}", "is not available here")
    stores: Any = tool.get("vector_store_ids")
    if not isinstance(stores, list) or not stores or not all(isinstance(id, str) for id in stores):
        raise InvalidInput(f"{field}.vector_store_ids", "must be an array of at least one id")
    most = tool.get("max_num_results")
    if most is not None and (type(most) is not int or not 1 <= most <= _MOST):
        raise InvalidInput(f"{field}.max_num_results", f"must be a whole number from 1 to {_MOST}")
    options = tool.get("ranking_options")
    if options is not None and not isinstance(options, dict):
        raise InvalidInput(f"{field}.ranking_options", "must be an object")
    filters = tool.get("filters")
    if filters is not None:
        compiled(filters, f"{field}.filters")
    documents, who = documents_here(), await reader_of(caller)
    usual = documents.retrieval
    how, least = ranked(usual, options, most or usual.passages, f"{field}.ranking_options")
    collections = [await find_collection(documents, who, id, what="vector store") for id in stores]
    if not searches(wanted.tool_choice):
        return None
    for one in collections:
        await expiry.use(documents.collections, one)
    return Binding(
        collections=tuple(dict.fromkeys(Scope(one.owner, one.id) for one in collections)),
        only=False,
        groups=who.groups,
        passages=most,
        threshold=least or None,
        words=how.words,
        vectors=how.vectors,
        rerank=how.rerank,
        filters=filters,
    )
