//! The picker over real connections, as a gateway and a reader of its records meet it.

mod admin;
mod health;
mod rounds;
mod served;
