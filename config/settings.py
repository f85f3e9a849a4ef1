"""Django's settings, all of them made from the typed environment."""

import logging
import sys
from typing import Any
from urllib.parse import quote

import dj_database_url

from config.environment import LOOPBACK_HOSTS, PROJECT_DIR, SettingsError, read_environment
from config.keyfile import decode_key

try:
    # `make_keys` reports the keys it makes, so they are not made here before it starts.
    environment = read_environment(make_keys=sys.argv[1:2] != ["make_keys"])
except SettingsError as error:
    sys.stderr.write(f"{' '.join(str(error).split())}\n")
    sys.exit(2)

EMBEDDED = environment.embedded
VAR_DIR = environment.var
DEBUG = environment.debug
HOST = environment.host
PORT = environment.port
METRICS_HOST = environment.metrics_host
METRICS_PORT = environment.metrics_port
TRUSTED_PROXIES = environment.trusted_proxies
ALLOWED_HOSTS = [
    name
    for host in environment.allowed_hosts
    for name in (LOOPBACK_HOSTS if host == "localhost" else (host,))
]

# A key without a value is not defined at all: a process that needs it cannot go on without it.
if environment.secret_key:
    SECRET_KEY = environment.secret_key.get_secret_value()
if environment.jwt_signing_key:
    JWT_SIGNING_KEY = decode_key(environment.jwt_signing_key.get_secret_value())
if environment.data_key:
    DATA_KEY = decode_key(environment.data_key.get_secret_value())
if environment.seal_key:
    SEAL_KEY = decode_key(environment.seal_key.get_secret_value())
JWT_SIGNING_KEYS_PREVIOUS = tuple(
    decode_key(key.get_secret_value()) for key in environment.jwt_signing_keys_previous
)
DATA_KEY_PREVIOUS = (
    decode_key(environment.data_key_previous.get_secret_value())
    if environment.data_key_previous
    else None
)

ERASURES_FILE = environment.erasures
JWT_LIFETIME_MINUTES = environment.jwt_lifetime_minutes
SIGNUP_TOKENS = environment.signup_tokens
MESSAGE_PRICE = environment.message_price
PRICING = environment.pricing
PROMPT_PRICE_PER_1000 = environment.prompt_price_per_1000 or 0
COMPLETION_PRICE_PER_1000 = environment.completion_price_per_1000 or 0
RESPONDER = environment.responder
OPENAI_BASE_URL = environment.openai_base_url or ""
OPENAI_API_KEY = (
    environment.openai_api_key.get_secret_value() if environment.openai_api_key else None
)
OPENAI_MODEL = environment.openai_model or ""
OPENAI_CONNECT_SECONDS = environment.openai_connect_seconds
OPENAI_FIRST_BYTE_SECONDS = environment.openai_first_byte_seconds
OPENAI_SILENCE_SECONDS = environment.openai_silence_seconds
SYSTEM_PROMPT = environment.system_prompt
CONTEXT_TOKENS_MAX = environment.context_tokens_max
RESPONSE_TOKENS_MAX = environment.response_tokens_max
WORKER_THREADS = environment.threads
RATE_LIMIT_LOGIN = environment.rate_limit_login
RATE_LIMIT_REGISTER = environment.rate_limit_register
RATE_LIMIT_SEND = environment.rate_limit_send
RESPONSE_DEADLINE_SECONDS = environment.response_deadline_seconds
REPLY_WAIT_SECONDS = environment.reply_wait_seconds
REDIS_URL = environment.redis_url.get_secret_value() if environment.redis_url else None

_SQLITE_ON_CONNECT = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
    PRAGMA journal_size_limit = 67108864;
