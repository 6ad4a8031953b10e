from django.db import migrations, models

_ID = models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")


class Migration(migrations.Migration):
    dependencies = [("conversations", "0001_permissions")]

    operations = [
        migrations.CreateModel(
            name="StoredCollection",
            fields=[("id", _ID)],
            options={
                "verbose_name": "collection of documents",
                "verbose_name_plural": "collections of documents",
                "managed": False,
                "default_permissions": ("view", "add", "delete"),
            },
        ),
        migrations.CreateModel(
            name="StoredReference",
            fields=[("id", _ID.clone())],
            options={
                "verbose_name": "reference",
                "verbose_name_plural": "references",
                "managed": False,
                "default_permissions": ("view", "add", "delete"),
            },
        ),
    ]
