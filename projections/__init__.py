"""What clients read: projections of the log that can be thrown away and rebuilt."""
