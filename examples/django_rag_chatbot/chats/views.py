"""The chats of a study service: about a title, answered from its documents or its text.

POST   /api/chats/        {category, title_no, user_input}   201 {id, AI, sources, state}
POST   /api/chats/<id>/   {user_input}                       200 {id, AI, sources, state}
GET    /api/chats/   GET /api/chats/<id>/   DELETE /api/chats/<id>/
"""

from django.utils.decorators import method_decorator
from rest_framework import serializers
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.response import Response
from rest_framework.views import APIView

from daram.adapters.django import get_titled_chats, json_errors, reader_of, titled_reply


class Question(serializers.Serializer):
    user_input = serializers.CharField(max_length=8000)


class FirstQuestion(Question):
    category = serializers.CharField(max_length=64)
    title_no = serializers.CharField(max_length=64)


class JSONOrStream(DefaultContentNegotiation):
    """``Accept: text/event-stream`` is answered by ``titled_reply``; REST framework would refuse it."""

    def select_renderer(self, request, renderers, format_suffix=None):
        return renderers[0], renderers[0].media_type


@method_decorator(json_errors, name="dispatch")
class StudyView(APIView):
    content_negotiation_class = JSONOrStream

    def asked(self, shape):
        question = shape(data=self.request.data)
        question.is_valid(raise_exception=True)
        return question.validated_data


class ChatsView(StudyView):
    def get(self, request):
        return Response(get_titled_chats().list(reader_of(request.user), cursor=request.GET.get("cursor")))

    def post(self, request):
        asked = self.asked(FirstQuestion)
        about = asked["category"], asked["title_no"], asked["user_input"]
        return titled_reply(request, get_titled_chats().begin(reader_of(request.user), *about), status=201)


class ChatView(StudyView):
    def get(self, request, chat_id):
        chats = get_titled_chats()
        return Response(chats.get(reader_of(request.user), chat_id, cursor=request.GET.get("cursor")))

    def post(self, request, chat_id):
        words = self.asked(Question)["user_input"]
        return titled_reply(request, get_titled_chats().go_on(reader_of(request.user), chat_id, words))

    def delete(self, request, chat_id):
        get_titled_chats().delete(reader_of(request.user), chat_id)
        return Response(status=204)
