"""Using an approval once: select, claim, send, record (DESIGN §5, Execution)."""
