//! OTLP JSON, as far as steps need it: read straight from the text, span by span.
//!
//! The generated types of OTLP would hold everything that a document says, and all of it at once; a recording of 100,000
//! spans needs a fraction of that.
//!
//! Read as the [encoding](https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding) demands: integers as texts or
//! as numbers, ids in hexadecimal digits, unknown fields passed over, missing ones (and `null`) their default. A document
//! may also be a whole answer of Jaeger, which has the same in a `result`.

use std::{borrow::Cow, fmt, mem};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::gathering::{Gathering, Program};

/// Why a text is no OTLP JSON.
#[derive(Debug)]
pub(super) struct Malformed {
    /// In the text, from 1.
    pub(super) line: usize,
    /// In the line, from 1.
    pub(super) column: usize,
    /// The text ends in the middle: it was cut off.
    pub(super) cut_off: bool,
    /// What is wrong.
    pub(super) words: String,
}

/// Reads the documents of `text`, one after the other, into `gathering`. Of a malformed one, the programs that came
/// before the fault are kept.
pub(super) fn read(text: &[u8], gathering: &mut Gathering) -> Result<(), Malformed> {
    let mut json = serde_json::Deserializer::from_slice(text);
    while json.end().is_err() {
        if let Err(error) = In(&mut Document(gathering)).deserialize(&mut json) {
            gathering.discard();
            return Err(malformed(&error));
        }
    }
    Ok(())
}

fn malformed(error: &serde_json::Error) -> Malformed {
    let words = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    Malformed {
        line: error.line(),
        column: error.column(),
        cut_off: error.is_eof(),
        words: words.strip_suffix(&place).unwrap_or(&words).to_owned(),
    }
}

/// A part of a document that is read where it stands, instead of being made into a value.
trait Part {
    fn read<'de, D: Deserializer<'de>>(&mut self, part: D) -> Result<(), D::Error>;
}

/// A part that is an object; others and `null` have no fields.
trait Object {
    fn field<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;

    /// The object is complete.
    fn end(&mut self) {}
}

/// `{"resourceSpans":[...]}`, or `{"result":{"resourceSpans":[...]}}`.
struct Document<'a>(&'a mut Gathering);

/// One program's spans: `{"resource":{...},"scopeSpans":[...]}`, in whichever order.
struct ResourceSpans<'a> {
    gathering: &'a mut Gathering,
    program: Program,
}

/// `{"spans":[...]}`
struct ScopeSpans<'a>(&'a mut Gathering);

/// One element of `spans`.
struct Spans<'a>(&'a mut Gathering);

impl Object for Document<'_> {
    fn field<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let gathering = &mut *self.0;
        match name {
            "resourceSpans" => map.next_value_seed(Each(&mut ResourceSpans {
                gathering,
                program: Program::default(),
            })),
            "result" => map.next_value_seed(In(&mut Document(gathering))),
            "error" => {
                gathering.refusal = map.next_value()?;
                Ok(())
            }
            "data" => {
                gathering.other_form = true;
                passed_over(map)
            }
            _ => passed_over(map),
        }
    }
}

impl Object for ResourceSpans<'_> {
    fn field<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "resource" => {
                let resource: Option<Resource<'_>> = map.next_value()?;
                self.program = self.gathering.program(&resource.unwrap_or_default());
                Ok(())
            }
            "scopeSpans" => map.next_value_seed(Each(&mut ScopeSpans(self.gathering))),
            _ => passed_over(map),
        }
    }

    fn end(&mut self) {
        self.gathering.keep(&mem::take(&mut self.program));
    }
}

impl Object for ScopeSpans<'_> {
    fn field<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "spans" => map.next_value_seed(Each(&mut Spans(self.0))),
            _ => passed_over(map),
        }
    }
}

impl Part for Spans<'_> {
    fn read<'de, D: Deserializer<'de>>(&mut self, part: D) -> Result<(), D::Error> {
        let span = Span::deserialize(part)?;
        self.0.take(&span).map_err(de::Error::custom)
    }
}

fn passed_over<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(drop)
}

/// Reads one part.
struct In<'a, P>(&'a mut P);

