// SPDX-License-Identifier: GPL-2.0

//! Does what is due for segments whose files may have to be waited for.
//!
//! One worker does it for all segments of one file system, one after the other, so that however
//! many wait for a disk that hangs, they keep no more workers than that from others; and nothing
//! of another file system comes behind them: who touches what has been zapped and not been put yet
//! tries again and again until it is.
//!
//! Locks: a mutex, under which nothing is done but to look and to note.

use kernel::{
    list::{
        List,
        ListArc, //
    },
    prelude::*,
    sync::{
        new_mutex,
        Arc,
        Mutex, //
    },
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    },
};

use crate::{
    segment::{
        Segment,
        ATTENDED, //
    },
    sys::workers,
};

/// See the top of the file.
#[pin_data]
pub(crate) struct Attendant {
    #[pin]
    segments: Mutex<List<Segment, ATTENDED>>,
    #[pin]
    work: Work<Attendant>,
}

impl_has_work! {
    impl HasWork<Self> for Attendant { self.work }
}

impl Attendant {
    /// A new one, with nothing to do. `ENOMEM`.
    pub(super) fn new() -> Result<Arc<Attendant>> {
        Arc::pin_init(
            pin_init!(Attendant {
                segments <- new_mutex!(List::new(), "Attendant::segments"),
                work <- new_work!("address_space::Attendant"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Has a worker call [`Revoke::attend`] for a segment.
    ///
    /// [`Revoke::attend`]: super::Revoke::attend
    pub(super) fn attend(self: &Arc<Self>, segment: &Arc<Segment>) {
        if let Ok(segment) = ListArc::try_from_arc(segment.clone()) {
            self.segments.lock().push_back(segment);
        }
        // An error says that it is queued already.
        let _ = workers::files().enqueue(self.clone());
    }
}

impl WorkItem for Attendant {
    type Pointer = Arc<Attendant>;

    fn run(attendant: Arc<Attendant>) {
        loop {
            let Some(segment) = attendant.segments.lock().pop_front() else {
                break;
            };
            // It may have to be attended to again as soon as it is off the list.
            segment.into_arc().attend();
        }
    }
}
