//! Which sockets can be read or written: Linux's epoll, level-triggered.

use std::{io, os::fd::AsFd, os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{
        Timespec,
        epoll::{self, Event, EventData, EventFlags},
    },
    io::Errno,
};

/// How many sockets one call tells of; further ones come with the next.
const EVENTS: usize = 512;

/// A set of sockets, each with a token of the caller's choice.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// A socket that can be worked on. An error or an end shows as both, and the next read or write tells what it is.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    pub token: usize,
    pub readable: bool,
    pub writable: bool,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// From here on, tells when `source` can be read.
    pub fn add(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            source,
            data(token),
            EventFlags::IN,
        )?)
    }

    /// Tells also, or no more, when `source` can be written.
    pub fn watch_writable(&self, source: impl AsFd, token: usize, watch: bool) -> io::Result<()> {
        let mut interest = EventFlags::IN;
        interest.set(EventFlags::OUT, watch);
        Ok(epoll::modify(&self.epoll, source, data(token), interest)?)
    }

    /// Tells nothing more of `source`.
    pub fn remove(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, source)?)
    }

    /// Waits for sockets that can be worked on, at most this long (in whole milliseconds, rounded up), and puts them in
    /// the place of what `ready` held. None: the time is over, or a signal came.
    pub fn wait(&mut self, limit: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        let events = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, events, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let over = EventFlags::ERR | EventFlags::HUP;
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                token: event.data.u64() as usize,
                readable: flags.intersects(EventFlags::IN | over),
                writable: flags.intersects(EventFlags::OUT | over),
            }
        }));
        Ok(())
    }
}

fn data(token: usize) -> EventData {
    EventData::new_u64(token as u64)
}
