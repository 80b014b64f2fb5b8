//! The picker over real connections, as a gateway and a reader of its records meet it.

mod admin;
mod anything;
mod envoy;
mod health;
mod oracle;
mod rounds;
mod served;
