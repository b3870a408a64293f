"""Methods that let the network grow with the tasks."""
