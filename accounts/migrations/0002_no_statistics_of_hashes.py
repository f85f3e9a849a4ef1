"""PostgreSQL keeps samples of a column's values in a table of its own: not of passwords' hashes."""

from django.db import migrations


def no_statistics(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        table = "ALTER TABLE accounts_credential ALTER COLUMN password_hash"
        schema_editor.execute(f"{table} SET STATISTICS 0")
        # A change of the type, be it to the same one, forgets what was sampled.
        schema_editor.execute(f"{table} TYPE text")


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]
    operations = [migrations.RunPython(no_statistics, migrations.RunPython.noop)]
