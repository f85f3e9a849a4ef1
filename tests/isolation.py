"""What a process remembers of a database, forgotten: each test's database is another one."""

from eventstore import keys
from eventstore.log import event_log
from eventstore.marker import appended
from projections import progress


def forget_the_database() -> None:
    """Forget cached aggregates, unwrapped keys, and how far the log and the read models were."""
    event_log.forget()
    keys.forget()
    for marker in (appended, *progress._markers.values()):
        marker._value = 0
