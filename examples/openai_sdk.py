"""Everything of `/v1` that OpenAI's own libraries call, once: the SDK (sync, async, streams) and the Agents SDK.

    daram serve     # elsewhere; make a key at /account/keys, or by `daram key create local`
    export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=…
    pip install openai openai-agents
    python examples/openai_sdk.py

It prints a line for each call and deletes what it made.
"""

from __future__ import annotations

import asyncio

from agents import Agent, ModelSettings, OpenAIConversationsSession, OpenAIResponsesModel, Runner, set_tracing_disabled
from openai import AsyncOpenAI, NotFoundError, OpenAI


def say(call: str, what: object) -> None:
    print(f"{call:<42} {str(what)[:90]!r}")


def conversations(client: OpenAI) -> str:
    """Conversations and their items; returns the id of one that stays for now."""
    made = client.conversations.create(metadata={"topic": "squirrels"}, items=[{"role": "user", "content": "One."}])
    say("conversations.create", made.id)
    say("conversations.retrieve", client.conversations.retrieve(made.id).metadata)
    say("conversations.update", client.conversations.update(made.id, metadata={"topic": "다람쥐"}).metadata)
    added = client.conversations.items.create(made.id, items=[{"role": "user", "content": "Two."}])
    say("conversations.items.create", [item.id for item in added.data])
    say("conversations.items.list", len(list(client.conversations.items.list(made.id, order="asc"))))
    last = added.data[-1].id
    assert last is not None
    say("conversations.items.retrieve", client.conversations.items.retrieve(last, conversation_id=made.id).type)
    say("conversations.items.delete", client.conversations.items.delete(last, conversation_id=made.id).id)
    return made.id


def responses(client: OpenAI, model: str, conversation: str) -> None:
    """Answers: at once, streamed, in the background, in a conversation, one after the other."""
    first = client.responses.create(model=model, input="Call the squirrel tuna.", conversation=conversation)
    say("responses.create(conversation=)", first.output_text)
    chained = client.responses.create(model=model, input="Begin a story.")
    say("responses.create", chained.output_text)
    with client.responses.stream(model=model, input="Go on.", previous_response_id=chained.id) as stream:
        deltas = sum(event.type == "response.output_text.delta" for event in stream)
        streamed = stream.get_final_response()
    say("responses.stream(previous_response_id=)", f"{deltas} deltas: {streamed.output_text}")
    later = client.responses.create(model=model, input="Take your time.", background=True)
    *_, last = client.responses.retrieve(later.id, stream=True, starting_after=0)
    say("responses.create(background=True)", f"{later.status}, then {last.type}")
    say("responses.cancel", client.responses.cancel(later.id).status)
    say("responses.retrieve", client.responses.retrieve(streamed.id).status)
    say("responses.input_items.list", len(list(client.responses.input_items.list(streamed.id))))
    say("responses.input_tokens.count", client.responses.input_tokens.count(model=model, input="다람쥐").input_tokens)
    compacted = client.responses.compact(model=model, previous_response_id=streamed.id)
    say("responses.compact", [item.type for item in compacted.output])
    aside = client.responses.create(model=model, input="Keep nothing of this.", store=False)
    try:
        client.responses.retrieve(aside.id)
    except NotFoundError as error:
        say("responses.create(store=False)", error.code)
    for made in (streamed, chained, later):
        client.responses.delete(made.id)
    say("responses.delete", 3)


def completions(client: OpenAI, model: str) -> None:
    """Chat completions: stateless, and kept in a conversation."""
    asked = [{"role": "user", "content": "Hello."}]
    whole = client.chat.completions.create(model=model, messages=asked)
    say("chat.completions.create", whole.choices[0].message.content)
    chunks = client.chat.completions.create(model=model, messages=asked, stream=True)
    say("chat.completions.create(stream=True)", "".join(c.choices[0].delta.content or "" for c in chunks if c.choices))


def files(client: OpenAI, model: str) -> None:
    """Files, a vector store with attributes and filters, a batch, and answers from them."""
    uploaded = client.files.create(
        file=("leave.txt", b"Employees earn two days of paid leave each month."), purpose="assistants"
    )
    say("files.create", client.files.wait_for_processing(uploaded.id).status)
    say("files.list", [file.filename for file in client.files.list(purpose="assistants")])
    say("files.content", client.files.content(uploaded.id).read().decode())
    store = client.vector_stores.create(name="handbook", expires_after={"anchor": "last_active_at", "days": 7})
    say("vector_stores.create", store.status)
    given = client.vector_stores.files.create_and_poll(
        uploaded.id, vector_store_id=store.id, attributes={"year": 2026}, poll_interval_ms=100
    )
    say("vector_stores.files.create_and_poll", given.status)
    batch = client.vector_stores.file_batches.upload_and_poll(
        store.id,
        files=[("menu.txt", b"Lunch is at noon."), ("bus.txt", b"The bus leaves at six.")],
        poll_interval_ms=100,
    )
    say("vector_stores.file_batches.upload_and_poll", batch.file_counts.completed)
    recent = {"type": "gte", "key": "year", "value": 2026}
    found = client.vector_stores.search(store.id, query="How much paid leave?", filters=recent, max_num_results=1)
    say("vector_stores.search(filters=)", [(one.filename, one.attributes) for one in found])
    tool = {"type": "file_search", "vector_store_ids": [store.id], "filters": recent}
    asked = "How many days of paid leave do employees earn each month?"
    answer = client.responses.create(
        model=model, input=asked, tools=[tool], include=["file_search_call.results"], store=False
    )
    say("responses.create(tools=[file_search])", [result.filename for result in answer.output[0].results])
    say("its citations", [note.filename for note in answer.output[-1].content[0].annotations])
    kept = [file.id for file in client.vector_stores.files.list(store.id)]
    say("vector_stores.delete", client.vector_stores.delete(store.id).deleted)
    say("files.delete", [client.files.delete(file).deleted for file in kept])


async def agents(client: AsyncOpenAI, model: str) -> None:
    """The asynchronous SDK, and a session of the Agents SDK that Daram keeps."""
    async with client.responses.stream(model=model, input="Hello.", store=False) as stream:
        say("AsyncOpenAI: responses.stream", (await stream.get_final_response()).output_text)
    set_tracing_disabled(True)
    answers = OpenAIResponsesModel(model=model, openai_client=client)
    # The session keeps what is said: without store=False each answer would be kept by itself as well, as at OpenAI.
    agent = Agent(name="helper", model=answers, model_settings=ModelSettings(store=False))
    session = OpenAIConversationsSession(openai_client=client)
    for said in ("Call the squirrel tuna.", "What do I call the squirrel?"):
        result = await Runner.run(agent, said, session=session)
    say("Agents SDK: OpenAIConversationsSession", f"{len(await session.get_items())} items: {result.final_output}")
    await session.clear_session()
    made = await client.conversations.create()
    result = await Runner.run(Agent(name="helper", model=answers), "Hello.", conversation_id=made.id)
    say("Agents SDK: conversation_id=", result.final_output)
    await client.conversations.delete(made.id)


def main() -> None:
    """Call everything. The base URL and the key are in the environment."""
    client = OpenAI()
    model = next(iter(client.models.list())).id
    say("models.list", model)
    say("models.retrieve", client.models.retrieve(model).id)
    conversation = conversations(client)
    responses(client, model, conversation)
    completions(client, model)
    files(client, model)
    say("conversations.delete", client.conversations.delete(conversation).deleted)
    asyncio.run(agents(AsyncOpenAI(), model))


if __name__ == "__main__":
    main()
