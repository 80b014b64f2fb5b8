//! The Kubernetes client against a scripted API server: what it asks, and what it makes of the answers.

mod api {
    mod address;
    mod apply;
    mod connect;
    mod evidence;
    mod pods;
    mod wait;
}
mod place {
    mod context;
    mod sweep;
}
mod scripted;
