"""Management commands beside a running service, and what it makes of them at the next request."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.stack.client import PASSWORD, User
from tests.stack.services import Service

AT_ONCE = 3
SENDS = 20


def manage(service: Service, *command: str) -> subprocess.CompletedProcess[str]:
    return service.run("manage.py", *command)


def done(service: Service, *command: str) -> str:
    """What a command says that succeeds."""
    result = manage(service, *command)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_a_grant_in_a_shell_can_be_spent_with_the_next_request(service: Service) -> None:
    alice = service.user("grantee")
    while alice.send("hello", prefer="respond-async").status_code == 202:
        pass
    assert alice.send("hello").status_code == 402
    said = done(service, "grant_tokens", "grantee", "100", "--reason", "a canary reason")
    assert said == f"grantee ({alice.id}): 100 tokens granted, the balance is 100\n"
    assert alice.send("hello").status_code == 201
    assert alice.tokens() == 0
    service.at_rest()


def test_one_key_in_several_shells_at_once_is_one_grant(service: Service) -> None:
    alice = service.user("once")
    command = ("grant_tokens", "once", "7", "--reason", "x", "--key", "once")

    with ThreadPoolExecutor(AT_ONCE + 1) as pool:
        shells = [pool.submit(done, service, *command) for _ in range(AT_ONCE)]
        sends = [
            pool.submit(alice.send, "hello", prefer="respond-async").result() for _ in range(SENDS)
        ]
        said = sorted(shell.result() for shell in shells)

    assert {sent.status_code for sent in sends} == {202}
    assert ["granted before" in line for line in said] == [False] + [True] * (AT_ONCE - 1)
    assert alice.tokens() == 4000 + 7 - SENDS * 100
    service.at_rest()


def test_a_role_set_in_a_shell_counts_with_the_next_request(service: Service) -> None:
    ann, ben = service.user("ann"), service.user("ben")
    grants = f"/users/{ben.id}/grants/"
    gift = {"amount": 5, "reason": "x"}
    assert ann.post(grants, gift).status_code == 403
    assert done(service, "set_role", "Ann", "staff") == f"Ann ({ann.id}) is now staff\n"
    assert ann.post(grants, gift).status_code == 201
    assert ben.tokens() == 4005
    done(service, "set_role", ann.id, "member")
    assert ann.post(grants, gift).status_code == 403


def test_a_deactivated_user_is_out_and_old_jwts_stay_void(service: Service) -> None:
    boss, carl = service.user("boss"), service.user("carl")
    done(service, "set_role", "boss", "staff")
    pending = carl.send("hello", prefer="respond-async").json()["id"]
    assert boss.post(f"/users/{carl.id}/deactivate/").status_code == 204
    assert carl.get("/token/").status_code == 401
    assert carl.send("hello").status_code == 401
    assert _log_in(service, "carl").status_code == 401
    assert boss.post(f"/users/{carl.id}/activate/").status_code == 204
    assert carl.get("/token/").status_code == 401
    again = User(service.url, "carl", carl.id, _log_in(service, "carl").json()["token"])
    service.at_rest()
    assert again.message(pending)["status"] == "done"
    assert again.tokens() == 3900


def test_a_shell_that_is_refused_says_so_in_one_line(service: Service) -> None:
    result = manage(service, "grant_tokens", "no-one", "5", "--reason", "x")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "CommandError: there is no user 'no-one'\n"


def _log_in(service: Service, name: str) -> httpx.Response:
    body = {"username": name, "password": PASSWORD}
    return httpx.post(f"{service.url}/users/login/", json=body, timeout=30)
