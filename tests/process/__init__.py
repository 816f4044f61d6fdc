"""Tests that start processes: the program as cron or a person starts it, also killed or stopped."""
