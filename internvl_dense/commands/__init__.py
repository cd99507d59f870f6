"""Command-line entry points: standard library at import, everything else when it runs."""
