"""`GET /users/me/export/` and `GET /users/{id}/export/`"""

from uuid import uuid4

from tests.api.client import Api, User, assert_problem


def test_it_is_a_file_with_all_that_is_held(api: Api, alice: User) -> None:
    api.post("/conversations/", {"title": "Jokes"}, alice)
    response = api.send(alice, "tell me a joke").json()["response"]
    answer = api.get("/users/me/export/", alice)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"].endswith(f'"chatledger-{alice.id}.json"')
    told = answer.json()
    assert told["user"]["username"] == alice.username
    assert told["user"]["tokens"] == 3900
    (message,) = told["messages"]
    assert (message["message"], message["response"]) == ("tell me a joke", response)
    assert "Jokes" in {conversation["title"] for conversation in told["conversations"]}
    positions = [event["position"] for event in told["events"]]
    assert len(positions) == len(set(positions)) == 8


def test_it_holds_nothing_of_anybody_else(api: Api, alice: User, bob: User) -> None:
    api.send(bob, "something of his own")
    told = api.get("/users/me/export/", alice).text
    assert "something of his own" not in told
    assert bob.id not in told


def test_it_takes_a_jwt(api: Api) -> None:
    assert_problem(api.get("/users/me/export/"), 401, "not-authenticated")


def test_staff_get_it_for_whoever_asks_and_the_log_says_so(
    api: Api, alice: User, staff: User
) -> None:
    api.send(alice, "hello")
    told = api.get(f"/users/{alice.id}/export/", staff).json()
    assert told["user"]["username"] == alice.username
    noted = [event for event in told["events"] if event["type"].endswith("UserExported")]
    assert [event["actor"] for event in noted] == [f"staff:{staff.id}"]
    assert_problem(api.get(f"/users/{uuid4()}/export/", staff), 404, "not-found")


def test_members_get_nobody_elses(api: Api, alice: User, bob: User) -> None:
    assert_problem(api.get(f"/users/{bob.id}/export/", alice), 403, "staff-only")
