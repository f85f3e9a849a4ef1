"""Generate responses, as one of any number of worker processes."""

import logging
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from config import checks, runtime

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    """`manage.py run_worker`"""

    help = "Generate responses until SIGTERM or SIGINT (full profile)."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        checks.require_full_profile("run_worker")
        checks.require_keys(checks.BACKGROUND_KEYS)
        checks.require_ready_database()
        checks.note_unused_settings()
        logger.info("worker starts with %d threads", settings.WORKER_THREADS)
        runtime.run_until_stopped(runtime.WORKER)
