"""The library's own test cases for an application recorder, run as they are on this database."""

import unittest

from django.test import TransactionTestCase
from eventsourcing.persistence import ApplicationRecorder
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
)

from eventstore.recorder import LogRecorder, SnapshotRecorder

#: What of the library's cases does not apply to this log, and why.
NOT_APPLICABLE = {
    "AggregateRecorderTestCase for the log": "it wants insert_events() to return None, and the log"
    " returns positions; the snapshots, which have none, pass it below",
    "TrackingRecorderTestCase, ProcessRecorderTestCase": "projections keep their positions beside"
    " their rows; there is no tracking recorder",
    "InfrastructureFactoryTestCase": "it builds recorders out of environment variables, which this"
    " log refuses to listen to",
}


class DatabaseCase(TransactionTestCase):
    reset_sequences = True


class TestLog(ApplicationRecorderTestCase[LogRecorder], DatabaseCase):
    def create_recorder(self) -> LogRecorder:
        return LogRecorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestPositions(NonInterleavingNotificationIDsBaseCase, DatabaseCase):
    def create_recorder(self) -> ApplicationRecorder:
        return LogRecorder()


class TestSnapshots(AggregateRecorderTestCase, DatabaseCase):
    def create_recorder(self) -> SnapshotRecorder:
        return SnapshotRecorder()


# Collected by name, the library's abstract cases would run without a recorder.
del ApplicationRecorderTestCase, AggregateRecorderTestCase, NonInterleavingNotificationIDsBaseCase
assert issubclass(TestLog, unittest.TestCase)
