"""The turn: a chatbot over a store and a model."""

from daram.chat.chatbot import Chatbot
from daram.chat.events import TERMINAL, Event, EventLog, EventType, MemoryEventLog
from daram.chat.running import Running

__all__ = ["TERMINAL", "Chatbot", "Event", "EventLog", "EventType", "MemoryEventLog", "Running"]
