"""Methods that put small trained parts into a frozen backbone."""
