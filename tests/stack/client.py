"""A client as a developer would write one: plain HTTP, a JWT, a connection of its own."""

from dataclasses import dataclass
from typing import Any

import httpx

PASSWORD = "correct horse battery"
TIMEOUT_SECONDS = 60.0
#: Without TLS, so without the certificates: reading them is 23 ms of CPU a request.
OPTIONS: Any = {"timeout": TIMEOUT_SECONDS, "verify": False}


@dataclass
class User:
    """A registered user with a JWT."""

    url: str
    name: str
    id: str
    jwt: str

    def send(
        self, message: str, *, key: str | None = None, prefer: str | None = None
    ) -> httpx.Response:
        headers = {}
        if key is not None:
            headers["Idempotency-Key"] = key
        if prefer is not None:
            headers["Prefer"] = prefer
        return self.post("/send/", {"message": message}, headers)

    def tokens(self) -> int:
        answer = self.get("/token/")
        assert answer.status_code == 200, answer.text
        return int(answer.json()["tokens"])

    def message(self, message_id: str) -> dict[str, Any]:
        answer = self.get(f"/messages/{message_id}/")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=self._headers({}), **OPTIONS)

    def delete(self, path: str, body: Any = None) -> httpx.Response:
        return httpx.request(
            "DELETE",
            self.url + path,
            json=body,
            headers=self._headers({}),
            **OPTIONS,
        )

    def post(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return httpx.post(
            self.url + path,
            json=body,
            headers=self._headers(headers or {}),
            **OPTIONS,
        )

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.jwt}", **more}


def register(url: str, name: str) -> User:
    """Register a user and log in."""
    credentials = {"username": name, "password": PASSWORD}
    registered = httpx.post(f"{url}/users/register/", json=credentials, **OPTIONS)
    assert registered.status_code == 201, registered.text
    logged_in = httpx.post(f"{url}/users/login/", json=credentials, **OPTIONS)
    assert logged_in.status_code == 200, logged_in.text
    return User(url, name, registered.json()["id"], logged_in.json()["token"])
