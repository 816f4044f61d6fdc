"""Streams Keboola exports into staging tables, then publishes them as bronze, silver and gold in one transaction."""
