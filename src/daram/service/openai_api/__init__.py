"""The door for programs: OpenAI's Conversations and Responses API over the store."""
