//! Writes XML, which is also HTML's way of writing SVG: every text and value escaped, every element closed.

use std::fmt::{self, Display, Write as _};

use crate::room::text::is_deceptive;

/// XML as it is written.
#[derive(Debug, Default)]
pub(super) struct Markup {
    out: String,
    open: Vec<&'static str>,
}

/// An element's attributes, in their order.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

impl Markup {
    /// Begins an element; [`Markup::end`] ends it.
    pub(super) fn start(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.tag(name, attributes);
        self.out.push('>');
        self.open.push(name);
    }

    /// Ends the element that was begun last.
    pub(super) fn end(&mut self) {
        if let Some(name) = self.open.pop() {
            self.out.push_str("</");
            self.out.push_str(name);
            self.out.push_str(">\n");
        }
    }

    /// An element with nothing in it.
    pub(super) fn empty(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.tag(name, attributes);
        self.out.push_str("/>\n");
    }

    /// An element with a text in it.
    pub(super) fn leaf(
        &mut self,
        name: &'static str,
        attributes: Attributes<'_>,
        text: impl Display,
    ) {
        self.start(name, attributes);
        self.escaped(text);
        self.end();
    }

    /// What is XML already, and ours.
    pub(super) fn raw(&mut self, xml: &str) {
        self.out.push_str(xml);
    }

    /// All of it; what is still open is closed.
    pub(super) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.end();
        }
        self.out
    }

    fn tag(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.out.push('<');
        self.out.push_str(name);
        for (key, value) in attributes {
            self.out.push(' ');
            self.out.push_str(key);
            self.out.push_str("=\"");
            self.escaped(value);
            self.out.push('"');
        }
    }

    fn escaped(&mut self, text: impl Display) {
        // Writing to a String cannot fail; that a Display says it did would leave out the rest of that text alone.
        let _ = write!(Escape(&mut self.out), "{text}");
    }
}

/// Replaces what means something to XML, and what XML may not have at all.
struct Escape<'a>(&'a mut String);

impl fmt::Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' => self.0.push('\n'),
                c if is_deceptive(c) => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_xml_is_escaped_in_texts_and_values() {
        let mut markup = Markup::default();
        markup.leaf("a", &[("b", &"\"'<&>")], "</a><script>\u{0}\u{202e}");
        assert_eq!(
            markup.finish(),
            "<a b=\"&quot;&#39;&lt;&amp;&gt;\">&lt;/a&gt;&lt;script&gt;\u{fffd}\u{fffd}</a>\n"
        );
    }

    #[test]
    fn what_is_open_is_closed() {
        let mut markup = Markup::default();
        markup.start("a", &[]);
        markup.start("b", &[]);
        markup.empty("c", &[]);
        assert_eq!(markup.finish(), "<a><b><c/>\n</b>\n</a>\n");
    }
}
