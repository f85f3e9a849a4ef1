"""What is measured, how, and on what; `docs/measured.md` has the figures."""
