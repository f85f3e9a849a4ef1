"""Follow the log: read models, sweeper and sealer, as one of any number of such processes."""

import logging
from typing import Any

from django.core.management.base import BaseCommand

from config import checks, runtime

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    """`manage.py run_followers`"""

    help = "Run the projections, the sweeper and the sealer until SIGTERM or SIGINT (full profile)."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        checks.require_full_profile("run_followers")
        checks.require_keys(checks.FOLLOWERS_KEYS)
        checks.require_ready_database()
        logger.info("followers start")
        runtime.run_until_stopped(runtime.FOLLOWERS)
