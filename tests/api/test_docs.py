"""`/docs`, `/openapi.json` and the document in the repository."""

import json
import re
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from jsonschema import Draft202012Validator

from config.management.commands import export_openapi
from tests.api.client import Api

ERRORS = {
    "register_user": {"400", "409", "413", "415", "422", "429", "503"},
    "log_in": {"400", "401", "413", "415", "422", "429", "503"},
    "list_users": {"401", "422", "503"},
    "get_own_account": {"401", "503"},
    "change_password": {"400", "401", "413", "415", "422", "429", "503"},
    "log_out": {"401", "413", "503"},
    "get_token_balance": {"401", "404", "422", "503"},
    "get_statement": {"401", "422", "503"},
    "send_message": {"400", "401", "402", "404", "413", "415", "422", "429", "502", "503"},
    "get_message": {"401", "404", "503"},
    "list_conversations": {"401", "422", "503"},
    "start_conversation": {"400", "401", "413", "415", "422", "503"},
    "get_conversation": {"401", "404", "503"},
    "rename_conversation": {"400", "401", "404", "413", "415", "422", "503"},
    "delete_conversation": {"401", "404", "413", "503"},
    "list_messages": {"401", "404", "422", "503"},
    "send_message_to_conversation": {
        *("400", "401", "402", "404", "413", "415", "422", "429", "502", "503")
    },
    "stream_message": {"401", "404", "422", "429", "503"},
    "cancel_message": {"401", "404", "413", "503"},
    "grant_tokens": {"400", "401", "403", "404", "413", "415", "422", "503"},
    "deactivate_user": {"400", "401", "403", "404", "413", "415", "422", "503"},
    "activate_user": {"400", "401", "403", "404", "413", "415", "422", "503"},
    "export_own_data": {"401", "429", "503"},
    "erase_own_account": {"400", "401", "413", "415", "422", "429", "503"},
    "export_user_data": {"401", "403", "404", "429", "503"},
    "erase_user": {"401", "403", "404", "413", "503"},
    "list_events": {"401", "403", "422", "503"},
    "prove_event": {"401", "403", "404", "503"},
    "list_checkpoints": {"401", "403", "422", "503"},
    "list_seal_keys": {"401", "403", "503"},
    "check_liveness": set(),
    "check_readiness": {"503"},
}
PUBLIC = {"register_user", "log_in", "check_liveness", "check_readiness"}


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    answer = api.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    served: dict[str, Any] = answer.json()
    return served


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
    }


def test_the_document_in_the_repository_is_the_served_one(api: Api) -> None:
    assert export_openapi.FILE.read_text(encoding="utf-8") == api.get("/openapi.json").text
    call_command("export_openapi", check=True)


def test_a_document_that_differs_is_noticed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "openapi.json"
    monkeypatch.setattr(export_openapi, "FILE", file)
    with pytest.raises(CommandError):
        call_command("export_openapi", check=True)
    call_command("export_openapi")
    call_command("export_openapi", check=True)
    file.write_text("{}")
    with pytest.raises(CommandError):
        call_command("export_openapi", check=True)


def test_every_operation_says_how_it_can_fail(document: dict[str, Any]) -> None:
    found = {
        name: {status for status in operation["responses"] if int(status) >= 400}
        for name, operation in operations(document).items()
    }
    assert found == ERRORS


def test_every_operation_but_the_public_ones_takes_a_jwt(document: dict[str, Any]) -> None:
    secured = {name for name, operation in operations(document).items() if "security" in operation}
    assert secured == ERRORS.keys() - PUBLIC
    (scheme,) = document["components"]["securitySchemes"].values()
    assert scheme == {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        target: Any = document
        for part in reference.split("/"):
            target = target[part]


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    checked = 0
    for schema in document["components"]["schemas"].values():
        for field in schema["properties"].values():
            for example in field.get("examples", []):
                Draft202012Validator(field).validate(example)
                checked += 1
    problem = Draft202012Validator(document["components"]["schemas"]["Problem"])
    for response in document["components"]["responses"].values():
        for example in response["content"]["application/problem+json"]["examples"].values():
            problem.validate(example["value"])
            checked += 1
    assert checked > 30


def test_swagger_comes_from_our_own_disk(api: Api) -> None:
    page = api.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) >= 4
    for address in addresses:
        assert address.startswith("/")
        asset = api.get(address)
        assert asset.status_code == 200
        assert len(asset.content) > 500


def test_an_asset_that_has_not_changed_is_not_sent_again(api: Api) -> None:
    first = api.get("/docs/assets/swagger-ui-bundle.js")
    assert "max-age" in first.headers["cache-control"]
    headers = {"If-None-Match": first.headers["etag"]}
    again = api.get("/docs/assets/swagger-ui-bundle.js", headers=headers)
    assert again.status_code == 304
    assert again.content == b""


@pytest.mark.parametrize("name", ["x.js", "..%2f..%2fsettings.py", "redoc.standalone.js", "%00"])
def test_nothing_else_of_the_disk_is_served(api: Api, name: str) -> None:
    assert api.get(f"/docs/assets/{name}").status_code == 404
