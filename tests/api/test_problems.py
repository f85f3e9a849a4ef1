"""Problem documents, and the pages that their types lead to."""

import html
import logging

import pytest
from pytest_django import Settings

from config.problems import PROBLEMS, Problem
from tests.api.client import Api, User, assert_problem


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_every_type_leads_to_a_page_that_explains_it(api: Api, problem: Problem) -> None:
    page = api.get(problem.type)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    text = html.unescape(page.text)
    for said in (problem.title, problem.meaning, problem.remedy, str(problem.status)):
        assert said in text


def test_there_is_a_page_of_all_pages(api: Api) -> None:
    page = api.get("/problems/").text
    assert all(f'href="{problem.type}"' in page for problem in PROBLEMS.values())


def test_there_is_no_page_about_what_is_no_problem(api: Api) -> None:
    assert_problem(api.get("/problems/no-such-problem/"), 404, "not-found")
    assert_problem(api.get("/problems/<script>/"), 404, "not-found")


@pytest.mark.parametrize("path", ["/", "/nowhere/", "/users/x/", "/static/x.css", "/%00/", "/é/"])
def test_an_unknown_address_is_a_problem(api: Api, path: str) -> None:
    answer = api.get(path)
    if path == "/":
        assert answer.headers["location"] == "/docs"
    else:
        assert_problem(answer, 404, "not-found")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/send", "/send/"),
        ("/users", "/users/"),
        ("/users/register", "/users/register/"),
        ("/docs/", "/docs"),
        ("/openapi.json/", "/openapi.json"),
    ],
)
def test_a_slash_too_few_or_too_many_is_a_problem_that_names_the_address(
    api: Api, settings: Settings, path: str, meant: str, method: str
) -> None:
    for debug in (False, True):
        settings.DEBUG = debug
        problem = assert_problem(api.call(method, path), 404, "not-found")
        assert problem["detail"] == f"Did you mean {meant}?"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/send/", "POST"),
        ("DELETE", "/send/", "POST"),
        ("POST", "/users/", "GET, HEAD"),
        ("PUT", "/users/register/", "POST"),
        ("POST", "/docs", "GET, HEAD"),
        ("POST", "/problems/not-found/", "GET, HEAD"),
        ("OPTIONS", "/token/", "GET, HEAD"),
        ("TRACE", "/token/", "GET, HEAD"),
    ],
)
def test_a_method_that_is_not_there_is_a_problem(
    api: Api, method: str, path: str, allowed: str
) -> None:
    answer = api.call(method, path)
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allowed


def test_what_nobody_foresaw_is_a_problem_that_tells_nothing(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("a secret of ours")

    monkeypatch.setattr("projections.queries.balances", broken)
    with caplog.at_level(logging.ERROR):
        answer = api.http.get("/token/", headers={**alice.headers, "X-Request-ID": "of-alice"})
    problem = assert_problem(answer, 500, "internal-error")
    assert "secret" not in str(problem)
    logged = next(record for record in caplog.records if record.name == "config.api")
    assert "of-alice" in logged.getMessage()
    assert logged.exc_info is not None
