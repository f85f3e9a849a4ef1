"""Chatledger's five endpoints as a good engineer writes them without events, for fast answers.

    DATABASE_URL=sqlite:////tmp/baseline.sqlite3 python -m benchmarks.baseline.app --port 8001
    DATABASE_URL=postgresql://… python -m benchmarks.baseline.app --port 8001 [--threads N]

Makes its tables unless they are there, and becomes gunicorn. Every commit is on disk before its
answer goes out, as in Chatledger. `SIGNUP_TOKENS` is what a new user gets, 4000 unless it says so.

Its best setting, on two cores that it shares with the database and with the clients, is two workers
of one thread on SQLite, of two on PostgreSQL. Medians of sends a second by 16 and 64 clients:

    threads                        1           2           4
    SQLite                     950, 930    680, 710        -
    SQLite, no `one_writer`    580, 540    520, 500    550, 550
    PostgreSQL                 740, 710    800, 740    660, 640

`gunicorn_h1c`, gunicorn's parser in C, made no difference, and would have to be compiled.
"""

import argparse
import fcntl
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

import dj_database_url
import django
import jwt
import msgspec
from django.conf import settings

SIGNUP_TOKENS = int(os.environ.get("SIGNUP_TOKENS", "4000"))
MESSAGE_PRICE = 100
JWT_SECONDS = 3600
JWT_KEY = os.environ.get("JWT_KEY", "")
SQLITE = os.environ.get("DATABASE_URL", "sqlite").startswith("sqlite")
#: Longer than any writer waits for its turn: the baseline shall be slow rather than fail.
LOCK_SECONDS_MAX = 60
#: What was measured as the best: see above.
WORKERS = 2
THREADS = 1 if SQLITE else 2
BACKLOG = 2048

SQLITE_OPTIONS = {
    "timeout": LOCK_SECONDS_MAX,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
}
POSTGRES_OPTIONS = {"server_side_binding": True, "prepare_threshold": 3}

