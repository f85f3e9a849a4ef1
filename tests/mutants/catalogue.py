"""The guards of this service, each with the change that takes it away and who has to notice.

A mutant is the smallest change after which a promise of docs/guarantees.md no longer holds. `old`
stands in the file exactly once; `tests` are what pytest is given, and at least one of them must
fail.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One guard, and the change that takes it away."""

    guard: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    profile: str = "embedded"

    def applied_to(self, source: str) -> str:
        """The source without the guard. Raises `LookupError` when the guard is not there."""
        found = source.count(self.old)
        if found != 1:
            raise LookupError(f"{self.guard}: found {found} times in {self.file}, not once")
        return source.replace(self.old, self.new)


SENDS = "tests/conversations/test_send_message.py"
GENERATION = "tests/conversations/test_generation.py"
CONVERSATIONS = "tests/conversations/test_conversations.py"
DIRECT = "tests/eventstore/test_direct.py"
RUNNER = "tests/projections/test_runner.py"
SWEEPER = "tests/conversations/test_sweeper.py"
WRITERS = tuple(f"tests/eventstore/test_writer{part}.py" for part in ("", "_batches", "_races"))
ERASURE = "tests/privacy/test_erasure.py"

#: Who sends, and what it costs.
PAYMENT = (
    Mutant(
        "a message is looked up by its id",
        "conversations/commands.py",
        "        looked_up = view.fresh or view.is_decided_on(command.message_id)\n",
        "        looked_up = view.is_decided_on(command.message_id)\n",
        (SENDS, *WRITERS),
    ),
    Mutant(
        "it is looked up too when an answer was lost",
        "conversations/commands.py",
        "        looked_up = view.fresh or view.is_decided_on(command.message_id)\n",
        "        looked_up = view.fresh and not view.cut_off\n",
        (SENDS, *WRITERS),
    ),
    Mutant(
        "two of one key that are decided together are no conflict",
        "conversations/commands.py",
        "        looked_up = view.fresh or view.is_decided_on(command.message_id)\n",
        "        looked_up = view.fresh\n",
        WRITERS,
    ),
    Mutant(
        "what a request has sent without hearing so is handed on",
        "conversations/commands.py",
        "repeated=not unheard)",
        "repeated=True)",
        (SENDS, *WRITERS),
    ),
    Mutant(
        "what another request has sent is a repeat, also when an answer was lost",
        "conversations/commands.py",
        "            unheard = view.cut_off and _was_sent_by(cause, command.message_id)\n",
        "            unheard = view.cut_off\n",
        WRITERS,
    ),
    Mutant(
        "a repeat has the same text",
        "conversations/commands.py",
        "    if sent.message != command.message:\n",
        "    if not sent.message:\n",
        (SENDS,),
    ),
    Mutant(
        "a key belongs to its user",
        "conversations/commands.py",
        '    return uuid5(user_id, f"message:{idempotency_key}")\n',
        '    return uuid5(UUID(int=0), f"message:{idempotency_key}")\n',
        (SENDS,),
    ),
    Mutant(
        "nobody sends into another's conversation",
        "conversations/commands.py",
        "        if conversation.user_id != command.user_id or conversation.deleted:\n",
        "        if conversation.deleted:\n",
        (SENDS,),
    ),
    Mutant(
        "the balance covers the price",
        "accounts/domain.py",
        "        if amount > self.tokens:\n",
        "        if amount < 0:\n",
        ("tests/unit/test_account.py", f"{SENDS}::test_parallel_sends_never_overdraw"),
    ),
    Mutant(
        "a deactivated account pays for nothing",
        "accounts/domain.py",
        "        if not self.active:\n            raise AccountDeactivated\n        if amount",
        "        if amount",
        ("tests/unit/test_account.py", "tests/accounts/test_roles_and_activation.py"),
    ),
    Mutant(
        "a refusal is believed on fresh state only",
        "eventstore/writer.py",
        "            believed = command.fresh and not view.saw_tentative\n",
        "            believed = not view.saw_tentative\n",
        (SENDS, *WRITERS),
    ),
    Mutant(
        "a refusal is believed on what is stored only",
        "eventstore/writer.py",
        "            believed = command.fresh and not view.saw_tentative\n",
        "            believed = command.fresh\n",
        WRITERS,
    ),
    Mutant(
        "a refusal is believed on fresh state only (commands with a transaction of their own)",
        "eventstore/decisions.py",
        "    except (IntegrityError, Refused, StoreUnavailable):\n",
        "    except (IntegrityError, StoreUnavailable):\n",
        ("tests/eventstore/test_log.py", "tests/accounts", CONVERSATIONS, ERASURE),
    ),
    Mutant(
        "what is in memory is built on only where the log still holds it",
        "eventstore/log.py",
        "        if not events or events[0].event_id != old.last_event_id or len(events)",
        "        if not events or len(events)",
        ("tests/eventstore/test_log.py",),
    ),
    Mutant(
        "what is too far behind the log is not taken for what the log holds",
        "eventstore/log.py",
        " or len(events) > BEHIND_MAX + 1:",
        ":",
        ("tests/eventstore/test_log.py",),
    ),
    Mutant(
        "an account to which others write is read before it is decided on",
        "eventstore/writer.py",
        "        if command.fresh or log.is_shared(stream[1])\n",
        "        if command.fresh\n",
        WRITERS,
    ),
    Mutant(
        "what is decided again is read at once for all",
        "eventstore/writer.py",
        "        if command.fresh or log.is_shared(stream[1])\n",
        "        if log.is_shared(stream[1])\n",
        WRITERS,
    ),
    Mutant(
        "an answer that rests on what is not stored yet is not given",
        "eventstore/writer.py",
        "            elif view.saw_tentative:\n",
        "            elif view is None:\n",
        WRITERS,
    ),
    Mutant(
        "a command whose commit was lost knows that it was",
        "eventstore/writer.py",
        "                was_fresh, command.cut_off = command.fresh, True\n",
        "                was_fresh, command.cut_off = command.fresh, False\n",
        (SENDS, *WRITERS),
    ),
    Mutant(
        "what follows a send is done before its caller hears, and once",
        "eventstore/writer.py",
        "                if error is None:\n                    command.go_on(result)\n",
        "                pass\n",
        WRITERS,
    ),
    Mutant(
        "one thread of a process commits at a time",
        "eventstore/writer.py",
        "        if not self._turn.acquire(blocking=False):\n",
        "        if not (self._turn.acquire(blocking=False) or self._turn.locked()):\n",
        WRITERS,
    ),
    Mutant(
        "a message is acknowledged after its end is committed",
        "conversations/broker.py",
        "        if self.broker.acknowledges_late:\n            self._done",
        "        if not self.broker.acknowledges_late:\n            self._done",
        ("tests/conversations/test_broker.py",),
        profile="full",
    ),
)

