"""What is asked of a model, what is said of its response, and what that took."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from conversations.domain import Usage
from conversations.prices import tokens_estimated, tokens_max
from conversations.responders import Stopped, Turn, completion, make_responder
from conversations.responders.completion import Text, joined
from conversations.responders.openai import OpenAiResponder
from devstack.model_scripts import MODEL, chunk, hangs, says, surrogates
from devstack.model_server import ModelServer
from tests.conversations.openai.asking import FINISH, PROMPTLY_SECONDS, Heard, ask, cause, heard


def test_make_responder_knows_openai(server: ModelServer) -> None:
    responder = make_responder()

    assert isinstance(responder, OpenAiResponder)
    assert (responder.model, responder.waits) == (MODEL, True)


def test_pieces_are_said_in_order_as_they_come(server: ModelServer) -> None:
    server.scripts["hello"] = says("Hi", " there", "!", every_seconds=0.15)
    ask("What is imported at the first request is imported now.")
    reply = Heard()

    assert ask("hello", reply) is None

    assert reply.pieces == ["Hi", " there", "!"]
    first, last = reply.times[0], reply.times[-1]
    assert last - first >= 0.25
    assert first < server.requests[-1].delta_times[1]


def test_a_request_holds_the_message_the_model_and_the_limit_and_nothing_else(
    server: ModelServer, settings: Settings
) -> None:
    settings.RESPONSE_TOKENS_MAX = 77

    ask("hello")

    (asked,) = server.requests
    assert asked.body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "max_tokens": 77,
    }
    assert "authorization" not in asked.headers
    assert asked.headers["accept-encoding"] == "identity"


def test_a_connection_is_used_again(server: ModelServer) -> None:
    ask()
    ask()

    # The first was read to its end, so nobody hung up on it.
    assert [asked.client_hung_up for asked in server.requests] == [False, False]


def test_the_system_prompt_comes_first_and_earlier_turns_in_time_order(
    server: ModelServer, settings: Settings
) -> None:
    settings.SYSTEM_PROMPT = "Be brief."
    turns = [Turn("second", "2nd response"), Turn("first", "1st response")]
    reply = Heard()

    ask("third", reply, earlier=lambda: iter(turns))

    messages = server.requests[0].body["messages"]
    assert [(message["role"], message["content"]) for message in messages] == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "1st response"),
        ("user", "second"),
        ("assistant", "2nd response"),
        ("user", "third"),
    ]
    assert reply.prompt_tokens == sum(tokens_estimated(each["content"]) for each in messages)


def test_the_oldest_turns_are_left_out_when_the_context_is_full(
    server: ModelServer, settings: Settings
) -> None:
    settings.SYSTEM_PROMPT = "s" * 30
    looked_at = []

    def earlier() -> Iterator[Turn]:
        for number in range(1000):
            looked_at.append(number)
            yield Turn(f"{number:010d}", "r" * 20)

    turn_tokens = tokens_max("0" * 10) + tokens_max("r" * 20)
    always = tokens_max(settings.SYSTEM_PROMPT) + tokens_max("hello")
    settings.CONTEXT_TOKENS_MAX = always + 3 * turn_tokens

    ask("hello", earlier=earlier)
    settings.CONTEXT_TOKENS_MAX -= 1
    ask("hello", earlier=earlier)

    sent = [[each["content"] for each in asked.body["messages"]] for asked in server.requests]
    three, two = ([text for text in texts if text.startswith("0")] for texts in sent)
    assert three == ["0000000002", "0000000001", "0000000000"]
    assert two == ["0000000001", "0000000000"]
    assert looked_at == [0, 1, 2, 3, 0, 1, 2]


def test_the_system_prompt_and_the_message_are_never_cut(
    server: ModelServer, settings: Settings
) -> None:
    settings.CONTEXT_TOKENS_MAX = 256
    settings.SYSTEM_PROMPT = "s" * 200
    message = "\N{GRINNING FACE}" * 8_000

    ask(message, earlier=lambda: iter([Turn("before", "response")]))

    texts = [each["content"] for each in server.requests[0].body["messages"]]
    assert texts == [settings.SYSTEM_PROMPT, message]


def test_forty_responses_are_generated_at_once_on_one_loop(server: ModelServer) -> None:
    replies = [Heard() for _ in range(40)]
    for number in range(40):
        server.scripts[f"message {number}"] = hangs(after=1, deltas=[f"response {number}", "more"])

    with ThreadPoolExecutor(40) as workers:
        answers = [
            workers.submit(ask, f"message {number}", reply) for number, reply in enumerate(replies)
        ]
        server.wait_for(lambda: all(reply.pieces for reply in replies))
        assert server.now_streaming == 40
        assert [thread.name for thread in threading.enumerate()].count("upstream") == 1
        for reply in replies:
            reply.stop()
        for answer in answers:
            with pytest.raises(Stopped):
                answer.result(5)

    assert [reply.pieces for reply in replies] == [[f"response {n}"] for n in range(40)]
    server.wait_for(lambda: server.now_streaming == 0, PROMPTLY_SECONDS)


def test_a_text_may_hold_any_character(server: ModelServer) -> None:
    server.scripts["hello"] = says("a\x00b", "\x1b[31m\r\n", "\u2028", "\N{GRINNING FACE}")

    assert "".join(heard()) == "a\x00b\x1b[31m\r\n\u2028\N{GRINNING FACE}"


def test_an_emoji_that_was_cut_in_two_is_put_together(server: ModelServer) -> None:
    server.scripts["hello"] = says(*surrogates("a\N{GRINNING FACE}b"))

    assert heard() == ["a", "\N{GRINNING FACE}", "b"]


def test_half_an_emoji_becomes_a_replacement_character(server: ModelServer) -> None:
    server.scripts["hello"] = says("a", "\ud83d", "b", "\ude00", "c\ud83d")

    assert "".join(heard()) == "a\ufffdb\ufffdc\ufffd"


@given(st.lists(st.text(st.characters(), min_size=1)))
def test_any_pieces_are_said_as_valid_text(pieces: list[str]) -> None:
    reply = Heard()
    text = Text(reply)

    for piece in pieces:
        text.add(piece)
    text.end()

    said, whole = "".join(reply.pieces), "".join(pieces)
    assert said == joined(whole)
    assert said.replace("\ufffd", "") == "".join(each for each in joined(whole) if each != "\ufffd")


def test_the_upstream_says_what_a_response_took(server: ModelServer, by_usage: None) -> None:
    server.scripts["hello"] = says("Hi", usage=(12, 3))

    assert ask() == Usage(prompt_tokens=12, completion_tokens=3, estimated=False)
    assert server.requests[0].body["stream_options"] == {"include_usage": True}


def test_an_upstream_that_does_not_count_says_nothing(server: ModelServer, by_usage: None) -> None:
    server.scripts["hello"] = says("Hi")

    assert ask() is None


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 12, "completion_tokens": 0},
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": 3},
        {"prompt_tokens": 12, "completion_tokens": 3.5},
        {"prompt_tokens": "12", "completion_tokens": 3},
        {"prompt_tokens": 12, "completion_tokens": 10**30},
        {"prompt_tokens": 12},
        {},
        [],
        "many",
        7,
    ],
)
def test_a_usage_that_makes_no_sense_is_none(
    server: ModelServer, by_usage: None, usage: object
) -> None:
    server.scripts["hello"] = says("Hi", FINISH, chunk(usage=usage), finish_reason=None)

    assert ask() is None


def test_the_first_of_several_choices_is_the_response(server: ModelServer) -> None:
    other = chunk({"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"})
    both = chunk(
        {"index": 1, "delta": {"content": "other"}},
        {"index": 0, "delta": {"content": " there"}},
    )
    server.scripts["hello"] = says("Hi", other, both)

    assert "".join(heard()) == "Hi there"


def test_a_text_that_is_complete_is_not_waited_for_longer_whatever_follows(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "TAIL_SECONDS", 0.2)
    server.scripts["hello"] = says("Hi", FINISH, *["more"] * 100, every_seconds=0.05)

    began = time.monotonic()
    assert heard()[0] == "Hi"
    assert time.monotonic() - began < 2


def test_a_text_that_is_complete_before_its_deadline_is_a_response(server: ModelServer) -> None:
    server.scripts["hello"] = says("Hi", FINISH, hang=2, finish_reason=None)

    assert heard(seconds=0.5) == ["Hi"]


def test_a_flood_of_empty_lines_is_broken_off(server: ModelServer) -> None:
    server.scripts["hello"] = says("Hi", b":\n" * 400_000)

    began = time.monotonic()
    assert "262144 lines" in cause()
    assert time.monotonic() - began < 5
