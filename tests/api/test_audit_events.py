"""`GET /audit/events/`"""

from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

from audit import feed
from eventstore.models import EventRecord
from eventstore.reading import max_position
from tests.api.auditing import sealed
from tests.api.client import Api, User, assert_problem, places

PATH = "/audit/events/"
DEBITED = "chatledger.accounts.TokensDebited"


def read(api: Api, staff: User, **query: Any) -> httpx.Response:
    page = api.get(PATH, staff, params=query)
    assert page.status_code == 200, page.text
    assert page.headers["content-type"] == "application/cloudevents-batch+json"
    return page


def follow(api: Api, staff: User, **query: Any) -> list[list[dict[str, Any]]]:
    """All pages, from the first one along their links."""
    pages, page = [], read(api, staff, **query)
    while True:
        pages.append(page.json())
        if "next" not in page.links:
            return pages
        link = page.links["next"]["url"]
        page = read(api, staff, **{k: v[0] for k, v in parse_qs(urlsplit(link).query).items()})
        assert len(pages) <= max_position()


def positions(events: list[dict[str, Any]]) -> list[int]:
    return [event["position"] for event in events]


def test_events_come_in_order_as_cloudevents(api: Api, staff: User) -> None:
    before = max_position()
    sent = api.send(staff, "hello canary")
    message_id = sent.headers["location"].split("/")[2]
    events = read(api, staff, after=before).json()
    assert positions(events) == list(range(before + 1, max_position() + 1))
    (debited,) = (event for event in events if event["type"] == DEBITED)
    record = EventRecord.objects.get(position=debited["position"])
    assert debited == {
        "specversion": "1.0",
        "id": str(record.event_id),
        "source": "urn:chatledger",
        "type": DEBITED,
        "subject": staff.id,
        "time": debited["time"],
        "datacontenttype": "application/json",
        "position": record.position,
        "streamversion": record.version,
        "actor": f"user:{staff.id}",
        "requestid": record.request_id,
        "data": {"amount": 100, "message_id": message_id},
    }


def test_no_personal_text_is_in_them(api: Api, staff: User) -> None:
    before = max_position()
    somebody = api.new_user("canary-the-user")
    api.post("/conversations/", {"title": "canary title"}, somebody)
    api.send(somebody, "canary message")
    text = read(api, staff, after=before, limit=1000).text
    assert DEBITED in text
    assert "canary" not in text
    assert '"box"' not in text


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_pages_follow_their_links_to_the_end(api: Api, staff: User, limit: int) -> None:
    start = max_position()
    for _ in range(3):
        api.send(staff, "hello")
    pages = follow(api, staff, after=start, limit=limit)
    found = [position for page in pages for position in positions(page)]
    assert found == list(range(start + 1, max_position() + 1))
    assert all(len(page) == limit for page in pages[:-1])
    assert pages[-1]


def test_behind_the_end_there_is_nothing_and_no_link(api: Api, staff: User) -> None:
    for after in (max_position(), 2**63 - 1):
        page = read(api, staff, after=after)
        assert page.json() == []
        assert "link" not in page.headers


def test_a_type_and_a_subject_choose(api: Api, staff: User, alice: User, bob: User) -> None:
    start = max_position()
    for user in (alice, bob, alice):
        api.send(user, "hello")
    of_alice = follow(api, staff, after=start, subject=alice.id, limit=1)
    assert [event["type"] for page in of_alice for event in page] == [DEBITED, DEBITED]
    debits = [event for page in follow(api, staff, after=start, type=DEBITED) for event in page]
    assert [event["subject"] for event in debits] == [alice.id, bob.id, alice.id]
    both = read(api, staff, after=start, type=DEBITED, subject=bob.id).json()
    assert [event["subject"] for event in both] == [bob.id]
    assert read(api, staff, type="no.such.Topic").json() == []
    assert read(api, staff, subject=uuid4()).json() == []


def test_one_request_looks_through_so_many_events_and_no_more(
    api: Api, staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOOKED_THROUGH_MAX", 4)
    start = max_position()
    for _ in range(4):
        api.send(staff, "hello")
    log = [event for page in follow(api, staff, after=start) for event in page]
    pages = follow(api, staff, after=start, type=DEBITED, limit=1)
    found = [event for page in pages for event in page]
    assert found == [event for event in log if event["type"] == DEBITED]
    assert len(found) == 4
    for page in follow(api, staff, after=start, type=DEBITED):
        assert len(page) <= 2  # a send takes at least three events
    nothing = follow(api, staff, after=start, type="no.such.Topic")
    assert nothing == [[]] * (len(log) // 4 + 1)


def test_a_row_that_is_no_event_stands_in_its_place(api: Api, staff: User) -> None:
    api.send(staff, "hello")
    position = sealed() - 1  # nothing that runs beside this reads the row any more
    record = EventRecord.objects.filter(position=position)
    data = record.get().data
    record.update(data=b"\xff")
    try:
        first, second = read(api, staff, after=position - 1).json()
    finally:
        record.update(data=data)
    assert first == {
        "specversion": "1.0",
        "id": f"unreadable-{position}",
        "source": "urn:chatledger",
        "type": "chatledger.audit.Unreadable",
        "position": position,
    }
    assert second["position"] == position + 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("limit", ["0", "-1", "1001", "ten", "", "9" * 5_000]),
        ("after", ["-1", str(2**63), "ten", "", "1.5", "9" * 5_000, "1 OR 1=1"]),
        ("type", ["", "\0", "a b", "x" * 201, "' OR 1=1 --", "é"]),
        ("subject", ["", "alice", "\0", "1", "' OR 1=1 --"]),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(
    api: Api, staff: User, name: str, values: list[str]
) -> None:
    for value in values:
        answer = api.get(PATH, staff, params={name: value})
        assert places(assert_problem(answer, 422, "invalid-input")) == [["query", name]]


def test_it_is_for_staff(api: Api, alice: User) -> None:
    assert_problem(api.get(PATH, alice), 403, "staff-only")
    assert_problem(api.get(PATH), 401, "not-authenticated")


def test_the_document_says_how_far_a_request_looks(api: Api) -> None:
    operation = api.get("/openapi.json").json()["paths"][PATH]["get"]
    assert f"{feed.LOOKED_THROUGH_MAX:,} events at most" in operation["description"]
    assert list(operation["responses"]["200"]["content"]) == ["application/cloudevents-batch+json"]
