"""Run the jobs listed here. Edit the list, or name the jobs: python elt_run_job.py products"""

from lib.cli.command_line import leave, run_job

if __name__ == "__main__":
    leave(run_job(["products"]))
