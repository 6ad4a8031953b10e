"""The same chat for both kinds of view."""

import json

from django.http import HttpResponse, JsonResponse

from daram.adapters.django import (
    aget_chatbot,
    aget_memory,
    aget_titled_chats,
    atitled_reply,
    event_stream,
    get_chatbot,
    get_memory,
    json_errors,
    owner_of,
)
from site_app import model


def word(request):
    return HttpResponse(model.WORD)


@json_errors
def chats(request):
    page = get_memory().list(owner_of(request.user), limit=5, cursor=request.GET.get("cursor"))
    return JsonResponse({"chats": [chat.id for chat in page.items], "next": page.next_cursor})


@json_errors
def chat(request, id):
    owner = owner_of(request.user)
    if request.method == "POST":
        return JsonResponse({"AI": get_chatbot().ask(owner, id, json.loads(request.body)["user_input"]).text})
    if request.method == "DELETE":
        get_memory().delete(owner, id)
        return HttpResponse(status=204)
    return JsonResponse({"messages": [[message.role, message.text] for message in get_memory().tail(owner, id)]})


@json_errors
def stream(request, id):
    owner, bot = owner_of(request.user), get_chatbot()
    if answer := request.GET.get("answer"):
        return event_stream(bot.resume(owner, id, answer, after=int(request.headers.get("Last-Event-ID", 0))))
    running = bot.start(owner, id, request.GET["text"])
    return event_stream(running.events())


@json_errors
async def achat(request, id):
    owner = owner_of(await request.auser())
    if request.method == "POST":
        bot = await aget_chatbot()
        return JsonResponse({"AI": (await bot.ask(owner, id, json.loads(request.body)["user_input"])).text})
    memory = await aget_memory()
    if request.method == "DELETE":
        await memory.delete(owner, id)
        return HttpResponse(status=204)
    return JsonResponse({"messages": [[message.role, message.text] for message in await memory.tail(owner, id)]})


@json_errors
async def astream(request, id):
    owner, bot = owner_of(await request.auser()), await aget_chatbot()
    running = await bot.start(owner, id, request.GET["text"])
    return event_stream(running.events())


@json_errors
async def atitled(request, id):
    owner, chats = owner_of(await request.auser()), await aget_titled_chats()
    return await atitled_reply(request, await chats.go_on(owner, id, json.loads(request.body)["user_input"]))
