//! Where on a page everything of a picture stands: a row for each logical time, a column for each lifeline.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Range,
};

use super::{
    lifeline::{Life, Lifelines},
    picture::{Moment, Picture, PointId},
};

/// A part of a picture that is drawn together.
#[derive(Debug)]
pub(super) struct Page {
    /// Which events: each whole, with all its points.
    pub(super) events: Range<usize>,
    /// The logical times at which something stands, from the top; each once.
    pub(super) rows: Vec<Moment>,
    /// The lifelines that are seen, from the left; the service's first.
    pub(super) columns: Vec<usize>,
    /// Of each lifeline, its column.
    places: HashMap<usize, usize>,
    /// Of points that others would hide, which one of them it is: 1, 2 ...
    hidden: HashMap<PointId, usize>,
}

/// Cuts `picture` into pages of `per_page` events at most; histories are never on one page together. At least one page.
pub(super) fn pages(picture: &Picture<'_>, per_page: usize) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut begin = 0;
    let histories = picture
        .events
        .chunk_by(|one, next| one.at.epoch == next.at.epoch);
    for history in histories {
        let end = begin + history.len();
        while begin < end {
            let until = begin.saturating_add(per_page.max(1)).min(end);
            pages.push(Page::new(picture, begin..until));
            begin = until;
        }
    }
    if pages.is_empty() {
        pages.push(Page::new(picture, 0..0));
    }
    pages
}

impl Page {
    /// The page of these events, of whatever histories.
    pub(super) fn new(picture: &Picture<'_>, events: Range<usize>) -> Self {
        let shown = || {
            let points = picture.events[events.clone()]
                .iter()
                .flat_map(|event| event.points.iter().copied());
            points.map(|point| (point, &picture.points[point]))
        };
        let rows: BTreeSet<Moment> = shown().map(|(_, point)| point.at).collect();
        let rows: Vec<Moment> = rows.into_iter().collect();
        let touched: HashSet<usize> = shown().map(|(_, point)| point.lifeline).collect();
        let is_seen = |line: usize| {
            let there = |life: &Life| visible(&rows, life).is_some();
            line == Lifelines::SERVICE
                || touched.contains(&line)
                || picture.lifelines[line].lives.iter().any(there)
        };
        let columns: Vec<usize> = (0..picture.lifelines.len())
            .filter(|&line| is_seen(line))
            .collect();
        let places = columns
            .iter()
            .enumerate()
            .map(|(column, &line)| (line, column))
            .collect();
        let mut hidden = HashMap::new();
        let mut taken: HashMap<(usize, Moment), usize> = HashMap::new();
        for (id, point) in shown() {
            let before = taken.entry((point.lifeline, point.at)).or_default();
            if *before > 0 {
                hidden.insert(id, *before);
            }
            *before += 1;
        }
        Self {
            events,
            rows,
            columns,
            places,
            hidden,
        }
    }

    /// The row of a moment that something on this page stands at; of another one, the next row below it, or one below all.
    pub(super) fn row(&self, at: Moment) -> usize {
        self.rows.partition_point(|&row| row < at)
    }

    /// The column of a lifeline that is seen on this page.
    pub(super) fn column(&self, lifeline: usize) -> usize {
        self.places.get(&lifeline).copied().unwrap_or_default()
    }

    /// How many others already stand exactly where this point does. Only a clock that did not tick causes that.
    pub(super) fn beside(&self, point: PointId) -> usize {
        self.hidden.get(&point).copied().unwrap_or_default()
    }

    /// The first and the last row of a life on this page, and whether its beginning and its end are on it.
    pub(super) fn rows_of(&self, life: &Life) -> Option<Extent> {
        visible(&self.rows, life)
    }
}

/// What of a life is on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Its first row.
    pub(super) first: usize,
    /// Its last row.
    pub(super) last: usize,
    /// It goes on above the page.
    pub(super) from_above: bool,
    /// It goes on below the page.
    pub(super) goes_on: bool,
}

fn visible(rows: &[Moment], life: &Life) -> Option<Extent> {
    let first = rows.partition_point(|&row| row < life.from);
    let beyond = rows.partition_point(|&row| row <= life.to);
    let last = beyond.checked_sub(1)?;
    (first <= last).then(|| Extent {
        first,
        last,
        from_above: rows.first().is_some_and(|&row| life.from < row),
        goes_on: rows.last().is_some_and(|&row| row < life.to),
    })
}
