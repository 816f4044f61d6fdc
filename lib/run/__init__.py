"""A run from plan to history: the only package that uses all the others. Reports to a `RunListener`, prints nothing."""
