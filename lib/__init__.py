"""Keboola exports stream into staging tables, and one transaction publishes them as bronze, silver and gold."""
