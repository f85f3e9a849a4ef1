"""Where a request comes from, as far as limits are concerned.

The server has looked at `X-Forwarded-For` by then, and believed it from `TRUSTED_PROXIES` only.
"""

import ipaddress

from django.http import HttpRequest

#: What one customer of a network has of IPv6, and may take any address of.
IPV6_PREFIX_BITS = 64
#: All who come without an address, as through a Unix socket, are one.
NOWHERE = "nowhere"


def client_address(request: HttpRequest) -> str:
    """The address of the client; of IPv6 the network, since a client has all of it."""
    try:
        address = ipaddress.ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return NOWHERE
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), IPV6_PREFIX_BITS), strict=False))
