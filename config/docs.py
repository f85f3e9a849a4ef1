"""The API's documentation in a browser: the OpenAPI document, and Swagger from our own disk."""

import functools
import hashlib
from pathlib import Path

import ninja
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.shortcuts import render
from django.views.decorators.http import require_safe

from config.api import api
from config.openapi import dump_document, make_document
from config.problems import NOT_FOUND, problem_response

ASSETS_DIR = Path(ninja.__file__).parent / "static" / "ninja"
#: Served from Ninja's package, so neither `collectstatic` nor a CDN is needed.
ASSET_TYPES = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui-init.js": "text/javascript; charset=utf-8",
    "favicon.png": "image/png",
}
#: A browser asks again after this, and is told when nothing has changed.
ASSET_MAX_AGE_SECONDS = 3600


@require_safe
async def docs(request: HttpRequest) -> HttpResponse:
    """Show Swagger."""
    return render(request, "config/docs.html")


@require_safe
async def openapi_json(request: HttpRequest) -> HttpResponse:
    """Serve the OpenAPI document."""
    return HttpResponse(openapi_text(), content_type="application/json; charset=utf-8")


@require_safe
async def asset(request: HttpRequest, name: str) -> HttpResponse:
    """Serve one of Swagger's files."""
    if name not in ASSET_TYPES:
        return problem_response(request, NOT_FOUND)
    content, etag = _asset(name)
    headers = {"ETag": etag, "Cache-Control": f"public, max-age={ASSET_MAX_AGE_SECONDS}"}
    if request.META.get("HTTP_IF_NONE_MATCH") == etag:
        return HttpResponseNotModified(headers=headers)
    return HttpResponse(content, content_type=ASSET_TYPES[name], headers=headers)


@functools.cache
def openapi_text() -> str:
    """Return the OpenAPI document; it is made once."""
    return dump_document(make_document(api))


@functools.cache
def _asset(name: str) -> tuple[bytes, str]:
    content = (ASSETS_DIR / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
