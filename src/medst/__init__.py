"""Learn from chest X-rays and their reports over space (views) and time (a patient's studies)."""

__version__ = "0.1.0"
