from django.apps import AppConfig


class NextReleaseConfig(AppConfig):
    """What the next release adds to this one."""

    name = "tests.stack.next_release"
    label = "next_release"

    def ready(self) -> None:
        """Let the history be of a newer version."""
        from projections.history import History

        History.version += 1
