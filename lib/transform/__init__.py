"""SQL scripts: splitting them, what they may not contain, running them and checks. Depends on no run or export."""
