"""Run every job of elt_jobs.json in dependency order. Cron calls this script each morning."""

import sys

from lib.cli.command_line import run_job

if __name__ == "__main__":
    sys.exit(run_job([]))
