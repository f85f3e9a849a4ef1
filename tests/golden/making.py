"""Make the golden log of this version: `python -m tests.golden.making`, once, at its release.

Everything that can be in a log is in it, told by the commands themselves; beside it stands what the
read models showed then. Later versions have to read the one and show the other: a golden log that
is in a release is never made again.
"""

import os
import sys
import tempfile
import tomllib
from pathlib import Path
from uuid import UUID, uuid4

FOLDER = Path(__file__).parent
PASSWORD = "correct horse battery"
#: What the keys in a golden log are wrapped for. It guards nothing.
PASSPHRASE = b"a golden log for everybody to open"
TEXTS = ("hello", "grüße, 🦉\n\"'\\ \u2028", "tell me a joke", "x" * 8_000)


def tell() -> None:
    """Every kind of event, in every shape that the commands give it."""
    from django.conf import settings
    from django.test.utils import override_settings

    from accounts.commands import (
        ChangePassword,
        RegisterUser,
        RevokeJwts,
        change_password,
        register_user,
        revoke_jwts,
    )
    from accounts.staff_commands import (
        ActivateUser,
        DeactivateUser,
        GrantTokens,
        SetRole,
        activate_user,
        deactivate_user,
        grant_tokens,
        set_role,
    )
    from conversations.commands import fail_message
    from conversations.conversation_commands import (
        DeleteConversation,
        RenameConversation,
        StartConversation,
        delete_conversation,
        rename_conversation,
        start_conversation,
    )
    from eventstore.cause import Cause
    from eventstore.rotation import rewrap_keys
    from privacy.erasure import EraseUser, erase_user
    from privacy.export import note_export

    cause = Cause("shell", "golden-1")
    alice, bob, carol = (
        register_user(RegisterUser(name, PASSWORD), cause).user_id
        for name in ("Alice", "bob", "carol.b-2")
    )
    set_role(SetRole(alice, "staff", "she asked"), cause)
    set_role(SetRole(bob, "staff"), cause)
    set_role(SetRole(bob, "member"), cause)
    grant_tokens(GrantTokens(uuid4(), bob, 1_000, "for being bob"), Cause(f"user:{alice}", "g-2"))
    change_password(ChangePassword(bob, PASSWORD, f"{PASSWORD} 2"), cause)
    revoke_jwts(RevokeJwts(bob), cause)
    for text in TEXTS:
        _done(alice, text, text[::-1])
    talk = start_conversation(StartConversation(alice, "Owls"), cause).id
    untitled = start_conversation(StartConversation(alice, None), cause).id
    rename_conversation(RenameConversation(alice, talk, "Eulen 🦉"), cause)
    _done(alice, "in the talk", "said", conversation_id=talk)
    with override_settings(
        PRICING="usage", PROMPT_PRICE_PER_1000=10, COMPLETION_PRICE_PER_1000=31, SYSTEM_PROMPT=""
    ):
        _done(alice, "by usage", "counted", conversation_id=talk, usage=(1_000, 500, False))
        _done(alice, "by usage", "estimated", conversation_id=talk, usage=(200, 3, True))
        _cancelled(alice, "by usage, broken off", said="so fa")
        fail_message(_sent(alice, "by usage, failed"), "responder", Cause("worker"))
    _cancelled(alice, "broken off", said="Once upon a ")
    _cancelled(alice, "broken off at once", said="")
    fail_message(_sent(alice, "too late"), "deadline", Cause("sweeper"))
    fail_message(_sent(alice, "unlucky"), "worker_lost", Cause("worker"))
    delete_conversation(DeleteConversation(alice, untitled), cause)
    gone = start_conversation(StartConversation(bob, "Secrets"), cause).id
    _done(bob, "a secret", "a secret response", conversation_id=gone)
    _sent(bob, "a pending secret", conversation_id=gone)
    delete_conversation(DeleteConversation(bob, gone), cause)
    _done(bob, "in the default conversation", "yes")
    delete_conversation(DeleteConversation(bob, _default_of(bob)), cause)
    _done(bob, "in the next one", "yes again")
    _done(carol, "forget me", "gladly")
    _sent(carol, "pending at the end")
    note_export(alice, cause)
    deactivate_user(DeactivateUser(bob, "for a while"), cause)
    activate_user(ActivateUser(bob, "and back"), cause)
    deactivate_user(DeactivateUser(carol), cause)
    activate_user(ActivateUser(carol), cause)
    erase_user(EraseUser(carol), cause)
    deactivate_user(DeactivateUser(bob), cause)
    with override_settings(DATA_KEY=bytes(range(32)), DATA_KEY_PREVIOUS=settings.DATA_KEY):
        rewrap_keys(cause)
    with override_settings(DATA_KEY_PREVIOUS=bytes(range(32))):
        rewrap_keys(cause)
    _sent(alice, "still pending")


