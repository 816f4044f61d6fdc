"""Run the jobs listed here. Edit the list, or name the jobs: python elt_run_job.py products"""

import sys

from lib.cli.command_line import run_job

if __name__ == "__main__":
    sys.exit(run_job(["products"]))
