"""The Django app that brings the commands of the entry points."""

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """Chatledger's entry points."""

    name = "config"
