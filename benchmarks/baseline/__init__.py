"""The same five endpoints without events: what Chatledger is measured against."""
