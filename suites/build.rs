//! Cases are made of the gateways' folders when the suites are compiled: a new folder must compile them again.
fn main() {
    println!("cargo::rerun-if-changed=../manifests/gateways");
}
