"""The web page: look at a patient over time."""
