"""The service that is attacked."""

from pathlib import Path

from tests.stack.services import EmbeddedService

# One address tries more here than anybody may; the limits themselves are tested elsewhere.
ENVIRONMENT = {
    **dict.fromkeys(("RATE_LIMIT_LOGIN", "RATE_LIMIT_REGISTER", "RATE_LIMIT_SEND"), "off"),
    "SIGNUP_TOKENS": "1000000",
}


def unlimited(folder: Path, **more: str) -> EmbeddedService:
    """The embedded service as shipped, but for its rate limits and with tokens for all."""
    return EmbeddedService(folder, **ENVIRONMENT, **more)
