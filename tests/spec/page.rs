//! The page around a drawing, in a real browser: it is searched, walked through by hand and by key, and obeys nobody but
//! itself.
//!
//! It needs `chromium`; so these tests are run by name (`.ci/run` does): `cargo test --test spec -- --ignored page::`.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::{
    diagram::{hostile_run, recorded},
    support::{browser::Browser, program::chitchat},
};

/// A page on disk.
struct Page {
    directory: tempfile::TempDir,
}

impl Page {
    /// Of the report's session.
    async fn of_the_session() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let spans = recorded(directory.path()).await;
        let page = directory.path().join("page.html");
        let drawn = chitchat(["diagram", "--jaeger-links", "http://localhost:16686"])
            .argument("--spans")
            .argument(&spans)
            .argument("--output")
            .argument(&page)
            .run()
            .await;
        assert_eq!(drawn.code, 0, "{}", drawn.stderr);
        Self { directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("page.html")
    }
}

/// The selector of the step of a process at a time.
fn at(process: &str, time: i64) -> String {
    format!(".step[data-process=\"{process}\"][data-time=\"{time}\"]")
}

async fn count(browser: &mut Browser, selector: &str) -> u64 {
    let count = format!("document.querySelectorAll('{selector}').length");
    browser.evaluate(&count).await.as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_click_on_a_step_shows_what_may_have_caused_it_and_what_it_may_have_caused() {
    let page = Page::of_the_session().await;
    let mut browser = Browser::open(&page.file(), "").await;

    // Aske, who cannot see what Alex has just sent in vain.
    browser.click(&format!("{} .point", at("4800", 14))).await;

    let about = browser
        .evaluate("document.getElementById('about').textContent")
        .await;
    let about = about.as_str().unwrap();
    assert!(
        about.contains("Aske sends: I could not see the msg"),
        "{about}"
    );
    assert!(about.contains("L=15 Alex is refused"), "{about}");
    for (process, time, marked) in [
        ("3300", 4, "past"),
        ("server", 12, "past"),
        ("server", 16, "future"),
        ("3300", 47, "future"),
        ("9400", 36, "future"),
    ] {
        let found = count(&mut browser, &format!("{}.{marked}", at(process, time))).await;
        assert_eq!(found, 1, "{process} at {time} is {marked}");
    }
    for (process, time) in [("3300", 14), ("server", 15), ("9400", 1), ("3300", 16)] {
        let marked = format!("{0}.past, {0}.future", at(process, time));
        assert_eq!(count(&mut browser, &marked).await, 0, "{process} at {time}");
        let faded = format!(
            "+getComputedStyle(document.querySelector('{}')).opacity < 0.5",
            at(process, time)
        );
        assert_eq!(browser.evaluate(&faded).await, Value::Bool(true));
    }
    let link = browser
        .evaluate("document.getElementById('trace').href")
        .await;
    let link = link.as_str().unwrap();
    assert!(
        link.starts_with("http://localhost:16686/trace/") && link.ends_with("?uiFind=lamport"),
        "{link}"
    );

    // Elsewhere: all is as before.
    browser.click(".title").await;
    assert_eq!(count(&mut browser, ".past, .future, .selected").await, 0);
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_search_finds_texts_and_participants() {
    let page = Page::of_the_session().await;
    let mut browser = Browser::open(&page.file(), "").await;

    browser.press("/").await;
    for key in ["h", "E", "l", "l", "o"] {
        browser.press(key).await;
    }
    assert_eq!(count(&mut browser, ".event.hit").await, 2);
    let told = browser
        .evaluate("document.getElementById('hits').textContent")
        .await;
    assert_eq!(told, "2 of 19 events");

    browser.press("Escape").await;
    assert_eq!(count(&mut browser, ".event.hit").await, 0);

    // All that Bob sent, read, or was told of: from his JOIN to his end.
    browser.evaluate("location.hash = '#search=bob'").await;
    browser
        .evaluate("new Promise(done => setTimeout(done, 0))")
        .await;
    assert_eq!(count(&mut browser, ".event.hit").await, 7);
    assert_eq!(browser.complaints, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn a_link_leads_to_what_somebody_looks_at_and_keys_go_on_from_there() {
    let page = Page::of_the_session().await;
    let mut browser = Browser::open(&page.file(), "").await;
    browser.click(&format!("{} .point", at("4800", 7))).await;
    let hash = browser.evaluate("location.hash").await;
    drop(browser);

    let fragment = hash.as_str().unwrap().trim_start_matches('#').to_owned();
    let mut browser = Browser::open(&page.file(), &fragment).await;
    let selected = "[document.querySelector('.selected').dataset.process, document.querySelector('.selected').dataset.time].join(' ')";
    assert_eq!(browser.evaluate(selected).await, "4800 7");
    for (key, leads_to) in [
        ("ArrowDown", "4800 8"),
        ("ArrowRight", "server 9"),
        ("ArrowUp", "server 6"),
        ("ArrowLeft", "4800 1"),
    ] {
        browser.press(key).await;
        assert_eq!(browser.evaluate(selected).await, leads_to, "{key}");
    }
    browser.press("Escape").await;
    assert_eq!(count(&mut browser, ".selected").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn the_drawing_is_moved_and_zoomed_and_the_names_stay_in_sight() {
    let page = Page::of_the_session().await;
    let mut browser = Browser::open(&page.file(), "").await;
    let view = "document.getElementById('drawing').getAttribute('viewBox').split(' ').map(Number)";
    let before = browser.evaluate(view).await;

    browser.press("+").await;
    let closer = browser.evaluate(view).await;
    assert!(closer[2].as_f64() < before[2].as_f64(), "{before} {closer}");
    browser.drag((600, 700), (600, 300)).await;
    let moved = browser.evaluate(view).await;
    assert!(moved[1].as_f64() > closer[1].as_f64(), "{closer} {moved}");
    assert_eq!(
        count(&mut browser, ".selected").await,
        0,
        "a drag is no click"
    );
    let top = browser
        .evaluate("document.querySelector('.head').getBoundingClientRect().top - document.getElementById('stage').getBoundingClientRect().top")
        .await;
    assert!((0.0..60.0).contains(&top.as_f64().unwrap()), "{top}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn the_page_is_readable_in_light_and_in_dark() {
    let page = Page::of_the_session().await;
    let mut browser = Browser::open(&page.file(), "").await;
    let colours =
        "['.paper', '.label'].map(one => getComputedStyle(document.querySelector(one)).fill)";
    let mut seen = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        seen.push(browser.evaluate(colours).await);
        // To be looked at: CHITCHAT_TEST_PICTURES names a directory.
        if let Some(directory) = std::env::var_os("CHITCHAT_TEST_PICTURES") {
            let picture = browser.screenshot().await;
            let file = PathBuf::from(directory).join(format!("page-{scheme}.png.base64"));
            fs::write(file, picture).unwrap();
        }
    }
    assert_eq!(seen[0][0], "rgb(255, 255, 255)");
    assert_eq!(seen[1][0], "rgb(13, 17, 23)");
    assert_ne!(seen[0][1], seen[1][1]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn what_is_said_in_a_chat_never_becomes_a_part_of_the_page() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("page.html");
    fs::write(&file, hostile_run("html")).unwrap();
    let mut browser = Browser::open(&file, "search=alert").await;

    assert_eq!(
        count(&mut browser, "script").await,
        2,
        "its data and its own"
    );
    assert_eq!(count(&mut browser, "img, iframe, object, a.evil").await, 0);
    assert_eq!(browser.evaluate("typeof window.pwned").await, "undefined");
    assert!(
        count(&mut browser, ".event.hit").await > 0,
        "as a text it is there"
    );
    // Were it there, it would not run.
    browser
        .evaluate("(() => { const evil = document.createElement('script'); evil.textContent = 'window.pwned = 1'; document.body.append(evil); })()")
        .await;
    assert_eq!(browser.evaluate("typeof window.pwned").await, "undefined");
    assert!(!browser.complaints.is_empty(), "its policy forbids it");
}
