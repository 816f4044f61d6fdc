"""Run every job of elt_jobs.json in dependency order. Cron calls this script each morning."""

from lib.cli.command_line import leave, run_job

if __name__ == "__main__":
    leave(run_job([]))
