"""Seals: signed checkpoints over the log, by which a change of what was stored is found."""
