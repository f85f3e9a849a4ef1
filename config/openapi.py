"""The OpenAPI document: what Ninja derives from the endpoints, and every way they can fail."""

import json
from typing import Any

from ninja import NinjaAPI

from accounts.callers import BalanceJwt, BearerJwt, SenderJwt, StaffJwt
from config.problems import CONTENT_TYPE, ERRORS_MAX, PROBLEMS, RETRY_AFTER_SECONDS, Problem

Document = dict[str, Any]

TAGS = [
    {"name": "accounts", "description": "Registration, login, balance and the account itself."},
    {"name": "messages", "description": "Sending messages and fetching responses."},
    {"name": "conversations", "description": "Conversations, and what was said in them."},
    {"name": "staff", "description": "What only staff may do."},
    {"name": "audit", "description": "For auditors: the log, and the proof of it. Staff only."},
    {"name": "operators", "description": "For whoever runs this service."},
]
#: What reading a JSON body can lead to.
BODY_STATUSES = ("400", "413", "415", "422")
#: Ninja names a scheme for its class.
_STAFF_SCHEME = StaffJwt.__name__
_OTHER_SCHEMES = (_STAFF_SCHEME, SenderJwt.__name__, BalanceJwt.__name__)
_METHODS = ("get", "post", "put", "patch", "delete")


def make_document(api: NinjaAPI) -> Document:
    """Return the whole document, the same for every caller."""
    document: Document = json.loads(json.dumps(api.get_openapi_schema(path_prefix="")))
    document.pop("servers")
    document["tags"] = TAGS
    # One scheme for the reader: the same JWT in the same header, whoever may use it.
    for scheme in _OTHER_SCHEMES:
        document["components"]["securitySchemes"].pop(scheme, None)
    for path in document["paths"].values():
        for method in _METHODS:
            if method in path:
                path[method] = _with_failures(method, path[method])
    used = {
        status
        for path in document["paths"].values()
        for operation in path.values()
        for status in operation["responses"]
        if int(status) >= 400
    }
    components = document["components"]
    components["schemas"] |= {"Problem": PROBLEM_SCHEMA}
    components["schemas"] = dict(sorted(components["schemas"].items()))
    components["responses"] = {f"Problem{status}": _response(status) for status in sorted(used)}
    return document


def dump_document(document: Document) -> str:
    """Return the document as the file in the repository holds it."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _with_failures(method: str, operation: Document) -> Document:
    statuses = {status for status in operation["responses"] if int(status) >= 400}
    if "security" in operation:
        statuses.add("401")
        if {_STAFF_SCHEME: []} in operation["security"]:
            statuses.add("403")
        operation = operation | {"security": [{BearerJwt.__name__: []}]}
    if "requestBody" in operation:
        statuses.update(BODY_STATUSES)
    elif method != "get":
        # Nobody reads a body here, and one that is too large is refused all the same.
        statuses.add("413")
    for parameter in operation["parameters"]:
        _leave_out_null(parameter["schema"])
        if parameter["in"] != "path":
            statuses.add("422")
    if operation["operationId"] != "check_liveness":
        statuses.add("503")
    failures = {status: {"$ref": f"#/components/responses/Problem{status}"} for status in statuses}
    responses = operation["responses"] | failures
    return operation | {"responses": dict(sorted(responses.items()))}


def _leave_out_null(schema: Document) -> None:
    # A parameter that may be left out has no way to say null, whatever its Python type is.
    if "anyOf" in schema:
        (only,) = (kind for kind in schema.pop("anyOf") if kind["type"] != "null")
        schema.update(only)


def _response(status: str) -> Document:
    kinds = [problem for problem in PROBLEMS.values() if problem.status == int(status)]
    response: Document = {
        "description": " / ".join(f"{kind.title} (`{kind.type}`)" for kind in kinds),
        "content": {
            CONTENT_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {kind.slug: {"value": _example(kind)} for kind in kinds},
            }
        },
    }
    if status == "401":
        response["headers"] = {"WWW-Authenticate": _header("string", "RFC 6750", "Bearer")}
    elif status == "429":
        response["headers"] = {
            "Retry-After": _header("integer", "seconds", 42)
        } | RATE_LIMIT_HEADERS
    elif status == "503":
        response["headers"] = {"Retry-After": _header("integer", "seconds", RETRY_AFTER_SECONDS)}
    return response


def _header(kind: str, description: str, example: str | int) -> Document:
    return {"description": description, "schema": {"type": kind}, "example": example}


RATE_LIMIT_HEADERS: Document = {
    "RateLimit-Policy": _header(
        "string", "the limit: `q` times in `w` seconds", '"send";q=600;w=60'
    ),
    "RateLimit": _header("string", "`r` times are left for `t` seconds", '"send";r=0;t=42'),
}


def _example(problem: Problem) -> Document:
    example: Document = {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.meaning,
        "instance": "/send/",
        "request_id": "0f8fad5bd9cb469fa16570867728950e",
    }
    if problem.status == 422:
        example["errors"] = [{"loc": ["body", "message"], "msg": "Field required"}]
    return example


PROBLEM_SCHEMA: Document = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {
            "type": "string",
            "format": "uri-reference",
            "description": "the page about this kind of problem",
            "enum": [problem.type for problem in PROBLEMS.values()],
        },
        "title": {"type": "string", "description": "the kind of problem, in words"},
        "status": {"type": "integer", "description": "the HTTP status"},
        "detail": {"type": "string", "description": "what happened this time"},
        "instance": {"type": "string", "format": "uri-reference", "description": "where"},
        "request_id": {"type": "string", "description": "the X-Request-ID of this answer"},
        "errors": {
            "type": "array",
            "description": "with a 422: what is wrong in the input",
            "maxItems": ERRORS_MAX,
            "items": {
                "type": "object",
                "required": ["loc", "msg"],
                "properties": {
                    "loc": {
                        "type": "array",
                        "description": "where in the request",
                        "items": {"type": ["string", "integer"]},
                    },
                    "msg": {"type": "string", "description": "why"},
                },
            },
        },
    },
}
