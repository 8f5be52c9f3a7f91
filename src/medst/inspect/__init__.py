"""What is in a cohort, as a page to look at and as JSON: `inspect`."""

from medst.inspect.page import inspect, numbers_of

__all__ = ["inspect", "numbers_of"]
