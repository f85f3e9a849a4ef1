from django.apps import AppConfig


class EventstoreConfig(AppConfig):
    name = "eventstore"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # The log can only be read by a process that knows the events.
        import eventstore.rotation  # noqa: F401
        from eventstore import keys, notifications

        notifications.on(keys.DESTROYED_CHANNEL, lambda _: keys.forget())
