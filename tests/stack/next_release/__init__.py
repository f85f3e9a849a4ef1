"""A release to come: another migration, and a read model that has to be built anew."""
