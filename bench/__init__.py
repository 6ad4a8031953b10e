"""What Daram costs, measured here and now: ``python -m bench``. The ratios count; the times are the machine's."""
