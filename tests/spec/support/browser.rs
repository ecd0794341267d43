//! A real Chromium without a window, told what to do through its DevTools protocol.

use std::{path::Path, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::within;

/// A browser with one page; it is killed when this is dropped.
pub struct Browser {
    _process: Child,
    _directory: tempfile::TempDir,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: String,
    calls: u64,
    /// What the page complained about: exceptions, and what its policy forbade.
    pub complaints: Vec<String>,
}

impl Browser {
    /// Opens `file`, with `fragment` behind its address, and waits until it is ready.
    pub async fn open(file: &Path, fragment: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the browser");
        let profile = format!("--user-data-dir={}", directory.path().display());
        // The protocol's pipes are descriptors 3 and 4; the shell makes them of standard input and output.
        let mut process = Command::new("sh")
            .args([
                "-c",
                "exec 3<&0 4>&1 </dev/null >/dev/null 2>&1; exec chromium \"$@\"",
                "chromium",
            ])
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run"])
            .args(["--remote-debugging-pipe", "--window-size=1200,900"])
            .args([&profile, "about:blank"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("chromium starts");
        let to = process.stdin.take().expect("it was asked for");
        let from = BufReader::new(process.stdout.take().expect("it was asked for"));
        let mut browser = Self {
            _process: process,
            _directory: directory,
            to,
            from,
            session: String::new(),
            calls: 0,
            complaints: Vec::new(),
        };
        let page = browser
            .call("Target.createTarget", json!({ "url": "about:blank" }))
            .await;
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        let url = format!("file://{}#{fragment}", file.display());
        browser.call("Page.navigate", json!({ "url": url })).await;
        let ready = "new Promise(done => { const look = () => document.body && document.body.dataset.ready ? done(true) : setTimeout(look, 20); look(); })";
        browser.evaluate(ready).await;
        browser
    }

    /// The value of a JavaScript expression on the page; of a promise, what it comes to.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let evaluate =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", evaluate).await;
        assert!(result["exceptionDetails"].is_null(), "{result}");
        result["result"]["value"].clone()
    }

    /// Clicks into the middle of the first element that `selector` finds.
    pub async fn click(&mut self, selector: &str) {
        let place = format!(
            "(() => {{ const box = document.querySelector('{selector}').getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let place = self.evaluate(&place).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Drags the mouse from one place to another.
    pub async fn drag(&mut self, from: (i32, i32), to: (i32, i32)) {
        let events = [
            ("mousePressed", from),
            ("mouseMoved", ((from.0 + to.0) / 2, (from.1 + to.1) / 2)),
            ("mouseMoved", to),
            ("mouseReleased", to),
        ];
        for (kind, (x, y)) in events {
            let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Presses a key, by its name in the browser: `Escape`, `ArrowDown`, `a`.
    pub async fn press(&mut self, key: &str) {
        let text = if key.chars().count() == 1 { key } else { "" };
        let text = if key == "Enter" { "\r" } else { text };
        let code = if key == "Enter" { 13 } else { 0 };
        let down =
            json!({ "type": "keyDown", "key": key, "text": text, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", down).await;
        let up = json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", up).await;
    }

    /// As if the system preferred `scheme`: `light`, `dark`.
    pub async fn prefer(&mut self, scheme: &str) {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media).await;
    }

    /// The page as a PNG, in base64.
    pub async fn screenshot(&mut self) -> String {
        let shot = self.call("Page.captureScreenshot", json!({})).await;
        shot["data"].as_str().expect("a picture").to_owned()
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": params });
        if !self.session.is_empty() {
            call["sessionId"] = self.session.as_str().into();
        }
        let mut message = call.to_string().into_bytes();
        message.push(0);
        self.to.write_all(&message).await.expect("it listens");
        within(method, self.answer()).await
    }

    async fn answer(&mut self) -> Value {
        loop {
            let mut message = Vec::new();
            self.from
                .read_until(0, &mut message)
                .await
                .expect("it answers");
            assert_eq!(message.pop(), Some(0), "chromium is gone");
            let message: Value = serde_json::from_slice(&message).expect("it speaks JSON");
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{message}");
                return message["result"].clone();
            }
            let complains = ["Runtime.exceptionThrown", "Log.entryAdded"];
            if message["method"]
                .as_str()
                .is_some_and(|method| complains.contains(&method))
            {
                self.complaints.push(message["params"].to_string());
            }
        }
    }
}
