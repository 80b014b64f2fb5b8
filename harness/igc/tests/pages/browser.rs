//! A headless Chromium: what it makes of a page, and its keyboard, over the pipe of its debugging protocol.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How many frames a page may take to do what a key asks for.
const FRAMES: usize = 600;

const ARGUMENTS: &str = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync \
                         --disable-background-networking --disable-component-update --hide-scrollbars";

pub struct Browser {
    program: PathBuf,
    profile: TempDir,
}

pub struct Shown {
    pub dom: String,
    pub said: String,
}

impl Browser {
    pub fn find() -> Option<Self> {
        let program = testtools::in_path("browser", &["chromium", "chromium-browser", "google-chrome"])?;
        Some(Self { program, profile: tempfile::tempdir().unwrap() })
    }

    pub fn call(&self, words: &[&str], page: &Path) -> (String, String) {
        let mut command = Command::new(&self.program);
        command
            .args(self.arguments())
            .arg("--enable-logging=stderr")
            .args(words)
            .arg(format!("file://{}", page.display()));
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    }

    fn arguments(&self) -> Vec<String> {
        let profile = format!("--user-data-dir={}", self.profile.path().display());
        ARGUMENTS.split(' ').map(str::to_owned).chain([profile]).collect()
    }

    pub fn dom(&self, page: &Path) -> Shown {
        let (dom, said) = self.call(&["--dump-dom"], page);
        Shown { dom, said }
    }
}

pub struct Keyboard {
    child: Child,
    say: File,
    hear: BufReader<File>,
    session: Option<String>,
    said: u64,
}

impl Keyboard {
    pub fn at(browser: &Browser, page: &Path) -> Self {
        let (to, from) = (browser.profile.path().join("to"), browser.profile.path().join("from"));
        let made = Command::new("mkfifo").args([&to, &from]).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo failed");
        // The browser hears on its file 3 and says on its file 4.
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<\"$TO\" 4>\"$FROM\""])
            .arg(&browser.program)
            .args(browser.arguments())
            .args(["--remote-debugging-pipe", "about:blank"])
            .env("TO", &to)
            .env("FROM", &from)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let say = OpenOptions::new().write(true).open(to).unwrap();
        let hear = BufReader::new(File::open(from).unwrap());
        let mut keyboard = Self { child, say, hear, session: None, said: 0 };
        let targets = keyboard.ask("Target.getTargets", json!({}));
        let is_page = |target: &&Value| target["type"] == "page";
        let target = targets["targetInfos"].as_array().and_then(|all| all.iter().find(is_page)).unwrap().clone();
        let attached = keyboard.ask("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        keyboard.session = attached["sessionId"].as_str().map(str::to_owned);
        keyboard.ask("Page.enable", json!({}));
        keyboard.tell("Page.navigate", json!({"url": format!("file://{}", page.display())}));
        while keyboard.hears()["method"] != "Page.loadEventFired" {}
        keyboard
    }

    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            letter => (0, letter),
        };
        let stroke = |kind: &str| json!({"type": kind, "key": key, "windowsVirtualKeyCode": code});
        let mut down = stroke("keyDown");
        if !text.is_empty() {
            down["text"] = json!(text);
        }
        self.ask("Input.dispatchKeyEvent", down);
        self.ask("Input.dispatchKeyEvent", stroke("keyUp"));
    }

    pub fn write(&mut self, text: &str) {
        text.chars().for_each(|letter| self.press(&letter.to_string()));
    }

    /// Waits, frame by frame, until an expression has this value: what a key sets off comes after it.
    pub fn until(&mut self, expression: &str, expected: impl Into<Value>) {
        let expected = expected.into();
        let frame = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))";
        for _ in 0..FRAMES {
            if self.read(expression) == expected {
                return;
            }
            self.ask("Runtime.evaluate", json!({"expression": frame, "awaitPromise": true}));
        }
        panic!("{expression} is {} after {FRAMES} frames, and not {expected}", self.read(expression));
    }

    pub fn read(&mut self, expression: &str) -> Value {
        let came = self.ask("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        assert!(came["exceptionDetails"].is_null(), "{came}");
        came["result"]["value"].clone()
    }

    fn tell(&mut self, method: &str, parameters: Value) -> u64 {
        self.said += 1;
        let mut message = json!({"id": self.said, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.say.write_all(format!("{message}\0").as_bytes()).unwrap();
        self.said
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        let id = self.tell(method, parameters);
        loop {
            let heard = self.hears();
            if heard["id"] == id {
                assert!(heard["error"].is_null(), "{method}: {heard}");
                return heard["result"].clone();
            }
        }
    }

    fn hears(&mut self) -> Value {
        let mut message = vec![];
        self.hear.read_until(0, &mut message).unwrap();
        message.pop().expect("the browser has gone");
        serde_json::from_slice(&message).unwrap()
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
