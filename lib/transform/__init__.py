"""SQL scripts: reading them, what they may not do, running them, their checks. It knows no run, group or export."""
