"""What the page posts."""

from django import forms


class MessageForm(forms.Form):
    user = forms.CharField(max_length=40)
    text = forms.CharField(max_length=500)
    key = forms.UUIDField(required=False)
