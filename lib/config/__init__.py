"""Reads what the user configured: settings, secrets and the registry of jobs. Nothing here connects to a server."""
