"""PostgreSQL keeps samples of a column's values in a table of its own: not of wrapped keys."""

from django.db import migrations


def no_statistics(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "ALTER TABLE eventstore_datakey ALTER COLUMN wrapped SET STATISTICS 0"
        )
        # A change of the type, be it to the same one, forgets what was sampled.
        schema_editor.execute("ALTER TABLE eventstore_datakey ALTER COLUMN wrapped TYPE bytea")


class Migration(migrations.Migration):
    dependencies = [("eventstore", "0003_seals_and_destructions")]
    operations = [migrations.RunPython(no_statistics, migrations.RunPython.noop)]
