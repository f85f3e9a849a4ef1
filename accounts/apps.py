from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        # The log can only be read by a process that knows the events.
        import accounts.domain
        import accounts.grants  # noqa: F401
