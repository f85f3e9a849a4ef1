"""Chatledger's settings: read from the environment, typed, and refused in one line when wrong."""

import errno
import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import dj_database_url
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from accounts.rates import Rate, parse_rate
from config.keyfile import KEY_ALLOWED, add_missing_keys, decode_key, read_keys

PROJECT_DIR = Path(__file__).resolve().parent.parent
KEY_NAMES = ("SECRET_KEY", "JWT_SIGNING_KEY", "DATA_KEY", "SEAL_KEY")
#: Keys that were replaced, while they are still needed.
PREVIOUS_NAMES = ("JWT_SIGNING_KEYS_PREVIOUS", "DATA_KEY_PREVIOUS")
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


class SettingsError(Exception):
    """A setting is missing or wrong; the text is one line and holds no secret."""


def _split(value: Any) -> Any:
    """Read a comma-separated list."""
    if isinstance(value, str):
        return tuple(part for part in (part.strip() for part in value.split(",")) if part)
    return value


def _key(value: SecretStr) -> SecretStr:
    decode_key(value.get_secret_value())
    return value


def _scheme(url: SecretStr) -> str:
    return urlsplit(url.get_secret_value()).scheme


def _database_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if _scheme(value) not in ("sqlite", "postgres", "postgresql"):
        raise ValueError("it is neither SQLite nor PostgreSQL")
    try:
        name = dj_database_url.parse(url)["NAME"]
    except dj_database_url.ParseError as error:
        raise ValueError("it is not a URL; its parts must be percent-encoded") from error
    if not name or name == ":memory:":
        raise ValueError("it names no database")
    return value


def _redis_url(value: SecretStr) -> SecretStr:
    if _scheme(value) not in ("redis", "rediss", "unix"):
        raise ValueError("it is not a Redis URL")
    return value


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    if any("*" in host for host in value):
        raise ValueError("a wildcard lets any Host header in")
    return value


def _proxies(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_proxy(proxy) for proxy in value)


def _proxy(proxy: str) -> str:
    """Return the address, or the network without the bits that name a host in it."""
    try:
        network = ipaddress.ip_network(proxy, strict=False)
    except ValueError:
        raise ValueError(f"{proxy!r} is no address or network") from None
    return str(network) if "/" in proxy else proxy


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin")
    return value


def _rate(value: Any) -> Any:
    return parse_rate(value) if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _off(value: Any) -> Any:
    return None if _lower(value) == "off" else value


def _base_url(value: str) -> str:
    try:
        url = urlsplit(value)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("it is not an HTTP URL with a host")
    if "@" in url.netloc:
        raise ValueError("it holds credentials; they belong into OPENAI_API_KEY")
    if "?" in value or "#" in value:
        raise ValueError("it has a query or a fragment")
    return value


def _api_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("it holds a character that no header can carry")
    return value


