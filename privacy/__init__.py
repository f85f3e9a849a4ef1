"""What a user may ask for beyond their account: their data, and to be forgotten."""