settings.configure(
    DEBUG=False,
    SECRET_KEY=secrets.token_urlsafe(32),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["benchmarks.baseline"],
    # None is needed: no cookies, no forms, no pages.
    MIDDLEWARE=[],
    DATABASES={
        "default": {
            **dj_database_url.config(default="sqlite:///baseline.sqlite3", conn_max_age=None),
            "OPTIONS": SQLITE_OPTIONS if SQLITE else POSTGRES_OPTIONS,
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=[f"{__name__}.OneCoreArgon2"],
    AUTH_PASSWORD_VALIDATORS=[
        {"NAME": f"django.contrib.auth.password_validation.{name}"}
        for name in ("MinimumLengthValidator", "CommonPasswordValidator")
    ],
    USE_TZ=True,
    USE_I18N=False,
    LOGGING_CONFIG=None,
)
django.setup()

from django.contrib.auth.hashers import (  # noqa: E402  # Django needs its settings first
    Argon2PasswordHasher,
    check_password,
    make_password,
)
from django.contrib.auth.password_validation import validate_password  # noqa: E402
from django.core.exceptions import ValidationError  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import IntegrityError, connection, models, transaction  # noqa: E402
from django.db.models import F  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from ninja import NinjaAPI  # noqa: E402
from ninja.errors import HttpError  # noqa: E402
from ninja.parser import Parser  # noqa: E402
from ninja.renderers import BaseRenderer  # noqa: E402
from ninja.security import HttpBearer  # noqa: E402
from pydantic import BaseModel, ConfigDict, Field  # noqa: E402


class User(models.Model):
    objects: "ClassVar[models.Manager[User]]" = models.Manager()

    username = models.CharField(max_length=50, unique=True)
    password = models.CharField(max_length=128)
    tokens = models.BigIntegerField(default=SIGNUP_TOKENS)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "baseline"

    def __str__(self) -> str:
        return f"user {self.pk}"


class Message(models.Model):
    user = models.ForeignKey(User, models.PROTECT)
    text = models.TextField()
    response = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "baseline"

    def __str__(self) -> str:
        return f"message {self.pk}"


class OneCoreArgon2(Argon2PasswordHasher):
    """Argon2id as OWASP lists it first, and as Chatledger has it."""

    memory_cost = 46 * 1024
    time_cost = 1
    parallelism = 1


class Credentials(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    username: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{3,50}$")]
    password: Annotated[str, Field(min_length=8, max_length=1024)]


class Send(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    message: Annotated[str, Field(min_length=1, max_length=8000)]


class Registered(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    username: str
    tokens: int


class Login(BaseModel):
    token: str
    expires_in: int


class UserOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    username: str
    created_at: datetime


class Response(BaseModel):
    response: str


class Balance(BaseModel):
    tokens: int


class FastParser(Parser):
    def parse_body(self, request: HttpRequest) -> Any:
        return msgspec.json.decode(request.body)


class FastRenderer(BaseRenderer):
    media_type = "application/json"

    def render(self, request: HttpRequest, data: Any, *, response_status: int) -> bytes:
        return msgspec.json.encode(data)


class JwtBearer(HttpBearer):
    def authenticate(self, request: HttpRequest, token: str) -> User | None:
        try:
            claims = jwt.decode(
                token, JWT_KEY, algorithms=["HS256"], options={"require": ["exp", "sub"]}
            )
            return User.objects.get(pk=int(claims["sub"]))
        except (jwt.PyJWTError, User.DoesNotExist, ValueError):
            return None


class Api(NinjaAPI):
    def create_response(self, *args: Any, **kwargs: Any) -> HttpResponse:
        """Say how long the answer is: gunicorn would send it in chunks, with a system call more."""
        response = super().create_response(*args, **kwargs)
        response["Content-Length"] = str(len(response.content))
        return response


api = Api(auth=JwtBearer(), parser=FastParser(), renderer=FastRenderer(), docs_url=None)


@api.post("/users/register/", auth=None, response={201: Registered})
def register(request: HttpRequest, body: Credentials) -> tuple[int, User]:
    try:
        validate_password(body.password)
        user = User(username=body.username, password=make_password(body.password))
        user.save(force_insert=True)
    except ValidationError as weak:
        raise HttpError(422, " ".join(weak.messages)) from weak
    except IntegrityError as taken:
        raise HttpError(409, "the name is taken") from taken
    return 201, user


@api.post("/users/login/", auth=None, response=Login)
def login(request: HttpRequest, body: Credentials) -> Login:
    user = User.objects.filter(username=body.username).first()
    if user is None:
        make_password(body.password)  # takes as long as for a name that is there
    if user is None or not check_password(body.password, user.password):
        raise HttpError(401, "the name or the password is wrong")
    now = int(time.time())
    claims = {"sub": str(user.pk), "iat": now, "exp": now + JWT_SECONDS}
    return Login(token=jwt.encode(claims, JWT_KEY, algorithm="HS256"), expires_in=JWT_SECONDS)


@api.get("/users/", response=list[UserOut])
def users(request: HttpRequest) -> "models.QuerySet[User]":
    return User.objects.order_by("id")


@api.post("/send/", response={201: Response})
def send(request: HttpRequest, body: Send) -> tuple[int, dict[str, str]]:
    user: User = request.auth  # type: ignore[attr-defined]  # Ninja sets it
    response = dummy_chatbot_response(body.message)
    with one_writer(), transaction.atomic():
        with_credit = User.objects.filter(pk=user.pk, tokens__gte=MESSAGE_PRICE)
        if not with_credit.update(tokens=F("tokens") - MESSAGE_PRICE):
            raise HttpError(402, "the balance is too small")
        Message(user=user, text=body.message, response=response).save(force_insert=True)
    return 201, {"response": response}


@contextmanager
def one_writer() -> Iterator[None]:
    """Let the workers write to SQLite one after another, woken in turn.

    SQLite itself lets those that wait sleep, and often nobody writes meanwhile: 620 sends a second
    without this, 950 with it.
    """
    if not SQLITE:
        yield
        return
    with Path(f"{settings.DATABASES['default']['NAME']}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@api.get("/token/", response=Balance)
def token(request: HttpRequest) -> dict[str, int]:
    return {"tokens": request.auth.tokens}  # type: ignore[attr-defined]  # Ninja sets it


RESPONSES = {
    "hello": "Hi there! How can I help you today?",
    "how are you?": "I'm just a bot, but I'm here to assist you! How can I help?",
    "what's your name?": "I'm ChatBot, your virtual assistant.",
    "tell me a joke": "Why don't scientists trust atoms? Because they make up everything!",
    "bye": "Goodbye! Have a great day!",
}
UNKNOWN = "I'm not sure how to respond to that. Can you please ask something else?"


def dummy_chatbot_response(message: str) -> str:
    return RESPONSES.get(message.lower(), UNKNOWN)


urlpatterns = [path("", api.urls)]
application = get_wsgi_application()


def make_tables() -> None:
    """Make the tables that are not there."""
    there = connection.introspection.table_names()
    with connection.schema_editor() as schema:
        for model in (User, Message):
            if model._meta.db_table not in there:  # noqa: SLF001  # public but for its name
                schema.create_model(model)
    connection.close()


def post_fork(_: object, worker: Any) -> None:
    """Give a gunicorn worker a socket of its own, so that the kernel deals connections evenly.

    Workers that share one leave connections that come at once to whoever wakes first: one of them
    then served 16 clients alone, with half the answers a second.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind(("127.0.0.1", int(os.environ["PORT"])))
    listener.listen(BACKLOG)
    worker.sockets = [listener]


def gunicorn_command(workers: int, threads: int) -> list[str]:
    """How it is served."""
    return [
        *(sys.executable, "-m", "gunicorn", "benchmarks.baseline.app:application"),
        # Bound to any port, which nobody uses: see `post_fork`, which this module configures.
        *("--config", "python:benchmarks.baseline.app", "--bind", "127.0.0.1:0"),
        *("--worker-class", "gthread", "--workers", str(workers), "--threads", str(threads)),
        # Connections are kept for as long as a client may want them.
        *("--keep-alive", "75", "--worker-connections", "1000"),
        *("--log-level", "warning", "--worker-tmp-dir", "/dev/shm", "--no-control-socket"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baseline.app")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--threads", type=int, default=THREADS)
    options = parser.parse_args()
    make_tables()
    os.environ["PORT"] = str(options.port)
    os.environ.setdefault("JWT_KEY", secrets.token_urlsafe(32))
    command = gunicorn_command(options.workers, options.threads)
    os.execv(command[0], command)
