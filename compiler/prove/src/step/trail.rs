//! What happens on the way to a state.

use super::Event;

/// What happens on the way to a state, in order. A walk notes nothing: only who draws a path asks for it.
#[derive(Clone, Debug, Default)]
pub struct Trail(Option<Vec<Event>>);

impl Trail {
    /// Nothing so far; if not `noted`, nothing for ever.
    pub(super) fn new(noted: bool) -> Self {
        Self(noted.then(Vec::new))
    }

    pub(super) fn push(&mut self, event: Event) {
        if let Some(events) = &mut self.0 {
            events.push(event);
        }
    }

    /// This, and then an event.
    #[must_use]
    pub(super) fn and(&self, event: Event) -> Self {
        let mut both = self.clone();
        both.push(event);
        both
    }

    /// This after what happened before it.
    pub(super) fn put_after(&mut self, before: &Trail) {
        if let (Some(events), Some(before)) = (&mut self.0, &before.0) {
            events.splice(0..0, before.iter().cloned());
        }
    }

    /// The events; none if they were not noted.
    #[must_use]
    pub fn into_events(self) -> Vec<Event> {
        self.0.unwrap_or_default()
    }
}
