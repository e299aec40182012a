"""Jobs as bubblewrap sandboxes on this machine."""
