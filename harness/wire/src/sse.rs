//! Server-sent events, read byte by byte as the HTML standard says, and faults kept instead of repaired.
