"""A hundred or two of the requests that `make fuzz` makes 20,000 of."""

from tests.attacks.fuzz import Fuzz
from tests.stack.services import EmbeddedService

EXAMPLES_MAX = 3
SEED = 20261122


def test_requests_made_from_the_document_are_answered_as_it_says(
    service: EmbeddedService,
) -> None:
    fuzz = Fuzz(service, SEED, EXAMPLES_MAX)
    fuzz.run(1)
    assert len({name for name, _ in fuzz.answers}) == len(fuzz.operations)
    assert {status for _, status in fuzz.answers} >= {200, 201, 204, 401, 404, 422}
