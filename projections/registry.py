"""The projections there are. A new one is a file, a table, and a line here."""

from projections.balances import Balances
from projections.conversations import Conversations
from projections.history import History
from projections.pending import Pending
from projections.projection import Projection
from projections.statement import Statement
from projections.users import Users

PROJECTIONS: dict[str, type[Projection]] = {
    projection.name: projection
    for projection in (Balances, Conversations, History, Pending, Statement, Users)
}