#: How a message ends.
ENDS = (
    Mutant(
        "a version of a stream is written once (the version-2 rule)",
        "eventstore/migrations/0001_initial.py",
        '                        fields=("stream_id", "version"), name="one_event_a_version"\n',
        '                        fields=("stream_id", "version", "position"),\n'
        '                        name="one_event_a_version",\n',
        ("tests/eventstore/test_append.py", GENERATION),
    ),
    Mutant(
        "what has ended stays as it is",
        "conversations/domain.py",
        "    def apply(self, aggregate: Any) -> None:\n        aggregate.ended = True\n",
        "    def apply(self, aggregate: Any) -> None:\n        aggregate.ended = False\n",
        ("tests/unit/test_exchange.py", GENERATION),
    ),
    Mutant(
        "an end and its refund are one append",
        "conversations/commands.py",
        "        parts = (account, exchange)\n",
        "        event_log().append(account, cause=cause)\n",
        (GENERATION,),
    ),
    Mutant(
        "a failure is refunded",
        "conversations/commands.py",
        "        account.refund(end.refunded, message_id=exchange.id, reason=reason)\n",
        "",
        (GENERATION, SWEEPER),
    ),
    Mutant(
        "the sweeper sends again what nobody works on",
        "conversations/sweeper.py",
        "            if now < known.resend_at:\n",
        "            if now < float('inf'):\n",
        (SWEEPER,),
    ),
    Mutant(
        "the sweeper fails what is past its deadline",
        "conversations/sweeper.py",
        'end_with_failure(row.message_id, "deadline", ',
        '(lambda *_: None)(row.message_id, "deadline", ',
        (SWEEPER,),
    ),
    Mutant(
        "the deadline holds when the clock was set back",
        "conversations/sweeper.py",
        "        return clock >= row.deadline_at or seen_seconds >= allowed_seconds\n",
        "        return clock >= row.deadline_at\n",
        (SWEEPER,),
    ),
    Mutant(
        "one worker at a time holds a lease (memory)",
        "eventstore/leases.py",
        "        if current and current[0] != holder and current[1] > now:\n",
        "        if current and current[0] != holder and current[1] > now + 1e9:\n",
        ("tests/eventstore/test_leases.py", GENERATION),
    ),
    Mutant(
        "one worker at a time holds a lease (Redis)",
        "eventstore/leases.py",
        "if holder and holder ~= ARGV[1] then return 0 end\n",
        "",
        ("tests/eventstore/test_leases.py",),
        profile="full",
    ),
    Mutant(
        "two attempts at most",
        "conversations/generation.py",
        "        if taken > ATTEMPTS_MAX:\n",
        "        if taken > 10 * ATTEMPTS_MAX:\n",
        (GENERATION,),
    ),
)

