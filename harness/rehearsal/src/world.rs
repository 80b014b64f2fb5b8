//! The world: one API server with its controllers and data planes.
