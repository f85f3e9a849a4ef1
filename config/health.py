"""Health pages for whoever runs this: does the process live, and can it serve."""

import asyncio
from typing import Literal

from django.conf import settings
from django.db import connection
from django.http import HttpRequest
from ninja import Router
from pydantic import BaseModel, Field

from eventstore.database import StoreUnavailable, in_thread
from eventstore.keys import check_data_key
from eventstore.leases import LeasesUnavailable, get_leases
from projections import queries

#: A database that has not answered by then cannot be read in time.
DATABASE_TIMEOUT_SECONDS = 2.0
#: Followers that are further behind than this are no longer following.
LAG_EVENTS_MAX = 1000

router = Router(tags=["operators"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """The process can serve; `degraded` names what does not work as it should."""

    status: Literal["ready", "degraded"]
    degraded: list[str] = Field(examples=[["broker: Redis does not answer"]])


@router.get("/livez/", operation_id="check_liveness", summary="Is it alive?", response=Alive)
async def livez(request: HttpRequest) -> Alive:
    """Answer without looking at anything else."""
    return Alive()


@router.get("/readyz/", operation_id="check_readiness", summary="Can it serve?", response=Ready)
async def readyz(request: HttpRequest) -> Ready:
    """Say whether the database can be read in time and its keys opened, and what is degraded."""
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_SECONDS):
            degraded = await in_thread(_degraded_read_models)
    except TimeoutError as error:
        raise StoreUnavailable("no answer in time") from error
    if settings.REDIS_URL and not await _broker_answers():
        degraded.append("broker: Redis does not answer")
    return Ready(status="degraded" if degraded else "ready", degraded=degraded)


def _degraded_read_models() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
    check_data_key()
    degraded = []
    lag, parked = queries.lag(), queries.parked_count()
    if lag > LAG_EVENTS_MAX:
        degraded.append(f"followers: {lag} events behind")
    if parked:
        degraded.append(f"read models: {parked} parked events")
    return degraded


async def _broker_answers() -> bool:
    try:
        await asyncio.to_thread(get_leases().holder_of, "readyz")
    except LeasesUnavailable:
        return False
    return True