#: The log, what follows it, and what proves it.
LOG = (
    Mutant(
        "the append lock",
        "eventstore/migrations/0002_append_function.py",
        "    PERFORM pg_advisory_xact_lock(7163082359995458663);\n",
        "",
        ("tests/eventstore/test_writer.py",),
        profile="full",
    ),
    Mutant(
        "a job that lost a race stores nothing (SQLite)",
        "eventstore/append.py",
        '        raw.execute("ROLLBACK TO rows")\n',
        "",
        ("tests/eventstore/test_append.py",),
    ),
    Mutant(
        "jobs of a stream stand or fall together",
        "eventstore/append.py",
        "    groups = _groups(jobs)\n",
        "    groups = [[number] for number in range(len(jobs))]\n",
        ("tests/eventstore/test_append.py",),
    ),
    Mutant(
        "time never goes back (SQLite)",
        "eventstore/append.py",
        "        at = max(last_at, database_clock(raw))\n",
        "        at = database_clock(raw)\n",
        ("tests/eventstore/test_append.py",),
    ),
    Mutant(
        "time never goes back (PostgreSQL)",
        "eventstore/migrations/0002_append_function.py",
        "        coalesce(stamp, 0), (extract",
        "        0, (extract",
        ("tests/eventstore/test_append.py",),
        profile="full",
    ),
    Mutant(
        "a position moves by compare-and-set",
        "projections/positions.py",
        '    " WHERE position = ? AND (name, generation) IN (VALUES {})"\n',
        '    " WHERE position >= ? AND (name, generation) IN (VALUES {})"\n',
        (
            f"{RUNNER}::test_applying_from_a_position_that_has_moved_is_refused",
            f"{RUNNER}::test_two_runners_at_once_apply_each_event_once",
        ),
    ),
    Mutant(
        "whoever was overtaken writes nothing",
        "projections/applying.py",
        "    if touched[0] != len(batch.moved):\n",
        "    if touched[0] > len(batch.moved):\n",
        (f"{RUNNER}::test_applying_from_a_position_that_has_moved_is_refused",),
    ),
    Mutant(
        "whoever was overtaken writes nothing (one statement)",
        "projections/at_once.py",
        'GATE = "(SELECT done FROM moved)"',
        'GATE = "true"',
        ("tests/projections/test_at_once.py",),
        profile="full",
    ),
    Mutant(
        "all positions of a batch move, or none",
        "projections/positions.py",
        " AND (SELECT count(*) FROM held) = {count} RETURNING 1),",
        " RETURNING 1),",
        ("tests/projections/test_at_once.py",),
        profile="full",
    ),
    Mutant(
        "a text is never cut off at a NUL",
        "eventstore/direct.py",
        '    if "\\0" in text:\n',
        "    if False:\n",
        (DIRECT,),
        profile="full",
    ),
    Mutant(
        "a statement that the server has forgotten is prepared again",
        "eventstore/direct.py",
        "    if result.error_field(pq.DiagnosticField.SQLSTATE) in _TO_PREPARE_AGAIN:\n",
        "    if False:\n",
        (DIRECT,),
        profile="full",
    ),
    Mutant(
        "a statement begins the transaction that it is the first of",
        "eventstore/direct.py",
        "    if raw.pgconn.transaction_status == pq.TransactionStatus.IDLE:\n",
        "    if False:\n",
        (DIRECT,),
        profile="full",
    ),
    Mutant(
        "a seal is linked to the one before it",
        "eventstore/seals/chain.py",
        "            if checkpoint.previous != _hash_of(before):\n",
        "            if not checkpoint.previous:\n",
        ("tests/audit/test_verify.py",),
    ),
    Mutant(
        "a kept head is linked to where the check begins",
        "eventstore/seals/chain.py",
        "                elif checkpoint.previous != digest:\n",
        "                elif not digest:\n",
        ("tests/audit/test_verify_hostile.py", "tests/audit/test_mutations.py"),
    ),
    Mutant(
        "the sealer goes on from its own chain only",
        "eventstore/seals/sealer.py",
        "            stored = _followed(self._remembered, stored)\n",
        "            stored = stored\n",
        ("tests/eventstore/test_sealer.py",),
    ),
    Mutant(
        "a text is bound to its place",
        "eventstore/encrypted.py",
        '    return f"{stream}|{version}|{topic}|{field}".encode()\n',
        '    return b"anywhere"\n',
        ("tests/eventstore/test_keys.py",),
    ),
)

