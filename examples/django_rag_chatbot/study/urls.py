from chats.views import ChatsView, ChatView
from django.contrib import admin
from django.urls import include, path
from rest_framework.authtoken.views import obtain_auth_token

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/login/", obtain_auth_token),
    path("api/session/", include("rest_framework.urls")),
    path("api/chats/", ChatsView.as_view()),
    path("api/chats/<str:chat_id>/", ChatView.as_view()),
]
