"""Django's SQLite, but for a file that is not there: a database is made by `migrate` alone."""
