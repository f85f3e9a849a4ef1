"""The settings of the next release: `DJANGO_SETTINGS_MODULE` names them to a process."""

from config.settings import *  # noqa: F403 (all of them, and one app more)
from config.settings import INSTALLED_APPS as OF_THIS_RELEASE

INSTALLED_APPS = [*OF_THIS_RELEASE, "tests.stack.next_release"]
