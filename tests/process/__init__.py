"""Tests that start processes: the program as cron and people start it, killed, told to stop, or just looked at."""
