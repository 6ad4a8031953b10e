"""The tests that ``daram.testing.StoreTests`` is made of, by subject."""
