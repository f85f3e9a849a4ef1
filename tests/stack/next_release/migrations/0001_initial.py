from django.db import migrations


class Migration(migrations.Migration):
    """Adds to the two busiest tables, as a release may."""

    dependencies = [("eventstore", "0004_no_statistics_of_keys"), ("projections", "0003_statement")]
    operations = [
        migrations.RunSQL("ALTER TABLE eventstore_event ADD COLUMN next_release integer"),
        migrations.RunSQL("ALTER TABLE projections_history ADD COLUMN next_release integer"),
    ]
