"""Which proxies are believed when they say whom a request comes from."""

import pytest
from uvicorn.middleware.proxy_headers import _TrustedHosts

from config.serving import trusted

PROXIES = _TrustedHosts(trusted(("10.0.0.0/8", "192.0.2.1", "2001:db8::/32")))


@pytest.mark.parametrize(
    "peer", ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1", "::ffff:192.0.2.1", "2001:db8::7"]
)
def test_a_proxy_is_believed_in_whatever_family_it_comes(peer: str) -> None:
    assert peer in PROXIES


@pytest.mark.parametrize(
    "peer", ["11.1.2.3", "::ffff:192.0.2.2", "192.0.2.2", "2001:db9::7", "127.0.0.1", "unix", ""]
)
def test_nobody_else_is(peer: str) -> None:
    assert peer not in PROXIES


def test_without_proxies_nobody_is() -> None:
    assert trusted(()) == []
    assert "127.0.0.1" not in _TrustedHosts(trusted(()))
