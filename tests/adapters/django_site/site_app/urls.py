from django.contrib import admin
from django.urls import path

from site_app import views

urlpatterns = [
    path("word/", views.word),
    path("admin/", admin.site.urls),
    path("chats/", views.chats),
    path("chats/<str:id>/", views.chat),
    path("chats/<str:id>/stream/", views.stream),
    path("achats/<str:id>/", views.achat),
    path("achats/<str:id>/stream/", views.astream),
    path("atitled/<str:id>/", views.atitled),
]
