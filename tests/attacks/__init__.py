"""Bad input and hostile clients, one home for each row of the table of attacks."""
