"""`GET /users/`"""

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from tests.api.client import Api, User, assert_problem, places


def test_it_lists_everybody_oldest_first(api: Api, alice: User, bob: User) -> None:
    users = api.get("/users/?limit=1000", bob).json()
    assert [user["username"] for user in users][-2:] == [alice.username, bob.username]
    assert all(user.keys() == {"id", "username", "created_at"} for user in users)
    times = [datetime.fromisoformat(user["created_at"]) for user in users]
    assert times == sorted(times)
    assert times[0].utcoffset() == timedelta(0)


def test_pages_follow_their_links_to_the_end(api: Api, make_user: Callable[[], User]) -> None:
    somebody = [make_user() for _ in range(5)][-1]
    everybody = [user["id"] for user in api.get("/users/?limit=1000", somebody).json()]
    found, path = [], "/users/?limit=2"
    while path:
        page = api.get(path, somebody)
        assert len(page.json()) <= 2
        found += [user["id"] for user in page.json()]
        assert len(found) <= len(everybody)
        path = page.links.get("next", {}).get("url", "")
    assert found == everybody


def test_there_is_no_link_behind_the_last_page(api: Api, alice: User) -> None:
    assert "link" not in api.get("/users/?limit=1000", alice).headers


def test_nobody_stands_behind_somebody_unknown(api: Api, alice: User) -> None:
    problem = assert_problem(api.get(f"/users/?after={uuid4()}", alice), 422, "invalid-input")
    assert places(problem) == [["query", "after"]]


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1e3", "ten", "", "9" * 5_000, "1 OR 1=1"])
def test_a_limit_that_makes_no_sense_is_refused(api: Api, alice: User, limit: str) -> None:
    answer = api.get("/users/", alice, params={"limit": limit})
    assert places(assert_problem(answer, 422, "invalid-input")) == [["query", "limit"]]


@pytest.mark.parametrize("after", ["alice", "1", "", "\0", "' OR 1=1 --", "x" * 5_000])
def test_an_after_that_is_no_id_is_refused(api: Api, alice: User, after: str) -> None:
    answer = api.get("/users/", alice, params={"after": after})
    assert places(assert_problem(answer, 422, "invalid-input")) == [["query", "after"]]


def test_it_takes_a_jwt(api: Api) -> None:
    assert_problem(api.get("/users/"), 401, "not-authenticated")