"""
# A process that is stopped inside a transaction may hold the append lock: it gets three seconds.
_POSTGRES_ON_CONNECT = {
    "idle_in_transaction_session_timeout": "3s",
    "lock_timeout": "10s",
    "statement_timeout": "30s",
}


def _sqlite(database: dict[str, Any]) -> dict[str, Any]:
    file = PROJECT_DIR / database["NAME"]
    options = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": _SQLITE_ON_CONNECT,
    }
    return {
        **database,
        "ENGINE": "eventstore.sqlite",
        "NAME": file,
        "OPTIONS": options | database.get("OPTIONS", {}),
        "TEST": {"NAME": file.with_name(f"test_{file.name}")},
    }


def _postgres(database: dict[str, Any]) -> dict[str, Any]:
    options = {
        "application_name": "chatledger",
        # The same few statements each time: prepared, the server plans them once a connection.
        "server_side_binding": True,
        "prepare_threshold": 3,
        "connect_timeout": 2,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 2,
        "tcp_user_timeout": 5000,
        "options": " ".join(f"-c {name}={value}" for name, value in _POSTGRES_ON_CONNECT.items()),
    }
    return {
        **database,
        "OPTIONS": options | database.get("OPTIONS", {}),
        # PgBouncer in transaction mode cannot keep a cursor; lists are paged by key anyway.
        "DISABLE_SERVER_SIDE_CURSORS": True,
    }


def _database(url: str) -> dict[str, Any]:
    # Connections stay open; eventstore.database drops those that have become unusable.
    parsed: dict[str, Any] = {**dj_database_url.parse(url, conn_max_age=None)}
    return _sqlite(parsed) if EMBEDDED else _postgres(parsed)


_DEFAULT_DATABASE_URL = f"sqlite:///{quote(str(VAR_DIR / 'chatledger.sqlite3'))}"
DATABASES = {
    "default": _database(
        environment.database_url.get_secret_value()
        if environment.database_url
        else _DEFAULT_DATABASE_URL
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "ninja",
    "config",
    "eventstore",
    "projections",
    "accounts",
    "conversations",
    "privacy",
    "audit",
]
# Middleware that is not asynchronous through and through costs a thread hop a request. That of
# corsheaders is, and is left out where no other origin is allowed.
CORS_ALLOWED_ORIGINS = environment.cors_allowed_origins
CORS_ALLOW_CREDENTIALS = True
CORS_ALLOW_METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE")
CORS_ALLOW_HEADERS = (
    *("accept", "authorization", "content-type", "idempotency-key", "last-event-id", "prefer"),
    *("traceparent", "x-request-id"),
)
CORS_EXPOSE_HEADERS = (
    *("Content-Disposition", "Link", "Location", "Preference-Applied", "RateLimit"),
    *("RateLimit-Policy", "Retry-After", "WWW-Authenticate", "X-Request-ID"),
)
CORS_PREFLIGHT_MAX_AGE = 3600
MIDDLEWARE = [
    "config.middleware.RequestIdMiddleware",
    *(["corsheaders.middleware.CorsMiddleware"] if CORS_ALLOWED_ORIGINS else []),
    "config.middleware.RefusingMiddleware",
]
# Checks of `manage.py check --deploy` that ask for what is done otherwise here.
SILENCED_SYSTEM_CHECKS = [
    # SecurityMiddleware costs a thread hop; config.middleware sets the same headers without one,
    # and a redirect to HTTPS is the proxy's, since this service speaks no TLS.
    "security.W001",
    # X-Frame-Options: browsers heed `frame-ancestors`, which every answer carries.
    "security.W002",
    # CSRF: no cookie is ever set or read, so another site has nothing of a user's to ride on.
    "security.W003",
    # SECRET_KEY has 43 characters, which are 32 random bytes; config.keyfile refuses anything less.
    "security.W009",
]
ROOT_URLCONF = "config.urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
STATIC_URL = "/static/"
DATA_UPLOAD_MAX_MEMORY_SIZE = 128 * 1024

USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False

PASSWORD_HASHERS = ["accounts.hashers.OneCoreArgon2"]
_VALIDATORS = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"{_VALIDATORS}.MinimumLengthValidator", "OPTIONS": {"min_length": 8}},
    {"NAME": f"{_VALIDATORS}.UserAttributeSimilarityValidator"},
    {"NAME": f"{_VALIDATORS}.CommonPasswordValidator"},
    {"NAME": f"{_VALIDATORS}.NumericPasswordValidator"},
]

LOG_FORMAT = environment.log_format
_LEVEL = logging.getLevelName(environment.log_level.upper())
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": {"()": "config.logs.OneLineFormatter"},
        "json": {"()": "config.logs.JsonFormatter"},
    },
    "filters": {"on_purpose": {"()": "config.logs.AnsweredOnPurpose"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["stderr"], "level": _LEVEL},
    "loggers": {
        # Django's own handlers would print a second time, in another form.
        "django": {"handlers": [], "level": max(_LEVEL, logging.INFO), "propagate": True},
        # A client's mistake is in its answer, not in the log.
        "django.request": {"level": max(_LEVEL, logging.ERROR), "filters": ["on_purpose"]},
        "uvicorn": {"handlers": [], "level": max(_LEVEL, logging.WARNING), "propagate": True},
        # Without a handler uvicorn does not even put together a line for each request.
        "uvicorn.access": {"handlers": [], "propagate": False},
        "asyncio": {"level": max(_LEVEL, logging.WARNING)},
        # Each has a line or more for every request, and openai's would hold what users say.
        "httpcore2": {"level": max(_LEVEL, logging.WARNING)},
        "httpx2": {"level": max(_LEVEL, logging.WARNING)},
        "openai": {"level": max(_LEVEL, logging.WARNING)},
    },
}
LOGGING_CONFIG = "logging.config.dictConfig"
