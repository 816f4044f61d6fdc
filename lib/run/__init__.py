"""A run from plan to history: the only room that knows all workers. It prints nothing: it tells a `RunListener`."""
