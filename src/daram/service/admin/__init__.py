"""The administration at /admin/: users and keys, and conversations as the store gives them."""
