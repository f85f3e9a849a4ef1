"""Which of these tests the run on PostgreSQL leaves to the other run."""

import os

# They start processes with a profile of their own, or need none: once is enough.
if os.environ.get("CHATLEDGER_TEST_PROFILE") == "full":
    collect_ignore = [
        "test_commands.py",
        "test_environment.py",
        "test_keyfile.py",
        "test_logs.py",
        "test_missing_database.py",
        "test_metrics.py",
        "test_serving.py",
    ]
