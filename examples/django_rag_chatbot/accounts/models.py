from django.contrib.auth.models import AbstractUser
from django.db import models, transaction
from django.db.models.signals import post_delete
from django.dispatch import receiver

from daram.adapters.django import get_memory, owner_of


class User(AbstractUser):
    nickname = models.CharField(max_length=50, blank=True)


@receiver(post_delete, sender=User)
def forget(instance, **_):
    """What users said goes with them."""
    owner = owner_of(instance)
    transaction.on_commit(lambda: get_memory().delete_owner(owner))
