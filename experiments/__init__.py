"""Studies: one folder each, run as a module, which write their tables and figures."""
