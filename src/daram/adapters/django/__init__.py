"""Daram in a Django project: ``"daram.adapters.django"`` in ``INSTALLED_APPS``, ``DARAM = {…}`` in the settings.

::

    from daram.adapters.django import get_chatbot, owner_of

    def say(request, id):
        answer = get_chatbot().ask(owner_of(request.user), id, request.POST["text"])
        return JsonResponse({"answer": answer.text})
"""

from daram.adapters.versions import require

require("the adapter for Django", "django", "Django", "django", oldest="5.2", below="7")

# What follows imports Django.
from daram.adapters.django.conf import owner_of, reader_of
from daram.adapters.django.faces import AsyncChatbot, AsyncMemory, AsyncRunning, SyncChatbot, SyncMemory, SyncRunning
from daram.adapters.django.http import atitled_reply, event_stream, json_errors, titled_reply
from daram.adapters.django.library import (
    AsyncDocuments,
    AsyncTitledChats,
    AsyncTitledTurn,
    SyncDocuments,
    SyncTitledChats,
    SyncTitledTurn,
)
from daram.adapters.django.life import (
    aget_chatbot,
    aget_documents,
    aget_memory,
    aget_titled_chats,
    close,
    get_chatbot,
    get_documents,
    get_memory,
    get_titled_chats,
)
from daram.adapters.django.signals import conversation_deleted, owner_deleted, turn_finished

__all__ = [
    "AsyncChatbot",
    "AsyncDocuments",
    "AsyncMemory",
    "AsyncRunning",
    "AsyncTitledChats",
    "AsyncTitledTurn",
    "SyncChatbot",
    "SyncDocuments",
    "SyncMemory",
    "SyncRunning",
    "SyncTitledChats",
    "SyncTitledTurn",
    "aget_chatbot",
    "aget_documents",
    "aget_memory",
    "aget_titled_chats",
    "atitled_reply",
    "close",
    "conversation_deleted",
    "event_stream",
    "get_chatbot",
    "get_documents",
    "get_memory",
    "get_titled_chats",
    "json_errors",
    "owner_deleted",
    "owner_of",
    "reader_of",
    "titled_reply",
    "turn_finished",
]
