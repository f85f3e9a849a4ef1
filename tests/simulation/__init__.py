"""The domain, its followers and its worker as they are, in a world whose time, broker and failures
are made by hypothesis; what they write is checked by a model that shares no code with them."""
