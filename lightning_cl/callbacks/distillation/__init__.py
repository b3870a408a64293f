"""Methods in which an earlier model teaches the present one."""
