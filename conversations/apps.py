from django.apps import AppConfig


class ConversationsConfig(AppConfig):
    name = "conversations"

    def ready(self) -> None:
        # The log can only be read by a process that knows the events.
        import conversations.domain  # noqa: F401
