//! `igc picker` as a program: what it says to bad input, that its help can be followed, and that it serves until it is told
//! to stop.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use rstest::rstest;

fn igc(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_igc"));
    command.arg("picker").args(words).env_clear().stdin(Stdio::null());
    command
}

#[rstest]
#[case::neither_pool_nor_endpoints(&[], 2, "--endpoints <ADDRESS:PORT,...>")]
#[case::both(&["--endpoints", "a:1", "--pool-name", "p"], 2, "cannot be used with")]
#[case::no_port(&["--endpoints", "10.0.0.1"], 2, "ADDRESS:PORT expected, for example 10.0.0.1:8000")]
#[case::group(&["--pool-name", "p", "--pool-group", "example.com"], 2, "inference.networking.k8s.io, inference.networking.x-k8s.io")]
#[case::no_pod(&["--pool-name", "p"], 2, "this is not a pod with a service account")]
#[case::no_kubeconfig(&["--pool-name", "p", "--kubeconfig", "/nowhere/config"], 2, "kubeconfig /nowhere/config")]
#[case::no_config_file(&["--endpoints", "a:1", "--config-file", "/nowhere/config"], 2, "failed to read /nowhere/config")]
#[case::config(&["--endpoints", "a:1", "--config-text", "kind: X"], 2, "--config-text: EndpointPickerConfig: ")]
#[case::no_certificate(&["--endpoints", "a:1", "--cert-path", "/nowhere"], 2, "failed to read /nowhere/tls.crt")]
#[case::port_is_taken(&["--endpoints", "a:1", "--grpc-port", "1", "--secure-serving=false"], 3, "port 1 for ext_proc (plaintext)")]
fn bad_input_is_refused_in_words(#[case] words: &[&str], #[case] code: i32, #[case] says: &str) {
    let held = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let words: Vec<&str> = words.iter().map(|word| if *word == "1" { port.as_str() } else { word }).collect();
    let output = igc(&words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).replace(&port, "1");
    assert_eq!((output.status.code(), error.contains(says)), (Some(code), true), "{error}");
}

#[test]
fn it_serves_until_it_is_told_to_stop() {
    let help = igc(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let from = help.find("  apiVersion:").expect("a configuration in the help");
    let config = &help[from..from + help[from..].find("\nWithout one").expect("its end")];

    let ports = ["--grpc-port", "0", "--grpc-health-port", "0", "--records-port", "0"];
    let mut picker = igc(&["--endpoints", "10.0.0.1:8000,10.0.0.2:8000", "--config-text", config])
        .args(ports)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(picker.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<(String, String)> = lines
        .by_ref()
        .take(3) // fewer where it has ended
        .map(|line| line.split_once(": ").map(|(what, at)| (what.to_owned(), at.to_owned())).unwrap())
        .collect();
    let what: Vec<&str> = said.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(what, ["ext_proc (TLS)", "health", "records"]);
    let port: u16 = said[2].1.rsplit(':').next().unwrap().parse().unwrap();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: picker\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/igc/marker?x-igc-exchange=here").starts_with("HTTP/1.1 200 "));
    let records = get("/igc/records");
    assert!(records.contains("\"exchange\":\"here\"") && records.contains("\"reason\":\"marker\""), "{records}");
    let killed = Command::new("kill").arg(picker.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert_eq!(picker.wait().unwrap().code(), Some(0));
}
