"""What commands say of the log that they have checked."""

from eventstore.seals.verification import Findings


def of_seals(findings: Findings, *, since: int = 1) -> list[str]:
    """Three lines: what the seals cover and who signed them, the newest, and what has none."""
    from_there = f" from number {since} on" if since > 1 else ""
    keys = ", ".join(findings.key_ids) or "none"
    head = "no checkpoint yet"
    if findings.newest:
        number, digest = findings.newest
        head = f"checkpoint {number}, {digest.hex()}"
    checked = f"{findings.checkpoints:,} checkpoints{from_there} over {findings.events:,} events"
    return [
        f"seals: {differences(len(findings.differences))}; {checked}, signed by {keys}",
        f"head: {head}",
        f"not sealed yet: {findings.unsealed:,} events",
    ]


def differences(count: int) -> str:
    """How many, in words."""
    return "no difference" if count == 0 else f"{count:,} difference{'s' if count > 1 else ''}"
