//! What peers call themselves and say does no harm to whoever looks at a drawing.

use chitchat::causality::{diagram::Format, step::Step};
use roxmltree::Document;

use super::draw;
use crate::support::spans::conversation;

/// Names and texts that want to be something else.
const HOSTILE: [&str; 12] = [
    "<script>window.pwned=1;alert(1)</script>",
    "</script><script>window.pwned=1</script>",
    "</title></text></svg><img src=x onerror=window.pwned=1>",
    "\"><a class=\"evil\" href=\"javascript:window.pwned=1\">alert",
    "' onload='window.pwned=1",
    "<!-- ]]> &lt; &#x3c; <![CDATA[",
    "\u{0}\u{1b}[2J\u{7}\r\n\u{85}\u{9b}",
    "\u{202e}evil\u{2066}\u{200f}\u{2028}\u{2029}",
    "\u{fffe}\u{ffff}\u{fdd0}\u{e0041}",
    "end; %% participant #35; `sequenceDiagram`",
    "__proto__",
    "constructor {\"server\":99}",
];

/// A conversation of those who want harm.
pub fn hostile_steps() -> Vec<Step> {
    let mut steps = conversation(3, HOSTILE.len(), 1_790_000_000_000_000_000, 1_000_000);
    for step in &mut steps {
        let message = usize::from(step.id.trace.to_bytes()[15]);
        step.text = HOSTILE[message].to_owned();
        let who = step.participant.len() + message % 3;
        step.participant = HOSTILE[(message % 3) * 3 + who % 3].into();
        step.room = HOSTILE[0].into();
        step.service = HOSTILE[1].into();
        if !step.process.is_service() {
            let id = format!("{}{}", step.process.id, HOSTILE[message % 2 * 2]);
            // One process stays one.
            let id = if step.process.id.ends_with('1') {
                &*step.process.id
            } else {
                &*id
            }
            .to_owned();
            step.process.id = id.into();
        }
    }
    steps
}

/// The page of that conversation.
pub fn hostile_run(format: &str) -> String {
    let format = Format::of_ending(format).expect("it is one");
    draw(hostile_steps(), format)
}

/// Nothing that moves a cursor, turns the direction of writing, or cannot be exchanged.
fn assert_clean(text: &str) {
    for c in text.chars() {
        let code = u32::from(c);
        let bad = (c.is_control() && c != '\n')
            || matches!(code, 0x200E | 0x200F | 0x2028..=0x202E | 0x2066..=0x2069 | 0xFDD0..=0xFDEF | 0xFFFE | 0xFFFF | 0xE0000..=0xE007F);
        assert!(!bad, "U+{code:04X}");
    }
}

#[test]
fn an_svg_is_well_formed_and_has_no_script_whatever_was_said() {
    let svg = draw(hostile_steps(), Format::Svg);
    assert_clean(&svg);
    let document = Document::parse(&svg).expect("well-formed");
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        assert!(
            [
                "svg", "title", "style", "defs", "marker", "path", "rect", "g", "line", "text",
                "tspan", "circle"
            ]
            .contains(&name),
            "{name}"
        );
        for attribute in node.attributes() {
            assert!(!attribute.name().starts_with("on"), "{attribute:?}");
        }
    }
    let said = document.root().descendants().filter_map(|node| node.text());
    let all: String = said.collect();
    assert!(all.contains(HOSTILE[0]), "it is there, as a text");
}

#[test]
fn a_page_has_its_own_two_scripts_and_its_data_is_whole() {
    let page = draw(hostile_steps(), Format::Html);
    assert_clean(&page);
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script").count(), 2);
    assert_eq!(page.matches("<img").count(), 0);
    let data = page.split("id=\"told\">").nth(1).unwrap();
    let data = data.split("</script>").next().unwrap();
    let told: serde_json::Value = serde_json::from_str(data).unwrap();
    let texts = told["events"].as_array().unwrap().iter();
    let mut texts = texts.map(|event| event["text"].as_str().unwrap());
    assert!(texts.any(|text| text.contains(HOSTILE[1])));
    let policy = "default-src &#39;none&#39;; style-src &#39;sha256-";
    assert!(page.contains(policy));
}

#[test]
fn texts_for_terminals_and_other_programs_are_clean() {
    for format in [Format::Text, Format::Mermaid, Format::Shiviz] {
        assert_clean(&draw(hostile_steps(), format));
    }
}
