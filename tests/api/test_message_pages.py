"""`GET /conversations/{id}/messages/`"""

import threading
from uuid import uuid4

import pytest

from tests.api.client import Api, User, assert_problem, places
from tests.api.test_conversations import start

MESSAGES = 5


class Talk:
    """A conversation of five messages, and pages of it."""

    def __init__(self, api: Api, user: User) -> None:
        self.api = api
        self.user = user
        self.id = start(api, user)
        self.path = f"/conversations/{self.id}/messages/"
        self.ids = [self.say(f"message {number}") for number in range(MESSAGES)]

    def say(self, message: str) -> str:
        answer = self.api.post(self.path, {"message": message}, self.user)
        assert answer.status_code == 201, answer.text
        return str(answer.headers["location"].split("/")[2])

    def page(self, query: str) -> tuple[list[str], dict[str, str]]:
        """The messages of a page, and where its links lead."""
        answer = self.api.get(f"{self.path}{query}", self.user)
        assert answer.status_code == 200, answer.text
        links = {name: link["url"] for name, link in answer.links.items() if name}
        return [message["id"] for message in answer.json()], links

    def link(self, query: str) -> str:
        return f"{self.path}?{query}"


@pytest.fixture
def talk(api: Api, alice: User) -> Talk:
    return Talk(api, alice)


def test_messages_come_in_time_order_and_whole(api: Api, alice: User, talk: Talk) -> None:
    messages = api.get(talk.path, alice).json()
    assert [message["id"] for message in messages] == talk.ids
    assert [message["message"] for message in messages] == [
        f"message {number}" for number in range(MESSAGES)
    ]
    for message in messages:
        assert message == api.get(f"/messages/{message['id']}/", alice).json()
        assert message.keys() == {
            "id",
            "conversation_id",
            "message",
            "response",
            "status",
            "cost",
            "model",
            "created_at",
            "responded_at",
        }
        assert (message["conversation_id"], message["status"]) == (talk.id, "done")


def test_all_on_one_page_needs_no_link(talk: Talk) -> None:
    for query in ("", "?limit=5", "?latest=true", "?latest=true&limit=5"):
        assert talk.page(query) == (talk.ids, {})


def test_the_first_page_leads_to_the_next(talk: Talk) -> None:
    found, links = talk.page("?limit=2")
    assert found == talk.ids[:2]
    assert links == {"next": talk.link(f"limit=2&after={talk.ids[1]}")}


def test_a_page_in_the_middle_leads_both_ways(talk: Talk) -> None:
    found, links = talk.page(f"?limit=2&after={talk.ids[0]}")
    assert found == talk.ids[1:3]
    assert links == {
        "next": talk.link(f"limit=2&after={talk.ids[2]}"),
        "prev": talk.link(f"limit=2&before={talk.ids[1]}"),
    }


def test_a_page_before_a_message_ends_right_before_it(talk: Talk) -> None:
    found, links = talk.page(f"?limit=2&before={talk.ids[4]}")
    assert found == talk.ids[2:4]
    assert links.keys() == {"next", "prev"}
    assert talk.page(f"?limit=2&before={talk.ids[2]}") == (
        talk.ids[:2],
        {"next": talk.link(f"limit=2&after={talk.ids[1]}")},
    )


def test_the_latest_page_leads_back(talk: Talk) -> None:
    found, links = talk.page("?latest=true&limit=2")
    assert found == talk.ids[3:]
    assert links == {"prev": talk.link(f"limit=2&before={talk.ids[3]}")}


@pytest.mark.parametrize(("first", "relation"), [("", "next"), ("&latest=true", "prev")])
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_links_lead_through_all_messages(talk: Talk, first: str, relation: str, limit: int) -> None:
    pages, path = [], f"?limit={limit}{first}"
    while path:
        found, links = talk.page(path)
        pages.append(found)
        path = links.get(relation, "").removeprefix(talk.path)
        assert len(pages) <= MESSAGES
    if relation == "prev":
        pages.reverse()
    assert [message_id for page in pages for message_id in page] == talk.ids


def test_nothing_stands_beyond_the_ends(talk: Talk) -> None:
    assert talk.page(f"?after={talk.ids[-1]}") == ([], {})
    assert talk.page(f"?before={talk.ids[0]}") == ([], {})


def test_what_is_said_later_is_on_the_next_page(talk: Talk) -> None:
    later = talk.say("later")
    assert talk.page(f"?after={talk.ids[-1]}")[0] == [later]


def test_a_conversation_without_messages_is_an_empty_list(api: Api, alice: User) -> None:
    path = f"/conversations/{start(api, alice)}/messages/"
    for query in ("", "?latest=true"):
        answer = api.get(path + query, alice)
        assert (answer.json(), "link" in answer.headers) == ([], False)


def test_a_pending_message_is_listed_as_that(
    api: Api, alice: User, talk: Talk, held: threading.Event
) -> None:
    headers = {"Prefer": "respond-async"}
    api.post(talk.path, {"message": "hold"}, alice, headers=headers)
    (message,) = api.get(f"{talk.path}?latest=true&limit=1", alice).json()
    assert (message["status"], message["response"], message["cost"]) == ("pending", None, 100)


def test_two_places_to_begin_at_are_refused(api: Api, alice: User, talk: Talk) -> None:
    one, other = talk.ids[0], talk.ids[2]
    for query, name in (
        (f"after={one}&before={other}", "before"),
        (f"after={one}&latest=true", "latest"),
        (f"before={one}&latest=true", "latest"),
    ):
        answer = api.get(f"{talk.path}?{query}", alice)
        assert places(assert_problem(answer, 422, "invalid-input")) == [["query", name]]


@pytest.mark.parametrize("name", ["after", "before"])
def test_a_message_that_is_not_in_it_is_no_place_to_begin_at(
    api: Api, alice: User, talk: Talk, name: str
) -> None:
    elsewhere = api.send(alice, "hello").headers["location"].split("/")[2]
    for cursor in (str(uuid4()), elsewhere, talk.id):
        answer = api.get(f"{talk.path}?{name}={cursor}", alice)
        assert places(assert_problem(answer, 422, "invalid-input")) == [["query", name]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "ten"),
        ("after", "x"),
        ("before", ""),
        ("latest", "maybe"),
        ("latest", ""),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(
    api: Api, alice: User, talk: Talk, name: str, value: str
) -> None:
    answer = api.get(talk.path, alice, params={name: value})
    assert places(assert_problem(answer, 422, "invalid-input")) == [["query", name]]


def test_somebody_elses_conversation_is_as_one_that_does_not_exist(
    api: Api, bob: User, talk: Talk
) -> None:
    paths = (talk.path, f"/conversations/{uuid4()}/messages/")
    for query in ("", f"?after={talk.ids[0]}"):
        documents = [assert_problem(api.get(path + query, bob), 404, "not-found") for path in paths]
        for document in documents:
            del document["request_id"], document["instance"]
        assert documents[0] == documents[1]


def test_it_takes_a_jwt(api: Api) -> None:
    assert_problem(api.get(f"/conversations/{uuid4()}/messages/"), 401, "not-authenticated")