impl<'de, P: Part> DeserializeSeed<'de> for In<'_, P> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, part: D) -> Result<(), D::Error> {
        self.0.read(part)
    }
}

impl<O: Object> Part for O {
    fn read<'de, D: Deserializer<'de>>(&mut self, part: D) -> Result<(), D::Error> {
        part.deserialize_any(Fields(self))
    }
}

/// Reads the fields of an object.
struct Fields<'a, O>(&'a mut O);

impl<'de, O: Object> Visitor<'de> for Fields<'_, O> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            self.0.field(&name, &mut map)?;
        }
        self.0.end();
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads each element of an array.
struct Each<'a, P>(&'a mut P);

impl<'de, P: Part> DeserializeSeed<'de> for Each<'_, P> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, part: D) -> Result<(), D::Error> {
        part.deserialize_any(self)
    }
}

impl<'de, P: Part> Visitor<'de> for Each<'_, P> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(In(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Why Jaeger gives no spans.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    /// In its words.
    pub(super) message: String,
}

/// The program that spans are of.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Resource<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub(super) attributes: Attributes<'a>,
}

/// A span, with what a step is made of.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Span<'a> {
    pub(super) trace_id: Id<16>,
    pub(super) span_id: Id<8>,
    pub(super) parent_span_id: Id<8>,
    pub(super) start_time_unix_nano: Integer,
    pub(super) end_time_unix_nano: Integer,
    #[serde(borrow, deserialize_with = "or_default")]
    pub(super) attributes: Attributes<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub(super) status: Status<'a>,
}

/// How what a span stands for ended.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status<'a> {
    /// Why it failed.
    #[serde(borrow)]
    pub(super) message: Text<'a>,
}

/// Names and their values.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Attributes<'a>(#[serde(borrow)] Vec<Attribute<'a>>);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attribute<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    value: Value<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Value<'a> {
    #[serde(borrow)]
    string_value: Text<'a>,
    int_value: Integer,
    #[serde(deserialize_with = "or_default")]
    bool_value: bool,
}

impl Attributes<'_> {
    /// The text `name`; empty where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.value(name).map_or("", |value| &value.string_value.0)
    }

    /// The integer `name`; none where there is none, or something else.
    pub(super) fn integer<I: TryFrom<i128>>(&self, name: &str) -> Option<I> {
        self.value(name).and_then(|value| value.int_value.get())
    }

    /// Whether `name` is true.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value.bool_value)
    }

    /// Whether there is a value `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn value(&self, name: &str) -> Option<&Value<'_>> {
        let mut attributes = self.0.iter();
        let found = attributes.find(|attribute| attribute.key.0 == name);
        found.map(|attribute| &attribute.value)
    }
}

/// A text, of the document itself where it is written without escapes; empty for `null`.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

/// An integer, as a number or a text; none for everything else.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Integer(Option<i128>);

impl Integer {
    /// None where it is none, or does not fit.
    pub(super) fn get<I: TryFrom<i128>>(self) -> Option<I> {
        self.0.and_then(|integer| integer.try_into().ok())
    }
}

/// `N` bytes, as twice as many hexadecimal digits; none for everything else, and for zeros alone.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Id<const N: usize>(pub(super) Option<[u8; N]>);

impl<const N: usize> Id<N> {
    fn parse(digits: &str) -> Option<[u8; N]> {
        let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
            return None;
        };
        let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
        let mut bytes = [0; N];
        if pairs.len() != N {
            return None;
        }
        for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(high)? << 4 | digit(low)?;
        }
        (bytes != [0; N]).then_some(bytes)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Text::default())
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_any(IntegerVisitor)
    }
}

struct IntegerVisitor;

impl Visitor<'_> for IntegerVisitor {
    type Value = Integer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer, as a number or a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Integer, E> {
        Ok(Integer(text.parse().ok()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Integer, E> {
        Ok(Integer(Some(number.into())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Integer, E> {
        Ok(Integer(Some(number.into())))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Integer, E> {
        Ok(Integer(None))
    }

    fn visit_unit<E>(self) -> Result<Integer, E> {
        Ok(Integer(None))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Id<N> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let digits = Text::deserialize(value)?;
        Ok(Self(Self::parse(&digits.0)))
    }
}

/// `null` stands for the default.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    value: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}
