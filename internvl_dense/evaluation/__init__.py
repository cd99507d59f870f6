"""Metrics that are exact, and tables and curves that say what they show."""
