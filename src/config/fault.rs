//! What is wrong with a configuration.

use std::fmt;

use super::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Who gave it.
    pub origin: Origin,
    /// The setting, as `limits.rate`, and its bad value as it was written; none where a file as a whole is at fault.
    pub setting: Option<(String, String)>,
    /// What is wrong, or what would be right.
    pub what: String,
}

/// Everything that is wrong with a configuration; at least one thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.setting {
            Some((key, value)) => write!(f, "{}: {key} = {value}: {}", self.origin, self.what),
            None => write!(f, "{}: {}", self.origin, self.what),
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is wrong; nothing was started")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}