def make(version: str) -> list[Path]:
    """Write a version's files from the log here, which has to be empty; the files."""
    from audit.dumps.dumping import dump
    from audit.dumps.wrapping import for_passphrase
    from eventstore.seals.sealer import Sealer
    from projections.runner import ProjectionRunner
    from tests.golden.showing import shown, written

    with tempfile.NamedTemporaryFile() as file:
        file.write(PASSPHRASE)
        file.flush()
        how = for_passphrase(Path(file.name))
    tell()
    Sealer().step()
    runner = ProjectionRunner()
    while runner.step():
        pass
    log, models = FOLDER / f"{version}.dump", FOLDER / f"{version}.json"
    with log.open("xb") as out:
        dump(out.write, wrapping=how, report=lambda done, total: None)
    models.write_text(written(shown()))
    return [log, models]


def _sent(user_id: UUID, text: str, conversation_id: UUID | None = None) -> UUID:
    from conversations.commands import SendMessage, send_message
    from eventstore.cause import Cause

    command = SendMessage(user_id, conversation_id, uuid4(), text)
    return send_message(command, Cause(f"user:{user_id}", "golden-3")).message_id


def _done(
    user_id: UUID,
    text: str,
    response: str,
    *,
    conversation_id: UUID | None = None,
    usage: tuple[int, int, bool] | None = None,
) -> None:
    from conversations.commands import respond_to_message
    from conversations.domain import Exchange, Usage
    from eventstore.cause import Cause
    from eventstore.log import event_log

    message_id = _sent(user_id, text, conversation_id)
    used = None
    if usage:
        prompt, completion, estimated = usage
        used = Usage(prompt_tokens=prompt, completion_tokens=completion, estimated=estimated)
    exchange = event_log().load(Exchange, message_id)
    cause = Cause("worker", "golden-3", uuid4())
    respond_to_message(exchange, response, usage=used, attempt=7, model="golden", cause=cause)


def _cancelled(user_id: UUID, text: str, *, said: str) -> None:
    from conversations.commands import cancel_message
    from conversations.reply_streams import Delta, reply_streams
    from eventstore.cause import Cause

    message_id = _sent(user_id, text)
    if said:
        reply_streams().publish(message_id, Delta(7, 0, said, prompt_tokens=200))
    cancel_message(message_id, Cause(f"user:{user_id}", "golden-4"))


def _default_of(user_id: UUID) -> UUID:
    from accounts.domain import Account
    from eventstore.log import event_log

    return event_log().load(Account, user_id).default_conversation_id


def main() -> None:
    """Make the files of this version in a database of their own."""
    import django

    from config.environment import KEY_NAMES
    from config.keyfile import new_key

    project = tomllib.loads((FOLDER.parent.parent / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory(prefix="chatledger-") as folder:
        os.environ |= {name: new_key() for name in KEY_NAMES}
        os.environ |= {"DJANGO_SETTINGS_MODULE": "config.settings", "VAR_DIR": folder}
        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        for file in make(project["version"]):
            sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()
