"""How passwords are hashed: Argon2id, as OWASP's Password Storage Cheat Sheet has it."""

from django.contrib.auth.hashers import Argon2PasswordHasher


class OneCoreArgon2(Argon2PasswordHasher):
    """Argon2id with 46 MiB, one pass and one lane: the first of the sets that OWASP lists.

    Django's own (100 MiB, 2 passes, 8 lanes) spreads each hash over all cores: two logins at a time
    then leave none to anybody else.
    """

    memory_cost = 46 * 1024
    time_cost = 1
    parallelism = 1
