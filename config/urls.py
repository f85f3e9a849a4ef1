"""Every address of the service; what is none is a problem too, and no redirect."""

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import Resolver404, URLPattern, URLResolver, path, re_path, resolve

from config import docs, problems
from config.api import api
from config.problems import problem_response


async def home(request: HttpRequest) -> HttpResponse:
    """Show a visitor the way to the documentation."""
    return HttpResponseRedirect("/docs")


async def nowhere(request: HttpRequest) -> HttpResponse:
    """Answer 404, and name the address that was probably meant."""
    meant = _meant(request.path)
    detail = f"Did you mean {meant}?" if meant else None
    return problem_response(request, problems.NOT_FOUND, detail)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what Django refuses before any view sees it."""
    return problem_response(request, problems.BAD_REQUEST)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a 404 that a view outside the API raised."""
    return problem_response(request, problems.NOT_FOUND)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a refusal from outside the API."""
    return problem_response(request, problems.FORBIDDEN)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer an error that nothing else caught; Django has logged it."""
    return problem_response(request, problems.INTERNAL_ERROR)


def _meant(tried: str) -> str | None:
    other = tried.rstrip("/") if tried.endswith("/") else f"{tried}/"
    try:
        return other if resolve(other).func is not nowhere else None
    except Resolver404:
        return None


handler400 = bad_request
handler403 = forbidden
handler404 = not_found
handler500 = server_error

urlpatterns: list[URLPattern | URLResolver] = [
    path("", home),
    path("docs", docs.docs),
    path("docs/assets/<str:name>", docs.asset),
    path("openapi.json", docs.openapi_json),
    path("problems/", problems.problem_index),
    path("problems/<slug:slug>/", problems.problem_page),
    path("", api.urls),
    # Last: with it no path is unknown to Django, which would redirect or raise in DEBUG.
    re_path(r"", nowhere),
]
