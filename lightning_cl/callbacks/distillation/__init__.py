"""Methods that let an earlier model teach the present one."""