def _unicode(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("it is not UTF-8") from None
    return value


# As browsers send it: lower case, no path, no slash, and no port that goes without saying.
_ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
BASE_URL_ALLOWED = "an http:// or https:// URL without credentials, as http://localhost:11434/v1"
MODEL_ALLOWED = "the name of a model, 1 to 200 characters"
#: The most that one message may cost, in tokens of balance.
PRICE_MAX = 10**9
WORKER_THREADS_DEFAULT = {"dummy": 8, "openai": 64}

Key = Annotated[SecretStr, AfterValidator(_key)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
ModelName = Annotated[str, Field(max_length=200), AfterValidator(_unicode)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
RateLimit = Annotated[
    Rate | None,
    NoDecode,
    BeforeValidator(_rate),
    Field(description="off, or a number in a time, as 10/5minutes, 60/hour or 600/minute"),
]
Seconds = Annotated[
    float, Field(gt=0, le=3600, allow_inf_nan=False, description="more than 0, at most 3600")
]
ModelTokensPrice = Annotated[
    int | None, Field(ge=0, le=PRICE_MAX, description="0 to 1000000000, and not both prices 0")
]


class Environment(BaseSettings):
    """Every setting of this service, by the name of its environment variable in capitals.

    An empty variable counts as unset. `description` is what the line of a refusal calls allowed.
    """

    model_config = SettingsConfigDict(
        alias_generator=str.upper,
        case_sensitive=True,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    var_dir: Annotated[Path, Field(description="a folder")] = Path("var")
    database_url: Annotated[
        SecretStr | None,
        AfterValidator(lambda url: url and _database_url(url)),
        Field(description="sqlite:///path or postgresql://user:password@host:port/name"),
    ] = None
    redis_url: Annotated[
        SecretStr | None,
        AfterValidator(lambda url: url and _redis_url(url)),
        Field(description="redis://, rediss:// or unix://"),
    ] = None

    secret_key: Annotated[Key | None, Field(description=KEY_ALLOWED)] = None
    jwt_signing_key: Annotated[Key | None, Field(description=KEY_ALLOWED)] = None
    data_key: Annotated[Key | None, Field(description=KEY_ALLOWED)] = None
    seal_key: Annotated[Key | None, Field(description=KEY_ALLOWED)] = None
    jwt_signing_keys_previous: Annotated[
        tuple[Key, ...],
        NoDecode,
        BeforeValidator(_split),
        Field(description=f"a comma-separated list, each {KEY_ALLOWED}"),
    ] = ()
    data_key_previous: Annotated[Key | None, Field(description=KEY_ALLOWED)] = None

    erasures_file: Annotated[Path | None, Field(description="a file")] = None

    jwt_lifetime_minutes: Annotated[int, Field(ge=1, le=525_600, description="1 to 525600")] = 60
    signup_tokens: Annotated[int, Field(ge=0, le=10**9, description="0 to 1000000000")] = 4000
    message_price: Annotated[int, Field(ge=1, le=10**9, description="1 to 1000000000")] = 100

    pricing: Annotated[
        Literal["message", "usage"],
        BeforeValidator(_lower),
        Field(description="message or usage"),
    ] = "message"
    prompt_price_per_1000: ModelTokensPrice = None
    completion_price_per_1000: ModelTokensPrice = None

    responder: Annotated[
        Literal["dummy", "openai"], BeforeValidator(_lower), Field(description="dummy or openai")
    ] = "dummy"
    openai_base_url: Annotated[BaseUrl | None, Field(description=BASE_URL_ALLOWED)] = None
    openai_api_key: Annotated[ApiKey | None, Field(description="visible ASCII characters")] = None
    openai_model: Annotated[ModelName | None, Field(description=MODEL_ALLOWED)] = None
    openai_connect_seconds: Seconds = 5.0
    openai_first_byte_seconds: Seconds = 60.0
    openai_silence_seconds: Seconds = 20.0
    system_prompt: Annotated[
        str, AfterValidator(_unicode), Field(description="text in UTF-8, shorter than the context")
    ] = ""
    context_tokens_max: Annotated[
        int, Field(ge=256, le=2_000_000, description="256 to 2000000")
    ] = 8000
    response_tokens_max: Annotated[int, Field(ge=1, le=1_000_000, description="1 to 1000000")] = (
        1024
    )
    worker_threads: Annotated[int | None, Field(ge=1, le=1024, description="1 to 1024")] = None
    response_deadline_seconds: Annotated[int, Field(ge=1, le=3600, description="1 to 3600")] = 90
    reply_wait_seconds: Annotated[int, Field(ge=0, le=120, description="0 to 120")] = 30

    rate_limit_login: RateLimit = Rate(10, 5 * 60)
    rate_limit_register: RateLimit = Rate(60, 60 * 60)
    rate_limit_send: RateLimit = Rate(600, 60)

    host: Annotated[str, Field(description="the name or address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="0 to 65535")] = 8000
    allowed_hosts: Annotated[
        Names,
        AfterValidator(_hosts),
        Field(description="a comma-separated list of host names without wildcards"),
    ] = ("localhost",)
    cors_allowed_origins: Annotated[
        Names,
        AfterValidator(_origins),
        Field(description="a comma-separated list of origins as https://app.example.org"),
    ] = ()
    trusted_proxies: Annotated[
        Names,
        AfterValidator(_proxies),
        Field(description="a comma-separated list of addresses and networks"),
    ] = ()
    metrics_host: Annotated[str, Field(description="the name or address to listen on")] = (
        "127.0.0.1"
    )
    metrics_port: Annotated[
        Annotated[int, Field(ge=1, le=65535)] | None,
        BeforeValidator(_off),
        Field(description="1 to 65535, or off"),
    ] = None
    debug: Annotated[bool, Field(description="on or off")] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        BeforeValidator(_lower),
        Field(description="debug, info, warning, error or critical"),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"], BeforeValidator(_lower), Field(description="text or json")
    ] = "text"

    @property
    def embedded(self) -> bool:
        """Whether the log, the broker and the reply streams all live with this process."""
        return not self.database_url or _scheme(self.database_url) == "sqlite"

    @property
    def var(self) -> Path:
        """The folder for what this service keeps on its own disk."""
        return PROJECT_DIR / self.var_dir

    @property
    def erasures(self) -> Path:
        """The file that lists whose text was erased, for whoever restores a backup."""
        return PROJECT_DIR / (self.erasures_file or self.var / "erasures.jsonl")

    @property
    def key_file(self) -> Path:
        """Where the embedded profile keeps the keys that it made."""
        return self.var / "keys.env"

    @model_validator(mode="after")
    def _one_profile(self) -> Self:
        if self.embedded and self.redis_url:
            raise ValueError(
                "REDIS_URL is set but DATABASE_URL is SQLite; allowed: both PostgreSQL and Redis, "
                "or neither"
            )
        if not self.embedded and not self.redis_url:
            raise ValueError(
                "REDIS_URL is not set but DATABASE_URL is PostgreSQL; allowed: both PostgreSQL and "
                "Redis, or neither"
            )
        if self.debug and not self.embedded:
            raise ValueError("DEBUG is on; allowed with PostgreSQL and Redis: off")
        return self

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        seen: dict[bytes, str] = {}
        for name, key in self._keys():
            value = decode_key(key.get_secret_value())
            if value in seen:
                raise ValueError(f"{name} equals {seen[value]}; allowed: a key of its own for each")
            seen[value] = name
        return self

    @model_validator(mode="after")
    def _whom_to_ask(self) -> Self:
        if self.responder == "openai":
            self._require("OPENAI_BASE_URL", BASE_URL_ALLOWED, because="RESPONDER is openai")
            self._require("OPENAI_MODEL", MODEL_ALLOWED, because="RESPONDER is openai")
        return self

    @model_validator(mode="after")
    def _room_for_a_message(self) -> Self:
        if self.system_prompt:
            from conversations.prices import tokens_max

            tokens = tokens_max(self.system_prompt)
            if tokens >= self.context_tokens_max:
                raise ValueError(
                    f"SYSTEM_PROMPT may take {tokens} tokens of the model and CONTEXT_TOKENS_MAX "
                    f"is {self.context_tokens_max}; allowed: a system prompt that leaves room"
                )
        return self

    @model_validator(mode="after")
    def _payable(self) -> Self:
        if self.pricing == "usage":
            for name in ("PROMPT_PRICE_PER_1000", "COMPLETION_PRICE_PER_1000"):
                self._require(name, "0 to 1000000000", because="PRICING is usage")
            price = self._worst_case()
            if not price:
                raise ValueError(
                    "PROMPT_PRICE_PER_1000 and COMPLETION_PRICE_PER_1000 are both 0; "
                    "allowed: at least one of them above 0"
                )
            if price > PRICE_MAX:
                raise ValueError(
                    f"PRICING is usage and the longest message could cost {price} tokens; allowed: "
                    f"prices, CONTEXT_TOKENS_MAX and RESPONSE_TOKENS_MAX for at most {PRICE_MAX}"
                )
        return self

    def _worst_case(self) -> int:
        from conversations.domain import MESSAGE_CHARACTERS_MAX, UsagePrices
        from conversations.prices import tokens_max

        longest = tokens_max(self.system_prompt) + tokens_max("\U0010ffff" * MESSAGE_CHARACTERS_MAX)
        return UsagePrices(
            prompt_per_1000=self.prompt_price_per_1000 or 0,
            completion_per_1000=self.completion_price_per_1000 or 0,
            prompt_tokens_max=max(self.context_tokens_max, longest),
            completion_tokens_max=self.response_tokens_max,
        ).price

    def _require(self, name: str, allowed: str, *, because: str) -> None:
        if self.missing(name):
            raise ValueError(f"{name} is not set but {because}; allowed: {allowed}")

    def unused(self) -> list[str]:
        """Say of settings that are given but have no effect why they have none."""
        model = ["OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_API_KEY"]
        prices = ["PROMPT_PRICE_PER_1000", "COMPLETION_PRICE_PER_1000"]
        return [
            f"{name} has no effect while {switch}"
            for names, off, switch in (
                (model, self.responder == "dummy", "RESPONDER is dummy"),
                (prices, self.pricing == "message", "PRICING is message"),
            )
            for name in names
            if off and not self.missing(name)
        ]

    @property
    def threads(self) -> int:
        """How many messages one worker process answers at a time."""
        return self.worker_threads or WORKER_THREADS_DEFAULT[self.responder]

    def missing(self, *names: str) -> list[str]:
        """Return those of the settings that have no value."""
        return [name for name in names if getattr(self, name.lower()) is None]

    def _keys(self) -> list[tuple[str, SecretStr]]:
        named = [(name, getattr(self, name.lower())) for name in (*KEY_NAMES, "DATA_KEY_PREVIOUS")]
        named += [("JWT_SIGNING_KEYS_PREVIOUS", key) for key in self.jwt_signing_keys_previous]
        return [(name, key) for name, key in named if key is not None]


def read_environment(*, make_keys: bool = True) -> Environment:
    """Return the settings, or raise `SettingsError` with the one line that says what is wrong.

    In the embedded profile missing keys, and those that they replace, come from `var/keys.env`, and
    with `make_keys` missing ones are made there; the environment wins over the file. In the full
    profile keys come from the environment only.
    """
    environment = _parse()
    if not environment.embedded:
        return environment
    missing = environment.missing(*KEY_NAMES)
    try:
        if make_keys:
            _prepare_var(environment.var)
            if set(missing) - read_keys(environment.key_file).keys():
                add_missing_keys(environment.key_file, missing)
        found = read_keys(environment.key_file)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"VAR_DIR is not usable: {environment.var}: {_reason(error)}; "
            "allowed: a folder that this process may write"
        ) from error
    wanted = [
        *missing,
        *(name for name in PREVIOUS_NAMES if not getattr(environment, name.lower())),
    ]
    try:
        return _parse(**{name: found[name] for name in wanted if name in found})
    except SettingsError as error:
        raise SettingsError(f"{error} ({environment.key_file})") from None


def _parse(**values: str) -> Environment:
    try:
        return Environment(**values)  # type: ignore[arg-type]  # the aliases are the variables' names
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    what = first["msg"].removeprefix("Value error, ").replace("Input should", "it should", 1)
    if not first["loc"]:
        return what
    name = str(first["loc"][0])
    allowed = Environment.model_fields[name.lower()].description
    return f"{name} is refused: {what}; allowed: {allowed}"


def _prepare_var(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "a file in it is not UTF-8"
