"""What the API shows of each user, against what the log says of them."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx

from tests.stack.client import TIMEOUT_SECONDS, User
from tests.stack.ledger_check import ENDS, Ledger, Line

SIGNS = {"TokensGranted": 1, "TokensDebited": -1, "TokensRefunded": 1}
STATUSES = {
    "ResponseGenerated": "done",
    "ResponseFailed": "failed",
    "ResponseCancelled": "cancelled",
}
#: What in the log makes a JWT void that was issued before.
VOIDS = ("PasswordChanged", "JwtsRevoked", "UserDeactivated", "UserErased")
PAGE_ITEMS = 1000
PAGES_MAX = 100
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")


def api_violations(
    ledger: Ledger, users: Iterable[User], texts: Mapping[str, str] | None = None
) -> list[str]:
    """Each difference between the API's answers and the log; `texts` are known by message id."""
    found = []
    with httpx.Client(verify=False, timeout=TIMEOUT_SECONDS) as client:
        for user in users:
            shown = _Shown(client, user)
            lines = [line for line in ledger.lines if line.stream == user.id]
            if shown.status("/users/me/") == 401:
                if not any(line.kind in VOIDS for line in lines):
                    found.append(f"api: {user.name} is refused without a reason in the log")
                continue
            found += [
                f"api: {user.name}: {each}"
                for each in _differences(shown, ledger, lines, texts or {})
            ]
    return found


class _Shown:
    """What one user is shown."""

    def __init__(self, client: httpx.Client, user: User) -> None:
        self.user = user
        self._client = client
        self._headers = {"Authorization": f"Bearer {user.jwt}"}

    def status(self, path: str) -> int:
        return self._get(self.user.url + path).status_code

    def one(self, path: str) -> Any:
        answer = self._get(self.user.url + path)
        assert answer.status_code == 200, f"{path} for {self.user.name}: {answer.text}"
        return answer.json()

    def all(self, path: str) -> list[dict[str, Any]]:
        """Every item of a list, page by page."""
        url = f"{self.user.url}{path}?limit={PAGE_ITEMS}"
        items: list[dict[str, Any]] = []
        for _ in range(PAGES_MAX):
            answer = self._get(url)
            assert answer.status_code == 200, f"{url} for {self.user.name}: {answer.text}"
            items += answer.json()
            if "next" not in answer.links:
                return items
            url = str(answer.url.join(answer.links["next"]["url"]))
        raise AssertionError(f"{path} has more than {PAGES_MAX} pages")

    def _get(self, url: str) -> httpx.Response:
        return self._client.get(url, headers=self._headers)


def _differences(
    shown: _Shown, ledger: Ledger, lines: list[Line], texts: Mapping[str, str]
) -> list[str]:
    return [
        *_difference("tokens", shown.one("/token/")["tokens"], ledger.balance_of(shown.user.id)),
        *_difference("statement", _statement_shown(shown), _statement_due(lines)),
        *_conversations(shown, ledger, texts),
    ]


def _difference(what: str, shown: Any, due: Any) -> list[str]:
    return [] if shown == due else [f"{what} shows {shown} where the log says {due}"]


def _statement_shown(shown: _Shown) -> list[Any]:
    entries = shown.all("/token/statement/")
    return [
        (e["entry"], e["kind"], e["amount"], e["balance"], e["message_id"], _instant(e["at"]))
        for e in reversed(entries)
    ]


def _statement_due(lines: list[Line]) -> list[Any]:
    entries: list[Any] = []
    balance = 0
    for line in lines:
        if line.kind in SIGNS:
            amount = line.data["amount"]
            balance += SIGNS[line.kind] * amount
            kind = line.kind.removeprefix("Tokens").lower()
            message_id = line.data.get("message_id")
            entries.append((len(entries) + 1, kind, amount, balance, message_id, line.at))
    return entries


def _conversations(shown: _Shown, ledger: Ledger, texts: Mapping[str, str]) -> list[str]:
    user_id = shown.user.id
    started = {line.stream: line for line in ledger.of("ConversationStarted")}
    deleted = {line.stream for line in ledger.of("ConversationDeleted")}
    mine = {
        stream
        for stream, line in started.items()
        if line.data["user_id"] == user_id and stream not in deleted
    }
    listed = {each["id"] for each in shown.all("/conversations/")}
    found = _difference("conversations", sorted(listed), sorted(mine))
    ends = {line.stream: line for line in ledger.of(*ENDS)}
    sent = [line for line in ledger.of("MessageSent") if line.data["user_id"] == user_id]
    for conversation_id in sorted(listed & mine):
        items = shown.all(f"/conversations/{conversation_id}/messages/")
        due = [
            _message_due(line, ends[line.stream])
            for line in sent
            if line.data["conversation_id"] == conversation_id
        ]
        found += _difference(f"history of {conversation_id}", list(map(_message_shown, items)), due)
        for item in items:
            found += _difference(
                f"the text of {item['id']}", item["message"], texts.get(item["id"], item["message"])
            )
            if item["status"] != "cancelled" and (item["response"] is None) == (
                item["status"] == "done"
            ):
                found.append(f"{item['id']} is {item['status']}: {item['response']!r}")
    for line in sent:
        gone = line.data["conversation_id"] in deleted
        if gone and (status := shown.status(f"/messages/{line.stream}/")) != 404:
            found.append(f"{line.stream} of a deleted conversation answers {status}")
    return found


def _message_shown(item: dict[str, Any]) -> Any:
    times = _instant(item["created_at"]), _instant(item["responded_at"])
    return (item["id"], item["conversation_id"], item["status"], item["cost"], *times)


def _message_due(sent: Line, end: Line) -> Any:
    status = STATUSES[end.kind]
    return (
        sent.stream,
        sent.data["conversation_id"],
        status,
        end.data["cost"],
        sent.at,
        end.at,
    )


def _instant(text: str | None) -> int | None:
    """Microseconds since 1970, as the log has them."""
    if text is None:
        return None
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)
