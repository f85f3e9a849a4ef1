"""Why a dump is not made or not loaded. Each text is the one line that says so."""


class DumpRefused(Exception):
    """It is not made or not loaded; nothing was changed."""


class DumpDamaged(DumpRefused):
    """The dump is cut short, altered, or none at all."""


class LogNotEmpty(DumpRefused):
    """There is something in the log that a load would mix with."""


class DatabaseInUse(DumpRefused):
    """Another process is in the database that a log was to be loaded into."""
