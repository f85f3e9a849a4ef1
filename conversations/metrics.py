"""What sending counts: what became of each send, what is generated now, who follows."""

from prometheus_client import Counter, Gauge, Histogram

from accounts.domain import AccountDeactivated, InsufficientTokens
from conversations.commands import ConversationNotFound, IdempotencyKeyReused
from eventstore.database import CONNECTION_ERRORS, StoreUnavailable

#: Why a send is refused, and how its outcome is called: the status that the client gets.
REFUSALS: dict[type[Exception], str] = {
    InsufficientTokens: "refused_402",
    AccountDeactivated: "refused_401",
    ConversationNotFound: "refused_404",
    IdempotencyKeyReused: "refused_422",
    StoreUnavailable: "unavailable_503",
    **dict.fromkeys(CONNECTION_ERRORS, "unavailable_503"),
}

SENDS = Counter("chatledger_sends", "Sends that came as far as the log, by outcome.", ["outcome"])
ACCEPTED = SENDS.labels("accepted")
REPEATED = SENDS.labels("repeated")
ERROR = SENDS.labels("error_500")
REFUSED = {kind: SENDS.labels(outcome) for kind, outcome in REFUSALS.items()}

GENERATING = Gauge("chatledger_generating", "Messages that this process's workers are at.")
GENERATION_SECONDS = Histogram(
    "chatledger_generation_seconds",
    "How long a worker is at a message.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
WORKER_THREADS = Gauge(
    "chatledger_worker_threads", "Messages that this process's workers can be at at a time."
)


def send_refused(error: Exception) -> None:
    """Count a send that was not accepted."""
    kinds = (kind for kind in type(error).__mro__ if kind in REFUSED)
    REFUSED.get(next(kinds, Exception), ERROR).inc()
