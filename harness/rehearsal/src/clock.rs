//! The clock: the one source of now in a world.
