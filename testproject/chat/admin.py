"""Messages in the admin, beside the history of events that the package brings."""

from django.contrib import admin

from chat.models import Message


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    list_display = ["id", "created", "author", "text"]
    search_fields = ["author", "text"]
