"""Messages as JSON."""

from rest_framework import serializers

from examples.chat.models import Message


class MessageSerializer(serializers.ModelSerializer):
    # Declared, for a key that is known is no error.
    key = serializers.UUIDField(write_only=True, required=False)

    class Meta:
        model = Message
        fields = ["id", "key", "user", "text", "created"]

    def create(self, validated_data):
        return Message.post(**validated_data)

    def to_representation(self, instance):
        # What the event brings as well.
        return instance.as_data()
