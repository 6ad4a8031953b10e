"""The parts of ``daram.testing.StoreMachine``."""
