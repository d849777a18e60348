"""The command ``poolhouse``. Each sub-command is a module with ``add_parser``."""
