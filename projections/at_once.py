"""A batch as one statement of PostgreSQL: one round trip, and a transaction by itself.

Its parts are the statements that would else follow each other, and they do not see each other's
rows. So it is for a batch in which no table has its rows changed, or built upon, twice. Rows that
are merely new do not count: no other statement of a batch is about them.
"""

from collections.abc import Sequence

from projections.sql import Command

#: The condition of each part: the positions have moved. What it asks is done first.
GATE = "(SELECT done FROM moved)"


def at_once(move: Command, commands: Sequence[Command], announcement: Command) -> Command | None:
    """All of a batch as one statement, or None where it has to be several.

    Its one value says how many positions moved: all, or none, and then nothing else is done either.
    """
    changed = [command.changes for command in commands if command.changes]
    if len(set(changed)) < len(changed):
        return None
    parts = [f"part_{number} AS ({each.gated})" for number, each in enumerate(commands)]
    sql = f"{', '.join([move.gated, *parts])} {announcement.gated}"
    parameters = [each.parameters for each in (move, *commands, announcement)]
    return Command(sql, [value for values in parameters for value in values])
