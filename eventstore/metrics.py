"""What the log counts of itself: the commits of this process's shared writer."""

from prometheus_client import Counter, Gauge, Histogram

COMMIT_SECONDS = Histogram(
    "chatledger_commit_seconds",
    "How long the commits of the shared writer take.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
COMMIT_JOBS = Histogram(
    "chatledger_commit_jobs",
    "How many appends share a commit.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
COMMIT_FAILURES = Counter(
    "chatledger_commit_failures", "Commits that failed, or whose fate is unknown."
)
COMMIT_QUEUE = Gauge("chatledger_commit_queue_jobs", "Appends that wait for the shared writer.")
