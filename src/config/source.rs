//! Where settings come from: a file, the environment, the command line.

use std::{ffi::OsString, fmt, fs, path::PathBuf};

use figment::{
    Metadata, Profile, Provider, Source,
    util::nest,
    value::{Dict, Map, Value},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Fault;

/// The variable that names the file.
const FILE_VARIABLE: &str = "CHITCHAT_CONFIG";

/// What the configuration is read from.
#[derive(Debug, Default)]
pub struct Sources {
    /// `--config`. Without it the variable `CHITCHAT_CONFIG` is asked, without that there is no file.
    pub file: Option<PathBuf>,
    /// The environment. Of it only `CHITCHAT_CONFIG` and the variables with a double underscore are looked at, such as
    /// `CHITCHAT_LIMITS__RATE`: Kubernetes makes a `CHITCHAT_PORT` of its own for a service named `chitchat`. An empty
    /// variable is as good as none.
    pub variables: Vec<(OsString, OsString)>,
    /// The flags that are settings.
    pub flags: Vec<Given>,
}

/// Who gave a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file, and the line in it where that is known (from 1).
    File(PathBuf, Option<usize>),
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line, without its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, Some(line)) => write!(f, "{}:{line}", path.display()),
            Self::File(path, None) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// A value that somebody gave, not judged yet.
#[derive(Debug, Clone)]
pub struct Given {
    /// Section and name: `limits.rate`; or whatever stands there instead.
    pub(super) key: String,
    /// What was given.
    pub(super) value: Written,
    /// The same as it was written, for messages.
    pub(super) source_text: String,
    /// By whom.
    pub(super) origin: Origin,
}

/// A value as its layer can tell it.
#[derive(Debug, Clone)]
pub(super) enum Written {
    /// From a variable or a flag: the setting decides whether it is read as a number, a switch or a text.
    Untyped(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Boolean(bool),
    /// Any other TOML value; no setting is made of one.
    Other,
}

impl Given {
    /// A setting from a flag: `--name value`.
    #[must_use]
    pub fn flag(name: &str, key: &str, value: &str) -> Self {
        Self::untyped(key, value, Origin::Flag(name.into()))
    }

    fn untyped(key: &str, value: &str, origin: Origin) -> Self {
        Self {
            key: key.into(),
            value: Written::Untyped(value.into()),
            source_text: format!("{value:?}"),
            origin,
        }
    }

    /// The layer that this value is once it was judged: `value` under its key, with its origin.
    pub(super) fn accepted(&self, value: Value) -> impl Provider {
        Accepted {
            origin: self.origin.to_string(),
            data: nest(&self.key, value),
        }
    }

    /// This is wrong; `what` would be right.
    pub(super) fn fault(&self, what: String) -> Fault {
        Fault {
            origin: self.origin.clone(),
            setting: Some((self.key.clone(), self.source_text.clone())),
            what,
        }
    }
}

impl Written {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Untyped(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Untyped(text) => text.trim().parse().ok(),
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self {
            Self::Untyped(text) => text.trim().parse().ok(),
            Self::Boolean(boolean) => Some(*boolean),
            _ => None,
        }
    }
}

/// A single value as a layer of a figment, so that figment remembers the origin of each.
struct Accepted {
    origin: String,
    data: Value,
}

impl Provider for Accepted {
    fn metadata(&self) -> Metadata {
        Metadata::from("setting", Source::Custom(self.origin.clone()))
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let dict = self.data.clone().into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(dict))
    }
}

/// Everything that was given, in the order of the layers, and what could not be read at all.
pub(super) fn read(sources: Sources) -> (Vec<Given>, Vec<Fault>) {
    let (mut given, mut faults) = (Vec::new(), Vec::new());
    let mut variables = Vec::new();
    let mut file = sources
        .file
        .map(|path| (path, Origin::Flag("config".into())));
    for (name, value) in sources.variables {
        let Ok(name) = name.into_string() else {
            continue;
        };
        if value.is_empty() {
            continue;
        }
        if name == FILE_VARIABLE {
            file.get_or_insert((value.into(), Origin::Variable(name)));
        } else if let Some(key) = key_of(&name) {
            let origin = Origin::Variable(name);
            match value.into_string() {
                Ok(value) => variables.push(Given::untyped(&key, &value, origin)),
                Err(value) => faults.push(Fault {
                    origin,
                    setting: Some((key, format!("{value:?}"))),
                    what: "not UTF-8".into(),
                }),
            }
        }
    }
    // The environment has no order of its own; that of the names makes the same list of faults each time.
    variables.sort_by_cached_key(|given| given.origin.to_string());

    if let Some((path, named_by)) = file {
        match read_file(path, named_by) {
            Ok(settings) => given.extend(settings),
            Err(wrong) => faults.extend(wrong),
        }
    }
    given.extend(variables);
    given.extend(sources.flags);
    (given, faults)
}

/// `limits.rate` for `CHITCHAT_LIMITS__RATE`; none for a variable that is not ours.
fn key_of(variable: &str) -> Option<String> {
    let key = variable.strip_prefix("CHITCHAT_")?;
    key.contains("__")
        .then(|| key.to_lowercase().replace("__", "."))
}

fn read_file(path: PathBuf, named_by: Origin) -> Result<Vec<Given>, Vec<Fault>> {
    let text = fs::read_to_string(&path).map_err(|error| {
        vec![Fault {
            origin: named_by,
            setting: None,
            what: format!("cannot read {}: {error}", path.display()),
        }]
    })?;
    let line = |offset: usize| {
        text.bytes()
            .take(offset)
            .filter(|byte| *byte == b'\n')
            .count()
            + 1
    };
    let (table, errors) = DeTable::parse_recoverable(&text);
    if errors.is_empty() {
        let mut leaves = Vec::new();
        collect_leaves("", table.get_ref(), &mut leaves);
        leaves.sort_by_key(|(_, value)| value.span().start);
        let given = |(key, value): (String, &Spanned<DeValue<'_>>)| Given {
            key,
            value: written(value.get_ref()),
            source_text: text.get(value.span()).unwrap_or_default().into(),
            origin: Origin::File(path.clone(), Some(line(value.span().start))),
        };
        return Ok(leaves.into_iter().map(given).collect());
    }
    let fault = |error: toml::de::Error| Fault {
        origin: Origin::File(path.clone(), error.span().map(|span| line(span.start))),
        setting: None,
        what: format!("not TOML: {}", error.message()),
    };
    Err(errors.into_iter().map(fault).collect())
}

/// The values below `table` that are no tables themselves, with their dotted keys.
fn collect_leaves<'t, 's>(
    prefix: &str,
    table: &'t DeTable<'s>,
    leaves: &mut Vec<(String, &'t Spanned<DeValue<'s>>)>,
) {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => collect_leaves(&format!("{key}."), inner, leaves),
            _ => leaves.push((key, value)),
        }
    }
}

fn written(value: &DeValue<'_>) -> Written {
    match value {
        DeValue::String(text) => Written::Text(text.to_string()),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map_or(Written::Other, Written::Integer),
        DeValue::Boolean(boolean) => Written::Boolean(*boolean),
        _ => Written::Other,
    }
}