#: Who may do what.
ACCESS = (
    Mutant(
        "names that casefold alike are one",
        "accounts/names.py",
        "username.casefold().encode()",
        "username.encode()",
        ("tests/api/test_register.py", "tests/accounts/test_shell.py"),
    ),
    Mutant(
        "a JWT ends with its epoch",
        "accounts/jwt_auth.py",
        "    return Caller(login.user_id, role) if active and epoch == login.epoch else None\n",
        "    return Caller(login.user_id, role) if active else None\n",
        ("tests/api/test_logout.py", "tests/api/test_password.py"),
    ),
    Mutant(
        "a JWT expires though it was believed before",
        "accounts/jwt_auth.py",
        "    return None if login.expires_at <= time.time() else login\n",
        "    return None if login.expires_at <= 0 else login\n",
        ("tests/api/test_jwt.py",),
    ),
    Mutant(
        "staff only",
        "accounts/callers.py",
        "        if caller.role != STAFF:\n",
        "        if not caller.role:\n",
        ("tests/api/test_staff_only.py",),
    ),
    Mutant(
        "nobody reads what belongs to another",
        "projections/queries/parked.py",
        "    if owner != user_id:\n        return False\n",
        "    if owner is None:\n        return False\n",
        ("tests/projections/test_queries.py", "tests/api/test_messages.py"),
    ),
    Mutant(
        "nobody renames or deletes what belongs to another",
        "conversations/conversation_commands.py",
        "    if conversation is None or conversation.user_id != user_id:\n",
        "    if conversation is None:\n",
        (f"{CONVERSATIONS}::test_only_an_own_conversation_that_is_there_can_be_changed",),
    ),
    Mutant(
        "of two password changes one loses",
        "accounts/commands.py",
        "                user_id=command.user_id, password_hash=before.password_hash\n",
        "                user_id=command.user_id\n",
        ("tests/accounts", "tests/api/test_password.py"),
    ),
    Mutant(
        "an erasure destroys the user's key",
        "privacy/erasure.py",
        "            keys.destroy_user(self.user_id)\n",
        "",
        ("tests/privacy/test_erasure.py",),
    ),
    Mutant(
        "a deletion destroys the conversation's key",
        "conversations/conversation_commands.py",
        "            keys.destroy(conversation_id, user_id=user_id)\n",
        "",
        (f"{CONVERSATIONS}::test_a_deletion_destroys_the_key_and_all_text_reads_erased",),
    ),
    Mutant(
        "a limit allows so many and no more",
        "accounts/rate_limits.py",
        "        if standing.count.allowed:\n",
        "        if standing.count is not None:\n",
        ("tests/api/test_rate_limits.py",),
    ),
    Mutant(
        "a right password gives its guess back",
        "accounts/guesses.py",
        "        raise\n    give_back()\n",
        "        raise\n",
        ("tests/api/test_rate_limits.py",),
    ),
)

MUTANTS = (*PAYMENT, *ENDS, *LOG, *ACCESS)
