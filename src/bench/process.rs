//! What a process has used, as Linux tells it.

use std::{fs, io, time::Duration};

use rustix::param::{clock_ticks_per_second, page_size};

/// What a process has used up to now, all its threads together.
///
/// The CPU time is counted in ticks (10 ms on Linux), so a run should last seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// In user mode.
    pub(super) user: Duration,
    /// In kernel mode.
    pub(super) system: Duration,
    /// Memory that is in use now (resident set).
    pub(super) rss_bytes: u64,
}

/// The usage of the process `pid`.
///
/// # Errors
/// There is no such process, or no `/proc`.
pub(super) fn usage(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(&stat)
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat reads otherwise than known")))
}

/// proc_pid_stat(5): after the command's name in parentheses, which may hold anything, the state is field 3.
fn parse(stat: &str) -> Option<Usage> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let time = |number: usize| {
        let ticks = u32::try_from(field(number)?).ok()?;
        Some(Duration::from_secs(1) * ticks / u32::try_from(clock_ticks_per_second()).ok()?)
    };
    Some(Usage {
        user: time(14)?,
        system: time(15)?,
        rss_bytes: field(24)? * page_size() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_parenthesis_and_spaces_does_not_shift_the_fields() {
        let stat =
            "42 (a) b (c) S 1 42 42 0 -1 4194560 98 0 0 0 150 50 0 0 20 0 4 0 777 1000000 25 1844";
        let usage = parse(stat).unwrap();
        let seconds = |ticks| Duration::from_secs(ticks) / clock_ticks_per_second() as u32;
        assert_eq!((usage.user, usage.system), (seconds(150), seconds(50)));
        assert_eq!(usage.rss_bytes, 25 * page_size() as u64);
        assert!(parse("42 (a").is_none());
    }
}
