"""The independent checker: the log by plain SQL, the API over HTTP, the clients' own journals.

It shares no code with the application. The numbers are those of the guarantees: 1 to 4, 7, 9 and 13
in the log, 5 and 6 against the journals, 8 by a fresh replay, and by what the API shows of every
user against what the log says of them.
"""

from tests.faults.api_check import api_violations
from tests.faults.journal import Journal
from tests.stack.ledger_check import Ledger
from tests.stack.services import Service


def check(service: Service, *journals: Journal) -> Ledger:
    """Wait until everything is at rest, and fail with each violation of an invariant."""
    ledger = service.at_rest()
    found = [line for journal in journals for line in journal.violations(ledger)]
    texts = {key: text for journal in journals for key, text in journal.texts.items()}
    found += api_violations(ledger, service.users, texts)
    assert not found, "\n".join(found)
    return ledger
