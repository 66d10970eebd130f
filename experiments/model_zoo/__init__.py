"""Every config of a data set trained, evaluated and put side by side."""
