"""What is asked of the log as a whole: statements, proofs, and the ways out of it."""
