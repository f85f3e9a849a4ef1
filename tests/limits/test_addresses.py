"""Whose a request is, when all that is known is an address."""

import pytest
from django.test import RequestFactory

from accounts.addresses import NOWHERE, client_address


def seen(address: str) -> str:
    return client_address(RequestFactory().get("/", REMOTE_ADDR=address))


def test_an_ipv4_address_is_one_client() -> None:
    assert seen("192.0.2.7") == "192.0.2.7"


def test_a_network_of_64_bits_of_ipv6_is_one_client() -> None:
    assert seen("2001:db8:1:2::7") == seen("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert seen("2001:db8:1:3::7") != seen("2001:db8:1:2::7")


def test_an_ipv4_address_in_the_clothes_of_ipv6_is_itself() -> None:
    assert seen("::ffff:192.0.2.7") == "192.0.2.7"
    assert seen("::ffff:192.0.2.8") == "192.0.2.8"


@pytest.mark.parametrize("address", ["", "unix", "a" * 10_000, "192.0.2.7, 192.0.2.8"])
def test_whoever_has_no_address_is_one_with_all_others_without(address: str) -> None:
    assert seen(address) == NOWHERE


def test_a_header_is_not_looked_at() -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.7", HTTP_X_FORWARDED_FOR="192.0.2.9")

    assert client_address(request) == "192.0.2.7"
